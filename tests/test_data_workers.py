"""Data workers: room in shared memory, workers that are killed or stand still, and the signals."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY, tiny_args
from test_lost_ranks import wait_for
from test_signals import stop
from test_trainer import start_command, weights_hash

from ulga_d2.engine import loader, memory
from ulga_d2.engine.launch import main, setup
from ulga_d2.engine.loader import fitting_workers
from ulga_d2.errors import UserError
from ulga_d2.folder_lock import LOCK, _process_start

ENDLESS = {"SOLVER__MAX_ITER": 100_000, "SOLVER__CHECKPOINT_PERIOD": 20}
WORKER = {**ENDLESS, "DATALOADER__NUM_WORKERS": 1}


@pytest.mark.parametrize(
    ("workers", "batch", "free", "held", "fitting"),
    [
        (4, 10, 90, 1, 4),  # 4 x 2 batches, and the one in use
        (4, 10, 89, 1, 3),
        (4, 10, 29, 1, 0),
        (4, 10, 50, 3, 1),
        (4, 10, 0, 1, 0),
        (0, 10, 10**9, 1, 0),
        (4, 0, 100, 1, 4),
    ],
)
def test_as_many_workers_are_taken_as_shared_memory_holds_batches_of(
    workers, batch, free, held, fitting
):
    assert fitting_workers(workers, batch, free, held) == fitting


def test_free_shared_memory_is_what_the_system_says():
    listed = subprocess.run(["df", "-B1", "--output=avail", "/dev/shm"], capture_output=True)
    expected = int(listed.stdout.split()[-1])
    assert memory.free_shared_memory() == pytest.approx(expected, rel=0.2)


def test_a_run_in_too_little_shared_memory_reads_without_workers_and_says_what_to_enlarge(
    sample_data, tmp_path, monkeypatch
):
    main(tiny_args(tmp_path / "plain"))
    # 64 x 64 pixels of 3 bytes, 2 images: a batch takes 24,576 bytes.
    monkeypatch.setattr(loader, "free_shared_memory", lambda: 50_000)
    monkeypatch.setattr("ulga_d2.inference.device.available_cores", lambda: 8)
    main(tiny_args(tmp_path / "small", DATALOADER__NUM_WORKERS=2))
    log = (tmp_path / "small" / "log.txt").read_text()
    assert "DATALOADER.NUM_WORKERS 2 -> 0: a batch takes 0.0 MB of /dev/shm" in log
    assert "--shm-size" in log
    hashes = [weights_hash(tmp_path / run / "model_final.pth") for run in ("plain", "small")]
    assert hashes[0] == hashes[1]


def test_the_bound_on_a_batch_is_that_of_the_pixels_in_the_files(
    sample_data, tmp_path, monkeypatch, caplog
):
    cfg, data, _ = setup(tiny_args(tmp_path, DATALOADER__NUM_WORKERS=1))
    batch = 2 * 3 * 64 * 64
    with caplog.at_level(logging.WARNING):
        for free, expected in ((3 * batch / 0.9 + 10, 1), (3 * batch / 0.9 - 10, 0)):
            monkeypatch.setattr(loader, "free_shared_memory", lambda free=free: int(free))
            assert loader.TestLoader(cfg, data.train)._loader.num_workers == expected


def test_a_batch_that_finds_no_room_in_shared_memory_ends_the_run_with_one_line(
    sample_data, tmp_path, monkeypatch
):
    def dumps(*_: object) -> bytes:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(loader, "ForkingPickler", SimpleNamespace(dumps=dumps))
    with pytest.raises(UserError, match=r"no room in shared memory .*No space left.*--shm-size"):
        main(tiny_args(tmp_path, DATALOADER__NUM_WORKERS=1))


@pytest.mark.slow
def test_a_shared_memory_of_64_kilobytes_does_not_stop_a_run(sample_data, tmp_path):
    command = [sys.executable, "-m", "ulga_d2.cli.main", "train", "--config-file"]
    args = tiny_args(tmp_path / "run", DATALOADER__NUM_WORKERS=1)
    command += [args.config_file, *args.opts]
    mount = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    whole = ["unshare", "-m", "bash", "-c", mount, "bash"]
    if subprocess.run([*whole, "true"], capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted")
    done = subprocess.run([*whole, *command], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "DATALOADER.NUM_WORKERS 1 -> 0" in (tmp_path / "run" / "log.txt").read_text()


def worker_of(process: subprocess.Popen) -> int:
    """Return the data worker of a run of one process."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.02)
    raise AssertionError("there is no data worker")


def test_a_killed_data_worker_ends_the_run_with_one_line_and_nothing_is_lost(sample_data, tmp_path):
    length = {"SOLVER__MAX_ITER": 200, "SOLVER__CHECKPOINT_PERIOD": 5}
    process = start_command(tmp_path, **length, DATALOADER__NUM_WORKERS=1)
    wait_for(tmp_path / "last_checkpoint", process)
    os.kill(worker_of(process), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in output
    last = output.splitlines()[-1]
    assert last.startswith("error: data worker ")
    assert "was killed (signal 9: out of memory?). Lower DATALOADER.NUM_WORKERS (now 1)" in last
    name = (tmp_path / "last_checkpoint").read_text()
    assert last.endswith(f"{int(name[6:13])} iterations are saved in {name}")
    assert not (tmp_path / LOCK).exists()
    main(tiny_args(tmp_path, resume=True, **length))
    main(tiny_args(tmp_path / "whole", **length))
    runs = [tmp_path / "model_final.pth", tmp_path / "whole" / "model_final.pth"]
    assert weights_hash(runs[0]) == weights_hash(runs[1])


def test_workers_that_give_nothing_end_the_run_after_the_timeout(sample_data, tmp_path):
    process = start_command(tmp_path, **WORKER, DATALOADER__TIMEOUT=3)
    wait_for(tmp_path / "last_checkpoint", process)
    os.kill(worker_of(process), signal.SIGSTOP)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in output
    assert "error: no batch came within 3 s (DATALOADER.TIMEOUT)" in output.splitlines()[-1]


def test_a_signal_while_a_batch_is_waited_for_saves_at_once(sample_data, tmp_path):
    process = start_command(tmp_path, **WORKER)
    wait_for(tmp_path / "last_checkpoint", process)
    worker = worker_of(process)
    os.kill(worker, signal.SIGSTOP)
    time.sleep(2)  # until the batches on their way are used up
    output = stop(process, signal.SIGTERM, [process.pid])
    assert "SIGTERM: saved after" in output
    done = int((tmp_path / "last_checkpoint").read_text()[6:13])
    assert f"saved after {done} iterations" in output
    assert _process_start(worker) is None
    assert not (tmp_path / LOCK).exists()


WAITING = """
import ctypes, sys, threading
from ulga_d2.engine.signals import StopSignals
mutex = ctypes.create_string_buffer(128)
libc = ctypes.CDLL(None)
libc.pthread_mutex_lock(mutex)
with StopSignals(grace=float(sys.argv[1])):
    print("waiting", flush=True)
    libc.pthread_mutex_lock(mutex)  # compiled code that comes back never
"""


def start_waiting(grace: float) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(grace)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout.readline() == "waiting\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_process_that_waits_in_compiled_code_ends_when_the_grace_is_over(number):
    process = start_waiting(grace=0.5)
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert f"{number.name}: nothing was saved, since the process has been waiting" in output


def test_a_second_signal_ends_a_process_at_once_and_a_repeated_first_one_does_not():
    process = start_waiting(grace=600)
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    time.sleep(2.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 143
    assert output.strip() == "SIGTERM: the second signal; nothing was saved"


SAVING = """
import sys, time
from ulga_d2.engine import checkpoint
from ulga_d2.engine.signals import StopSignals
from ulga_d2.evaluation.atomic import unfinished_path

def write_slowly(content, file):
    print("saving", flush=True)
    end = time.monotonic() + float(sys.argv[3])
    while time.monotonic() < end:
        time.sleep(0.05)
    file.write(b"whole")

checkpoint.torch.save = write_slowly
with StopSignals(grace=float(sys.argv[2])) as signals:
    checkpoint.save_together(sys.argv[1], "model_0000001.pth", {})
    print("saved", flush=True)
    time.sleep(float(sys.argv[4]))
    print("acted", flush=True)
"""


def start_saving(folder: Path, grace: float, saving: float, after: float) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", SAVING, *map(str, (folder, grace, saving, after))],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout.readline() == "saving\n"
    return process


def test_a_save_takes_longer_than_the_grace_which_starts_anew_after_it(tmp_path):
    process = start_saving(tmp_path, grace=2, saving=4, after=1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert output.split() == ["saved", "acted"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    process = start_saving(tmp_path, grace=1, saving=2, after=30)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 143
    assert output.startswith(
        "saved\nSIGTERM: nothing was saved, since the process has been waiting"
    )


def test_a_scheduler_ends_no_save_with_a_second_signal_and_ctrl_c_does(tmp_path):
    process = start_saving(tmp_path, grace=20, saving=5, after=0)
    process.send_signal(signal.SIGUSR1)
    time.sleep(2.3)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert output.split() == ["saved", "acted"]
    process = start_saving(tmp_path, grace=20, saving=60, after=0)
    process.send_signal(signal.SIGUSR1)
    time.sleep(2.3)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode in (130, -signal.SIGINT)  # by the watching thread or by Python
    assert not {"saved", "acted"} & set(output.splitlines())


def test_no_second_signal_of_a_scheduler_ends_what_acts_on_the_first(tmp_path):
    code = SAVING.split("with Stop")[0] + (
        "with StopSignals() as signals, signals.at_once(lambda _: checkpoint.save_checkpoint("
        "sys.argv[1], 'model_0000001.pth', {})):\n"
        "    print('waiting', flush=True)\n"
        "    signals.asked or time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code + "    raise SystemExit(9)\n", str(tmp_path), "1", "5"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGUSR1)
    time.sleep(2.5)
    process.send_signal(signal.SIGTERM)
    time.sleep(4)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    process.kill()
    process.communicate()


def test_a_process_that_was_suspended_has_its_grace_when_it_goes_on(tmp_path):
    process = start_waiting(grace=6)
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    process.send_signal(signal.SIGSTOP)
    time.sleep(7)
    process.send_signal(signal.SIGCONT)
    time.sleep(2)
    assert process.poll() is None
    process.communicate(timeout=20)
    assert process.returncode == 143


def test_a_run_that_was_suspended_for_longer_than_the_timeout_goes_on(sample_data, tmp_path):
    process = start_command(tmp_path, **WORKER, DATALOADER__TIMEOUT=5)
    wait_for(tmp_path / "last_checkpoint", process)
    worker = worker_of(process)
    os.kill(worker, signal.SIGSTOP)
    time.sleep(2)  # until the batches on their way are used up
    process.send_signal(signal.SIGSTOP)
    time.sleep(7)
    process.send_signal(signal.SIGCONT)
    time.sleep(1.5)
    assert process.poll() is None
    os.kill(worker, signal.SIGCONT)
    stop(process, signal.SIGTERM, [process.pid])
