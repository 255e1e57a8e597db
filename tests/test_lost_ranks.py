"""A rank that is killed: it ends the others, and torchrun starts the run again where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from test_torchrun import (
    SECONDS,
    finish,
    free_port,
    hash_of,
    start_torchrun,
    start_two_hosts,
    two_hosts,
    whole_run,
)
from test_trainer import start_command

LONG = {"SOLVER__MAX_ITER": 40, "SOLVER__CHECKPOINT_PERIOD": 5}


def ranks_of(launcher: subprocess.Popen) -> list[int]:
    """Return the processes of a launcher's ranks."""
    found = []
    for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"spawn_main" in command or b"train_net.py" in command:
            found.append(int(pid))
    return found


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + SECONDS
    while not path.exists():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_rank_ends_the_others_within_a_minute(sample_data, tmp_path):
    process = start_command(tmp_path, "--num-gpus", "2", SOLVER__MAX_ITER=100_000)
    wait_for(tmp_path / "last_checkpoint", process)
    ranks = ranks_of(process)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    assert output.splitlines()[-1].startswith("error: SIGKILL has ended rank 1")
    assert "Traceback" not in output
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


@pytest.mark.slow
def test_a_killed_rank_ends_the_other_host_within_a_minute(sample_data, tmp_path):
    hosts = start_two_hosts(tmp_path, SOLVER__MAX_ITER=100_000)
    wait_for(tmp_path / "last_checkpoint", hosts[0])
    os.kill(ranks_of(hosts[1])[0], signal.SIGKILL)
    output, _ = hosts[1].communicate(timeout=60)
    assert output.splitlines()[-1].startswith("error: SIGKILL has ended rank 1")
    hosts[0].communicate(timeout=60)
    assert [host.returncode for host in hosts] == [1, 128 + signal.SIGKILL]


@pytest.mark.slow
def test_a_rank_killed_under_torchrun_is_restarted_and_the_run_ends_as_if_it_had_not_been(
    sample_data, tmp_path
):
    folder = tmp_path / "torchrun"
    flags = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    process = start_torchrun(folder, *flags, **LONG)
    wait_for(folder / "last_checkpoint", process)
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    finish(process)
    log = (folder / "log.txt").read_text()
    assert log.count("torchrun has started the run again") == 1
    assert hash_of(folder) == whole_run(tmp_path / "own", **LONG)
    figures = [(run / "inference" / "metrics.json") for run in (folder, tmp_path / "own")]
    assert figures[0].read_bytes() == figures[1].read_bytes()


@pytest.mark.slow
def test_a_rank_killed_on_one_of_two_torchrun_hosts_restarts_both(sample_data, tmp_path):
    folder = tmp_path / "hosts"
    flags = (*two_hosts(free_port()), "--max-restarts", "2")
    hosts = [start_torchrun(folder, *flags, **LONG) for _ in "01"]
    wait_for(folder / "last_checkpoint", hosts[0])
    os.kill(ranks_of(hosts[1])[0], signal.SIGKILL)
    for host in hosts:
        finish(host)
    assert hash_of(folder) == whole_run(tmp_path / "own", **LONG)
