"""Saves that find no room, and saves that are killed: a checkpoint that loads is always left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY, tiny_args
from test_checkpoint_damage import NEW, is_equal, tiny_state

from ulga_d2.engine.checkpoint import save_checkpoint
from ulga_d2.engine.launch import main
from ulga_d2.errors import UserError
from ulga_d2.weights.checkpoint import load_last

CROWDED = """
import resource, signal, sys, torch
sys.path.insert(0, "tests")
from test_checkpoint_damage import tiny_state, NEW
from ulga_d2.engine.checkpoint import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
save_checkpoint(sys.argv[1], NEW, {**tiny_state(3), "ballast": torch.zeros(100_000)})
"""


def test_a_file_that_finds_no_room_is_told_and_leaves_the_one_before(tmp_path):
    save_checkpoint(tmp_path, NEW, tiny_state(2))
    done = subprocess.run(
        [sys.executable, "-c", CROWDED, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert f"UserError: checkpoint {tmp_path / NEW} could not be written" in done.stderr
    assert f"{NEW} is still in force: make room, and --resume goes on" in done.stderr
    assert is_equal(load_last(tmp_path)[1], tiny_state(2))
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.slow
def test_a_full_disk_ends_a_run_with_one_line_and_room_lets_it_go_on(sample_data, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted")
    try:
        options = {"SOLVER__MAX_ITER": 12, "SOLVER__CHECKPOINT_PERIOD": 1}
        with pytest.raises(UserError, match=r"No space left on device.*make room"):
            main(tiny_args(disk / "run", **options, SOLVER__CHECKPOINT_KEEP=12))
        _, state = load_last(disk / "run")
        for path in sorted((disk / "run").glob("model_0*.pth"))[:-1]:
            path.unlink()
        main(tiny_args(disk / "run", resume=True, **options, SOLVER__CHECKPOINT_KEEP=1))
        assert load_last(disk / "run")[1]["iteration"] == 12 > state["iteration"]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


SAVING = """
import sys
sys.path.insert(0, "tests")
from test_checkpoint_damage import tiny_state
from ulga_d2.engine.checkpoint import remove_old, save_checkpoint
from ulga_d2.evaluation.atomic import remove_unfinished
remove_unfinished(sys.argv[1])
for number in range(100_000):
    save_checkpoint(sys.argv[1], f"model_{number:07d}.pth", tiny_state(number))
    remove_old(sys.argv[1], 2, number)
    print(number, flush=True)
"""


def test_a_kill_in_the_middle_of_saving_leaves_a_checkpoint_that_loads(tmp_path):
    generator = random.Random(0)
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [sys.executable, "-c", SAVING, str(folder)]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        time.sleep(generator.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        printed, _ = process.communicate()
        done = int(printed.split()[-1]) if printed.split() else 0
        path, state = load_last(folder)
        assert state["iteration"] >= done
        assert is_equal(state, tiny_state(state["iteration"]))
        assert path.name == (folder / "last_checkpoint").read_text()
        assert len(list(folder.glob("model_*.pth"))) <= 3
