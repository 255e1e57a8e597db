"""The lock on an output folder: who is refused, what is taken over, and when it is released."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

from ulga_d2 import folder_lock
from ulga_d2.errors import UserError
from ulga_d2.folder_lock import (
    LOCK,
    STALE_SECONDS,
    check_not_locked,
    check_still_locked,
    lock_folder,
    locked_folder,
    release_locks,
)

HOLD = """
import sys
from pathlib import Path
from ulga_d2 import folder_lock
{change}
folder_lock.lock_folder(Path(sys.argv[1]), "OUTPUT_DIR")
print("locked", flush=True)
{then}
"""
SCHEDULED = (
    "SLURM_JOB_ID",
    "PBS_JOBID",
    "LSB_JOBID",
    "SGE_TASK_ID",
    "FLUX_JOB_ID",
    "TORCHELASTIC_RUN_ID",
)


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SCHEDULED:
        monkeypatch.delenv(name, raising=False)


def start(folder: Path, change: str = "", then: str = "sys.stdin.read()") -> subprocess.Popen:
    """Start a process that locks a folder, and wait until it has."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(change=change, then=then), str(folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout.readline() == "locked\n"
    return process


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[subprocess.Popen]:
    """Have another process hold the lock on a folder."""
    process = start(folder)
    try:
        yield process
    finally:
        process.communicate()


def leave_lock(folder: Path, age: float = 0.0, **changes: object) -> Path:
    """Write the lock of a process that is not running here."""
    owner = folder_lock._describe_this_process()
    owner = dataclasses.replace(owner, host="elsewhere", token="other", **changes)
    path = folder / LOCK
    new = folder / "new"
    new.write_text(json.dumps(dataclasses.asdict(owner)))
    then = time.time() - age
    os.utime(new, (then, then))
    return new.replace(path)


def test_a_folder_in_use_is_refused_with_process_host_and_time_until_it_is_released(tmp_path):
    with holding(tmp_path) as other:
        since = json.loads((tmp_path / LOCK).read_text())["since"]
        with pytest.raises(UserError) as refused:
            lock_folder(tmp_path, "OUTPUT_DIR")
        with pytest.raises(UserError):
            check_not_locked(tmp_path, "OUTPUT_DIR")
    assert str(refused.value) == (
        f"OUTPUT_DIR {tmp_path} is in use by process {other.pid} on {os.uname().nodename} since "
        f"{since}; stop it, wait for it, or choose another OUTPUT_DIR"
    )
    assert list(tmp_path.iterdir()) == []
    assert lock_folder(tmp_path, "OUTPUT_DIR") == ""
    assert lock_folder(tmp_path, "OUTPUT_DIR") == ""  # it is this process's own


def test_the_lock_of_a_killed_process_is_taken_over_at_once_and_its_files_stay(tmp_path):
    other = start(tmp_path)
    (tmp_path / "model_0000002.pth").write_bytes(b"weights")
    other.kill()
    other.communicate()
    line = lock_folder(tmp_path, "OUTPUT_DIR")
    assert line.startswith(f"OUTPUT_DIR {tmp_path}: took over the lock of process {other.pid} on")
    assert line.endswith("it has ended")
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {LOCK, "model_0000002.pth"}


def test_a_zombie_does_not_hold_a_lock(tmp_path):
    other = start(tmp_path)
    other.kill()
    while Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert "it has ended" in lock_folder(tmp_path, "OUTPUT_DIR")
    other.communicate()


def test_a_number_that_another_process_has_now_does_not_hold_a_lock(tmp_path):
    with holding(tmp_path):
        content = json.loads((tmp_path / LOCK).read_text())
        (tmp_path / LOCK).write_text(json.dumps({**content, "process_start": 1}))
        assert "another process has its number" in lock_folder(tmp_path, "OUTPUT_DIR")


def test_another_host_holds_a_lock_until_it_was_not_refreshed_for_five_minutes(tmp_path):
    leave_lock(tmp_path, age=STALE_SECONDS - 20)
    with pytest.raises(UserError, match=r"on elsewhere since .*the lock expires in (1\d|20) s"):
        lock_folder(tmp_path, "OUTPUT_DIR")
    leave_lock(tmp_path, age=STALE_SECONDS + 20)
    assert "it has not refreshed it for 320 s" in lock_folder(tmp_path, "OUTPUT_DIR")


def test_a_wrong_clock_of_this_host_ages_no_lock(tmp_path, monkeypatch):
    leave_lock(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    with pytest.raises(UserError, match="is in use by"):
        lock_folder(tmp_path, "OUTPUT_DIR")


def test_two_containers_with_one_host_name_and_process_1_do_not_take_each_others_lock(tmp_path):
    host = os.uname().nodename
    path = leave_lock(tmp_path, pid=1, process_start=5, pid_namespace="pid:[1]")
    path.write_text(path.read_text().replace("elsewhere", host))
    with pytest.raises(UserError, match=f"process 1 on {host}"):
        lock_folder(tmp_path, "OUTPUT_DIR")


@pytest.mark.parametrize(
    ("before", "now", "is_taken"),
    [
        ({"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "7"}, True),
        ({"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}, True),
        ({"PBS_JOBID": "7.server"}, {"PBS_JOBID": "7.server"}, True),
        ({"LSB_JOBID": "7"}, {"LSB_JOBID": "7"}, True),
        (
            {"LSB_JOBID": "7", "LSF_PM_TASKID": "1"},
            {"LSB_JOBID": "7", "LSF_PM_TASKID": "2"},
            False,
        ),
        (
            {"PBS_JOBID": "7", "OMPI_COMM_WORLD_RANK": "0"},
            {"PBS_JOBID": "7", "OMPI_COMM_WORLD_RANK": "1"},
            False,
        ),
        ({"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "8"}, False),
        ({"SLURM_JOB_ID": "7"}, {"PBS_JOBID": "7"}, False),
        ({"SLURM_JOB_ID": "7"}, {}, False),
        ({}, {}, False),
        # One job's two tasks, as `srun -N 2 python train_net.py` starts them, and its requeue.
        (
            {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"},
            {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1"},
            False,
        ),
        (
            {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0"},
            {"SLURM_JOB_ID": "7", "SLURM_PROCID": "1", "SLURM_RESTART_COUNT": "1"},
            True,
        ),
        (
            {"TORCHELASTIC_RUN_ID": "a", "MASTER_ADDR": "head", "MASTER_PORT": "29500"},
            {"TORCHELASTIC_RUN_ID": "a", "MASTER_ADDR": "head", "MASTER_PORT": "29500"},
            True,
        ),
        (
            {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "head", "MASTER_PORT": "29500"},
            {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "node2", "MASTER_PORT": "29500"},
            False,
        ),
    ],
)
def test_a_job_started_again_on_another_host_takes_its_own_lock_over(
    tmp_path, monkeypatch, before, now, is_taken
):
    with monkeypatch.context() as patch:
        for name, value in before.items():
            patch.setenv(name, value)
        leave_lock(tmp_path)
    for name, value in now.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(folder_lock, "REFRESH_SECONDS", 0.4)
    if is_taken:
        assert "has been started again" in lock_folder(tmp_path, "OUTPUT_DIR")
    else:
        with pytest.raises(UserError, match="is in use by"):
            lock_folder(tmp_path, "OUTPUT_DIR")


JOBS = [{"LSB_JOBID": "7"}, {"PBS_JOBID": "7"}, {"SGE_TASK_ID": "undefined", "JOB_ID": "7"}]


@pytest.mark.parametrize("job", [*JOBS, {"SLURM_JOB_ID": "7"}])
def test_a_task_on_another_host_that_refreshes_its_lock_keeps_it(tmp_path, monkeypatch, job):
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(folder_lock, "REFRESH_SECONDS", 0.4)
    path = leave_lock(tmp_path)
    ended = threading.Event()

    def refresh() -> None:
        while not ended.wait(0.4):
            os.utime(path)

    thread = threading.Thread(target=refresh)
    thread.start()
    try:
        with pytest.raises(UserError, match="is in use by"):
            lock_folder(tmp_path, "OUTPUT_DIR")
    finally:
        ended.set()
        thread.join()


def test_a_restart_that_the_scheduler_counts_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    leave_lock(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(folder_lock, "_outwait", None)
    assert "has been started again" in lock_folder(tmp_path, "OUTPUT_DIR")


def test_a_lock_that_is_gone_when_it_was_moved_aside_is_not_taken_over(tmp_path, monkeypatch):
    path = leave_lock(tmp_path, age=STALE_SECONDS + 1)
    rename = os.rename

    def rename_anothers(source: Path, target: Path) -> None:
        rename(source, target)
        target.unlink()
        path.write_text(json.dumps(dataclasses.asdict(folder_lock._describe_this_process())))

    monkeypatch.setattr(folder_lock.os, "rename", rename_anothers)
    me = folder_lock._describe_this_process()
    assert folder_lock._remove_stale(path, "OUTPUT_DIR x", me) == ""


def test_torchrun_on_one_host_is_not_the_one_of_another_host_with_a_loopback_address(
    tmp_path, monkeypatch
):
    place = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as patch:
        patch.setattr(folder_lock.socket, "gethostname", lambda: "elsewhere")
        leave_lock(tmp_path)
    with pytest.raises(UserError, match="is in use by"):
        lock_folder(tmp_path, "OUTPUT_DIR")


def test_a_process_that_is_alive_keeps_its_lock_from_another_of_its_job(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with holding(tmp_path), pytest.raises(UserError, match="is in use by"):
        lock_folder(tmp_path, "OUTPUT_DIR")


def _compete(folder: Path, barrier: object, results: object) -> None:
    release_locks()
    barrier.wait()
    try:
        line = lock_folder(folder, "OUTPUT_DIR")
    except UserError as error:
        line = f"refused: {error}"
    results.put(line)
    barrier.wait()  # it is held until all have tried


@pytest.mark.parametrize("age", [0, STALE_SECONDS + 1])
def test_of_processes_that_find_one_stale_lock_exactly_one_takes_it(tmp_path, age):
    context, count = multiprocessing.get_context("fork"), 6
    barrier, results = context.Barrier(count), context.Queue()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = leave_lock(folder, age=age)
        if not age:  # of this host, by a process that has ended
            content = json.loads(path.read_text())
            path.write_text(json.dumps({**content, "host": os.uname().nodename, "pid": ended.pid}))
        arguments = (folder, barrier, results)
        workers = [context.Process(target=_compete, args=arguments) for _ in range(count)]
        for worker in workers:
            worker.start()
        lines = [results.get(timeout=60) for _ in workers]
        for worker in workers:
            worker.join()
        won = [line for line in lines if not line.startswith("refused")]
        assert len(won) == 1, lines
        assert [path.name for path in folder.iterdir()] == [LOCK]


def test_a_lock_is_refreshed_while_it_is_held_and_the_thread_keeps_no_process_alive(tmp_path):
    other = start(tmp_path, "folder_lock.REFRESH_SECONDS = 0.05")
    os.utime(tmp_path / LOCK, (1e9, 1e9))
    deadline = time.monotonic() + 20
    while (tmp_path / LOCK).stat().st_mtime == 1e9:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    other.communicate()
    assert other.returncode == 0
    assert not (tmp_path / LOCK).exists()


def test_a_lock_that_was_deleted_is_made_again(tmp_path):
    other = start(tmp_path, "folder_lock.REFRESH_SECONDS = 0.05")
    content = (tmp_path / LOCK).read_bytes()
    (tmp_path / LOCK).unlink()
    deadline = time.monotonic() + 20
    while not (tmp_path / LOCK).exists() or (tmp_path / LOCK).read_bytes() != content:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    other.communicate()


def test_a_process_whose_lock_was_taken_over_ends_and_leaves_the_new_lock(tmp_path):
    other = start(tmp_path, "folder_lock.REFRESH_SECONDS = 0.2")
    path = leave_lock(tmp_path)
    assert other.wait(timeout=30) == folder_lock.LOST_CODE
    output = other.stdout.read()
    assert f"error: OUTPUT_DIR {tmp_path} has been taken over by process {os.getpid()}" in output
    assert "elsewhere" in path.read_text()


def test_nothing_is_written_into_a_folder_whose_lock_was_taken_over(tmp_path):
    check_still_locked(tmp_path)  # never locked: a caller of the library
    lock_folder(tmp_path, "OUTPUT_DIR")
    check_still_locked(tmp_path)
    leave_lock(tmp_path)
    with pytest.raises(UserError, match="has been taken over by .* writes nothing more into it"):
        check_still_locked(tmp_path)


def test_a_forked_child_neither_holds_nor_releases_the_lock_of_its_parent(tmp_path):
    lock_folder(tmp_path, "OUTPUT_DIR")
    child = multiprocessing.get_context("fork").Process(target=release_locks)
    child.start()
    child.join()
    assert (tmp_path / LOCK).exists()
    release_locks()
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("then", ["folder_lock.exit_now(3)", "raise ValueError('a bug')"])
def test_a_process_that_ends_in_any_way_releases_its_lock(tmp_path, then):
    other = start(tmp_path, then=then)
    other.communicate()
    assert other.returncode in (1, 3)
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"host": 3, "pid": "x"}', "\0\0"])
def test_a_file_that_is_no_lock_counts_as_one_until_it_is_old(tmp_path, content):
    path = tmp_path / LOCK
    path.write_text(content)
    with pytest.raises(UserError, match=r"in use by an unknown process since .*expires in"):
        lock_folder(tmp_path, "OUTPUT_DIR")
    os.utime(path, (1e9, 1e9))
    assert "took over the lock of an unknown process" in lock_folder(tmp_path, "OUTPUT_DIR")


def test_control_characters_of_a_lock_do_not_reach_the_message(tmp_path):
    leave_lock(tmp_path, since="now\x1b[2J")
    with pytest.raises(UserError) as refused:
        lock_folder(tmp_path, "OUTPUT_DIR")
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("number", [28, 30])
def test_a_full_or_read_only_folder_is_told_as_such(tmp_path, monkeypatch, number):
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folder_lock.os, "open", refuse)
    with pytest.raises(UserError, match=rf"cannot be written \({os.strerror(number)}\)"):
        lock_folder(tmp_path, "OUTPUT_DIR")


def test_a_block_releases_its_own_lock_and_logs_a_takeover(tmp_path, caplog):
    leave_lock(tmp_path, age=STALE_SECONDS + 1)
    with caplog.at_level(logging.WARNING), locked_folder(tmp_path, "--out"):
        assert (tmp_path / LOCK).exists()
    assert caplog.text.count("took over the lock") == 1
    assert not (tmp_path / LOCK).exists()
