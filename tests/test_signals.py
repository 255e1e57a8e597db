"""SIGTERM and SIGUSR1: a run saves, ends with the shell's code for the signal, and can go on."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from conftest import tiny_args
from test_lost_ranks import ranks_of, wait_for
from test_torchrun import finish, hash_of, start_torchrun, whole_run
from test_trainer import figures_of, start_command, weights_hash

from ulga_d2.engine import trainer
from ulga_d2.engine.launch import main, setup
from ulga_d2.engine.signals import StopSignals

SECONDS = 20
LONG = {"SOLVER__MAX_ITER": 40, "SOLVER__CHECKPOINT_PERIOD": 20}


def wait_for_iterations(folder: Path, process: subprocess.Popen, evaluations: int = 0) -> None:
    """Wait until the first line of figures is written."""
    wait_for(folder / "metrics.json", process)
    while not (folder / "metrics.json").read_text().strip():
        assert process.poll() is None
        time.sleep(0.02)


def stop(process: subprocess.Popen, number: int, pids: list[int]) -> str:
    """Send a signal, and return what the run printed; it has 20 seconds."""
    for pid in pids:
        os.kill(pid, number)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number, output[-2000:]
    assert "Traceback" not in output
    return output


@pytest.fixture(scope="module")
def whole(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted run with evaluations."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(sample_root))
        main(tiny_args(folder, **LONG, TEST__EVAL_PERIOD=8))
    return folder


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 0), (signal.SIGUSR1, 2)])
def test_a_run_that_was_asked_to_stop_saves_and_resumes_to_the_same_end(
    whole, sample_data, tmp_path, number, workers
):
    changes = {**LONG, "TEST__EVAL_PERIOD": 8, "DATALOADER__NUM_WORKERS": workers}
    process = start_command(tmp_path, **changes)
    wait_for(tmp_path / "last_checkpoint", process)
    # As Slurm does: the loader's workers get it, too.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    output = stop(process, number, [*map(int, children), process.pid])
    assert f"{signal.Signals(number).name}: saved after" in output
    assert not (tmp_path / "model_final.pth").exists()
    main(tiny_args(tmp_path, resume=True, **changes))
    assert weights_hash(tmp_path / "model_final.pth") == weights_hash(whole / "model_final.pth")
    figures = [run / "inference" / "metrics.json" for run in (tmp_path, whole)]
    assert figures[0].read_bytes() == figures[1].read_bytes()
    assert figures_of(tmp_path) == figures_of(whole)


class Left(BaseException):
    """Stands for the end of the process."""


def test_a_signal_in_an_evaluation_saves_at_once_and_the_evaluation_is_made_up_for(
    whole, sample_data, tmp_path, monkeypatch
):
    changes = {**LONG, "TEST__EVAL_PERIOD": 8}

    def evaluate_half(*_: object) -> dict:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the evaluation has gone on")

    def end(code: int) -> None:
        raise Left(code)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "evaluate", evaluate_half)
        patch.setattr(trainer, "end_process", end)
        cfg, data, _ = setup(tiny_args(tmp_path, **changes))
        with pytest.raises(Left) as left:
            trainer.Trainer(cfg, data).train()
    assert left.value.args == (143,)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000008.pth"
    main(tiny_args(tmp_path, resume=True, **changes))
    assert weights_hash(tmp_path / "model_final.pth") == weights_hash(whole / "model_final.pth")
    assert figures_of(tmp_path) == figures_of(whole)


def test_one_rank_that_is_asked_stops_both_after_the_same_iteration(sample_data, tmp_path):
    endless = {"SOLVER__MAX_ITER": 100_000, "SOLVER__CHECKPOINT_PERIOD": 20}
    process = start_command(tmp_path, "--num-gpus", "2", **endless)
    wait_for(tmp_path / "last_checkpoint", process)
    ranks = ranks_of(process)
    output = stop(process, signal.SIGTERM, ranks[1:])
    assert "SIGTERM: saved after" in output
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


def test_the_launcher_hands_a_signal_to_its_ranks_and_waits_for_them(sample_data, tmp_path):
    endless = {"SOLVER__MAX_ITER": 100_000, "SOLVER__CHECKPOINT_PERIOD": 20}
    process = start_command(tmp_path, "--num-gpus", "2", **endless)
    wait_for(tmp_path / "last_checkpoint", process)
    stop(process, signal.SIGTERM, [process.pid])
    assert (tmp_path / "last_checkpoint").read_text() != "model_0000020.pth"


@pytest.mark.slow
def test_torchrun_restarts_a_run_that_was_asked_to_stop_and_it_ends_as_the_uninterrupted_one(
    sample_data, tmp_path
):
    folder = tmp_path / "torchrun"
    changes = {"SOLVER__MAX_ITER": 40, "SOLVER__CHECKPOINT_PERIOD": 5}
    flags = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    process = start_torchrun(folder, *flags, **changes)
    wait_for(folder / "last_checkpoint", process)
    os.kill(ranks_of(process)[1], signal.SIGTERM)
    finish(process)
    log = (folder / "log.txt").read_text()
    assert log.count("SIGTERM: saved after") == 1
    assert log.count("torchrun has started the run again") == 1
    assert hash_of(folder) == whole_run(tmp_path / "own", **changes)


def test_a_signal_before_the_block_is_acted_on_at_its_start():
    acted = []
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGUSR1)
        assert signals.asked == signal.SIGUSR1
        with signals.at_once(acted.append):
            signal.raise_signal(signal.SIGTERM)  # a second one changes nothing
    assert acted == [signal.SIGUSR1]


def test_handlers_are_put_back_and_none_are_set_outside_the_main_thread():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
    faults = []

    def enter() -> None:
        try:
            with StopSignals():
                pass
        except ValueError as error:
            faults.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not faults
