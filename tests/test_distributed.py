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

from ulga_d2.data.sample import write_sample
from ulga_d2.engine.distributed import launch_processes
from ulga_d2.engine.launch import main, setup
from ulga_d2.engine.trainer import Trainer
from ulga_d2.errors import UserError
from ulga_d2.weights.checkpoint import load_checkpoint

ONE_STEP = {
    "SOLVER__IMS_PER_BATCH": 4,
    "SOLVER__MAX_ITER": 1,
    "MODEL__ULGA__SWIN__DROP_PATH_RATE": 0.0,
}
POSITIVES = 25.0  # anchors that an image is said to have, in place of RetinaNet's moving average


def two_ranks(**changes: object) -> argparse.Namespace:
    return argparse.Namespace(**{"num_gpus": 2, "num_machines": 1, "machine_rank": 0, **changes})


def save_gradient(args: argparse.Namespace) -> None:
    """Save the gradient and the weights of one step whose loss is normalised alike everywhere."""
    precision = torch.get_default_dtype()
    torch.set_default_dtype(args.dtype)
    try:
        cfg, data, _ = setup(args)
        trainer = Trainer(cfg, data)
    finally:
        torch.set_default_dtype(precision)
    parts = comm.get_world_size() * cfg.SOLVER.ACCUMULATION_STEPS
    images = cfg.SOLVER.IMS_PER_BATCH // parts
    trainer.model._ema_update = lambda *_: POSITIVES * images
    gradients = []

    def keep(optimizer: torch.optim.Optimizer, *_: object) -> None:
        gradients.extend(p.grad.flatten() for g in optimizer.param_groups for p in g["params"])

    trainer.optimizer.register_step_pre_hook(keep)
    trainer.train()
    weights = [parameter.detach().flatten() for parameter in trainer.model.parameters()]
    saved = {"gradient": torch.cat(gradients), "weights": torch.cat(weights)}
    torch.save(saved, f"{cfg.OUTPUT_DIR}/step_{comm.get_rank()}.pt")


def step_args(folder: Path, dtype: torch.dtype, **changes: object) -> argparse.Namespace:
    """Return arguments of one step whose gradient is not clipped."""
    args = tiny_args(folder, SOLVER__CLIP_GRADIENTS__ENABLED=False, **ONE_STEP, **changes)
    args.dtype = dtype
    return args


def save_gradients_of_two_ranks(args: argparse.Namespace) -> None:
    """Save the step of two ranks, with one and with two micro-batches, in both precisions."""
    for dtype in PRECISIONS:
        for micro in (1, 2):
            folder = Path(args.folder, f"two_{micro}_{dtype}")
            changes = {"num_gpus": 2, "SOLVER__ACCUMULATION_STEPS": micro}
            save_gradient(step_args(folder, dtype, **changes))


def fail_on_rank_1(args: argparse.Namespace) -> None:
    if comm.get_rank() == 1:
        raise UserError(f"{args.word} on rank 1 alone")
    comm.synchronize()


def save_threads(args: argparse.Namespace) -> None:
    Path(f"{args.folder}/{comm.get_rank()}").write_text(str(torch.get_num_threads()))


# How far a gradient may lie from that of one process and one batch, relative to its length.
PRECISIONS = {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.fixture(scope="module")
def steps(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same step, taken by one process and by two ranks."""
    folder = tmp_path_factory.mktemp("steps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(sample_root))
        for dtype in PRECISIONS:
            for micro in (1, 2):
                args = step_args(
                    folder / f"one_{micro}_{dtype}", dtype, SOLVER__ACCUMULATION_STEPS=micro
                )
                save_gradient(args)
        args = two_ranks(dist_url="auto", folder=str(folder))
        assert launch_processes(save_gradients_of_two_ranks, args, "cpu") == 0
    return folder


def saved(folder: Path, rank: int = 0) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"step_{rank}.pt")


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("form", ["one_2", "two_1", "two_2"])
def test_ranks_and_micro_batches_take_the_gradient_of_the_whole_batch(steps, form, dtype):
    expected = saved(steps / f"one_1_{dtype}")["gradient"]
    gradient = saved(steps / f"{form}_{dtype}")["gradient"]
    assert expected.dtype is dtype and expected.norm() > 0
    distance = (gradient - expected).norm() / expected.norm()
    assert distance <= PRECISIONS[dtype], distance


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("form", ["two_1", "two_2"])
def test_all_ranks_hold_the_same_bits_after_a_step(steps, form, dtype):
    ranks = [saved(steps / f"{form}_{dtype}", rank) for rank in (0, 1)]
    for name in ("gradient", "weights"):
        assert torch.equal(ranks[0][name], ranks[1][name])


def evaluation_args(args: argparse.Namespace, folder: Path) -> argparse.Namespace:
    """Return arguments of an evaluation of image after image; random weights detect a lot."""
    changes = {
        "MODEL__WEIGHTS": args.weights,
        "MODEL__RETINANET__SCORE_THRESH_TEST": 0.0,
        "SOLVER__IMS_PER_BATCH": args.num_gpus,
    }
    return tiny_args(folder, eval_only=True, num_gpus=args.num_gpus, **changes)


def evaluate_on_each_root(args: argparse.Namespace) -> None:
    for root, folder in zip(args.roots, args.folders, strict=True):
        os.environ["DETECTRON2_DATASETS"] = root
        main(evaluation_args(args, folder))


def test_an_evaluation_on_two_ranks_equals_that_on_one(sample_root, tmp_path, monkeypatch):
    one_image = tmp_path / "one_image"
    sample = {"num_train": 4, "num_val": 1, "size": 64, "difficulty": "easy", "seed": 0}
    write_sample("brain_tumor", one_image / "brain_tumor", **sample)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(sample_root))
    main(tiny_args(tmp_path / "run", SOLVER__MAX_ITER=1))
    folders = {ranks: [tmp_path / f"{name}_{ranks}" for name in ("six", "one")] for ranks in (1, 2)}
    args = two_ranks(
        dist_url="auto",
        weights=str(tmp_path / "run" / "model_final.pth"),
        roots=[str(sample_root), str(one_image)],
    )
    args.folders = folders[2]
    assert launch_processes(evaluate_on_each_root, args, "cpu") == 0
    args.folders, args.num_gpus = folders[1], 1
    evaluate_on_each_root(args)
    for alone, together in zip(folders[1], folders[2], strict=True):
        for name in ("metrics.json", "predictions.json", "predictions_meta.json"):
            expected = (alone / "inference" / name).read_bytes()
            assert (together / "inference" / name).read_bytes() == expected
        assert len(json.loads((alone / "inference" / "predictions.json").read_text())) >= 50


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
        ({"dist_url": "auto", "num_gpus": 99}, "cuda", r"99 processes .* but this machine has"),
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
