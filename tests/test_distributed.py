"""Many processes on a CPU: the same step as one process, and faults that reach the user."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest
import torch
from conftest import tiny_args
from detectron2.utils import comm
from test_trainer import start_command

from ulga_d2.engine.checkpoint import load_checkpoint
from ulga_d2.engine.distributed import launch_processes
from ulga_d2.engine.launch import setup
from ulga_d2.engine.trainer import Trainer
from ulga_d2.errors import UserError

ONE_STEP = {
    "SOLVER__IMS_PER_BATCH": 4,
    "SOLVER__MAX_ITER": 1,
    "MODEL__ULGA__SWIN__DROP_PATH_RATE": 0.0,
}


def two_ranks(**changes: object) -> argparse.Namespace:
    return argparse.Namespace(**{"num_gpus": 2, "num_machines": 1, "machine_rank": 0, **changes})


def save_step(args: argparse.Namespace) -> None:
    """Take one step with RetinaNet's moving normaliser held; save its gradient and the weights."""
    cfg, data, _ = setup(args)
    trainer = Trainer(cfg, data)
    trainer.model._ema_update = lambda *_: 50.0
    clip = trainer._clip_gradients

    def save_and_clip() -> float:
        gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
        torch.save(gradient.clone(), f"{cfg.OUTPUT_DIR}/gradient_{comm.get_rank()}.pt")
        return clip()

    trainer._clip_gradients = save_and_clip
    trainer.train()
    weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    torch.save(weights, f"{cfg.OUTPUT_DIR}/weights_{comm.get_rank()}.pt")


def fail_on_rank_1(args: argparse.Namespace) -> None:
    if comm.get_rank() == 1:
        raise UserError(f"{args.word} on rank 1 alone")
    comm.synchronize()


def save_threads(args: argparse.Namespace) -> None:
    Path(f"{args.folder}/{comm.get_rank()}").write_text(str(torch.get_num_threads()))


def test_two_ranks_take_the_step_that_one_process_takes_with_two_micro_batches(
    sample_data, tmp_path
):
    args = tiny_args(tmp_path / "two", num_gpus=2, **ONE_STEP)
    assert launch_processes(save_step, args, "cpu") == 0
    save_step(tiny_args(tmp_path / "one", **ONE_STEP, SOLVER__ACCUMULATION_STEPS=2))
    expected, *ranks = (
        torch.load(tmp_path / name) for name in ("one/gradient_0.pt", "two/gradient_0.pt")
    )
    ranks.append(torch.load(tmp_path / "two" / "gradient_1.pt"))
    assert torch.equal(*ranks)
    assert (ranks[0] - expected).norm() <= 1e-5 * expected.norm()
    assert torch.equal(*(torch.load(tmp_path / "two" / f"weights_{rank}.pt") for rank in (0, 1)))


def test_two_gloo_ranks_train_in_bf16_and_evaluate(sample_data, tmp_path):
    process = start_command(tmp_path, "--num-gpus", "2", SOLVER__AMP__ENABLED=True)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-3000:]
    state = load_checkpoint(tmp_path / "model_final.pth")
    assert state["iteration"] == 4
    assert len(state["loss_normalizer"]) == 2
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    figures = json.loads((tmp_path / "inference" / "metrics.json").read_text())
    assert figures["bbox/AP"] is not None


def test_a_user_error_on_one_rank_alone_ends_all_with_its_message():
    with pytest.raises(UserError, match="^a fault on rank 1 alone$"):
        launch_processes(fail_on_rank_1, two_ranks(dist_url="auto", word="a fault"), "cpu")


def test_a_user_error_on_both_ranks_is_told_once_without_a_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    process = start_command(tmp_path / "run", "--num-gpus", "2")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 2
    assert output.count("error: ") == output.count("ulga sample brain_tumor") == 1
    assert "Traceback" not in output


def test_cpu_ranks_share_the_cores_unless_the_user_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    launch_processes(save_threads, two_ranks(dist_url="auto", folder=str(tmp_path)), "cpu")
    share = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert [(tmp_path / rank).read_text() for rank in "01"] == [share, share]


@pytest.mark.parametrize(
    ("changes", "device", "message"),
    [
        ({"dist_url": "auto"}, "cuda:1", r"MODEL\.DEVICE is cuda:1, but 2 processes .* give cuda"),
        ({"dist_url": "auto"}, "mps", r"MODEL\.DEVICE is mps"),
        ({"dist_url": "auto", "num_gpus": 99}, "cuda", r"--num-gpus 99, but this machine has"),
        ({"dist_url": "auto", "num_machines": 2}, "cpu", r"needs --dist-url tcp://HOST:PORT"),
        (
            {"dist_url": "tcp://a:1", "num_machines": 2, "machine_rank": 2},
            "cpu",
            r"--machine-rank is 2; 2 machines have the ranks 0 to 1",
        ),
    ],
)
def test_processes_that_cannot_be_are_refused_before_they_start(changes, device, message):
    with pytest.raises(UserError, match=message):
        launch_processes(save_threads, two_ranks(**changes), device)
