"""Stopping a study: its cells save, and what still runs is not run twice."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.test_folder_lock import holding
from tests.test_study import Pretended, written
from ulga_d2.errors import UserError
from ulga_d2.study.execute import Execution
from ulga_d2.study.plan import read_study


class Sleeping(Execution):
    """Cells that say that they sleep, and end with 143 at SIGTERM."""

    CODE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(143)))
print("asleep", flush=True)
time.sleep(60)
"""

    def _command(self, cell):
        return [sys.executable, "-c", self.CODE]


def signal_when(path: Path, number: int) -> None:
    """Send this process a signal as soon as a cell sleeps."""
    while not (path.is_file() and "asleep" in path.read_text()):
        time.sleep(0.05)
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_stop_tells_the_cells_that_run_to_save_and_begins_no_other(tmp_path, caplog, number, end):
    study = read_study(written(tmp_path, data=None))
    execution = Sleeping(study, tmp_path / "out")
    output = tmp_path / "out/cells/plain_seed0.txt"
    threading.Thread(target=signal_when, args=[output, number], daemon=True).start()
    # What a shell starts in the background ignores Ctrl-C, and these tests may be such a thing.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(end) as ended:
            execution.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert end is KeyboardInterrupt or ended.value.code == 143
    assert "saved" in output.read_text()
    assert not any(execution.is_done(cell) for cell in study.cells)
    assert [path.name for path in output.parent.glob("*.txt") if path.read_text()] == [output.name]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_cell_that_another_process_still_runs_is_not_run_beside_it(tmp_path):
    study = read_study(written(tmp_path, data=None))
    path = tmp_path / "out/cells/both_seed1"
    path.mkdir(parents=True)
    with holding(path) as left:
        with pytest.raises(UserError, match=f"both_seed1 is in use by process {left.pid} on"):
            Pretended(study, tmp_path / "out").run()
        assert not (tmp_path / "out/cells/plain_seed0.json").exists()
    assert Pretended(study, tmp_path / "out").run() == []
