"""The loop: exact resume, accumulation, ranks, and the stop before a step that is not finite."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, REPOSITORY, tiny_args, tiny_options
from detectron2.engine import HookBase

from ulga_d2.engine.history import TIMES
from ulga_d2.engine.launch import main, setup
from ulga_d2.engine.trainer import Trainer
from ulga_d2.weights.checkpoint import load_checkpoint

LENGTH = {"SOLVER__MAX_ITER": 12, "SOLVER__CHECKPOINT_PERIOD": 3}


def weights_hash(path: Path) -> str:
    """Return a digest of weights, optimizer moments and loss normaliser."""
    digest = hashlib.sha256()
    state = load_checkpoint(path)
    for name, value in sorted(state["model"].items()):
        digest.update(name.encode() + value.numpy().tobytes())
    for index, moments in sorted(state["moments"].items()):
        for name in ("step", "exp_avg", "exp_avg_sq"):
            digest.update(f"{index} {name}".encode() + moments[name].numpy().tobytes())
    digest.update(str(state["loss_normalizer"]).encode())
    return digest.hexdigest()


def figures_of(folder: Path) -> list[dict]:
    """Return the lines of a run's metrics.json, without the times."""
    lines = [json.loads(line) for line in open(folder / "metrics.json")]
    return [{name: line[name] for name in line.keys() - set(TIMES)} for line in lines]


def start_command(output_dir: Path, *flags: str, **changes: object) -> subprocess.Popen:
    """Start `train_net.py` on a tiny run in a process of its own, on one thread."""
    leaf = str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml")
    command = [sys.executable, "train_net.py", "--config-file", leaf, *flags]
    return subprocess.Popen(
        command + tiny_options(output_dir, **changes),
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def whole_hash(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the hash of the uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(sample_root))
        torch.set_num_threads(1)
        main(tiny_args(folder, **LENGTH))
    return weights_hash(folder / "model_final.pth")


class StopAfter(HookBase):
    """Stop as Ctrl-C does."""

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    def after_step(self) -> None:
        if self.trainer.iter + 1 == self.iterations:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("workers", "stop_after"), [(0, 5), (2, 4)])
def test_a_run_that_was_stopped_and_resumed_equals_the_uninterrupted_one(
    whole_hash, sample_data, tmp_path, workers, stop_after
):
    changes = {**LENGTH, "DATALOADER__NUM_WORKERS": workers}
    cfg, data, _ = setup(tiny_args(tmp_path, **changes))
    trainer = Trainer(cfg, data)
    trainer.register_hooks([StopAfter(stop_after)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"
    main(tiny_args(tmp_path, resume=True, **changes))
    assert weights_hash(tmp_path / "model_final.pth") == whole_hash


def test_a_killed_run_resumes_to_the_hash_of_the_uninterrupted_one(
    whole_hash, sample_data, tmp_path
):
    process = start_command(tmp_path, **LENGTH)
    while not (tmp_path / "last_checkpoint").exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "model_final.pth").exists()
    main(tiny_args(tmp_path, resume=True, **LENGTH))
    assert weights_hash(tmp_path / "model_final.pth") == whole_hash
    iterations = [json.loads(line)["iteration"] for line in open(tmp_path / "metrics.json")]
    assert len(iterations) == len(set(iterations))


def gradient_of_the_first_step(folder: Path, micro_batches: int) -> torch.Tensor:
    """Return the gradient before it is clipped, with drop path 0 and the loss normaliser held."""
    args = tiny_args(
        folder,
        SOLVER__ACCUMULATION_STEPS=micro_batches,
        SOLVER__MAX_ITER=1,
        MODEL__ULGA__SWIN__DROP_PATH_RATE=0.0,
    )
    cfg, data, _ = setup(args)
    trainer = Trainer(cfg, data)
    # A loss is a sum over images divided by this, so a part's needs a part of it.
    trainer.model._ema_update = lambda *_: 50.0 / micro_batches
    gradients = []

    def clip_nothing() -> float:
        gradients.extend(p.grad.flatten() for p in trainer.model.parameters())
        return 0.0

    trainer._step._clip = clip_nothing
    trainer.train()
    return torch.cat(gradients)


def test_accumulated_micro_batches_give_the_gradient_of_the_large_batch(sample_data, tmp_path):
    large, accumulated = (
        gradient_of_the_first_step(tmp_path / str(steps), steps) for steps in (1, 2)
    )
    assert large.norm() > 0.1
    assert (large - accumulated).norm() <= 1e-5 * large.norm()


def test_a_resumed_run_takes_the_rate_of_the_config_as_it_is_now(sample_data, tmp_path, caplog):
    main(tiny_args(tmp_path, **LENGTH))
    longer = {**LENGTH, "SOLVER__MAX_ITER": 15, "SOLVER__BASE_LR": 0.0002}
    cfg, data, state = setup(tiny_args(tmp_path, resume=True, **longer))
    trainer = Trainer(cfg, data, state, resume=True)
    fresh_cfg, _, _ = setup(tiny_args(tmp_path / "fresh", **longer))
    fresh = Trainer(fresh_cfg, data)
    for _ in range(12):
        fresh.optimizer.step()  # without gradients, it does nothing
        fresh.scheduler.step()
    rates = [[group["lr"] for group in t.optimizer.param_groups] for t in (trainer, fresh)]
    assert rates[0] == rates[1]
    assert "SOLVER.BASE_LR was 0.001 and is 0.0002 now" in (tmp_path / "log.txt").read_text()


def test_evaluating_while_training_writes_figures_and_changes_no_weight(
    whole_hash, sample_data, tmp_path
):
    main(tiny_args(tmp_path, **LENGTH, TEST__EVAL_PERIOD=5))
    assert weights_hash(tmp_path / "model_final.pth") == whole_hash
    lines = [json.loads(line) for line in open(tmp_path / "metrics.json")]
    assert sum("bbox/AP" in line for line in lines) >= 1
    assert (tmp_path / "log.txt").read_text().count("figures in percent") == 3


def test_epochs_set_the_length_and_the_checkpoints_of_a_run(sample_data, tmp_path):
    main(
        tiny_args(tmp_path, SOLVER__NUM_EPOCHS=2, SOLVER__MAX_ITER=10, SOLVER__CHECKPOINT_PERIOD=0)
    )
    assert load_checkpoint(tmp_path / "model_final.pth")["iteration"] == 10  # 2 x 10 images / 2
    assert (tmp_path / "model_0000005.pth").is_file()


def test_leftovers_of_a_kill_in_the_middle_of_a_save_are_cleared(sample_data, tmp_path):
    (tmp_path / "model_0000001.pth.4321.tmp").write_bytes(b"half")
    main(tiny_args(tmp_path, SOLVER__MAX_ITER=1))
    assert not list(tmp_path.glob("*.tmp"))
