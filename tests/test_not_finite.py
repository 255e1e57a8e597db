"""A NaN or an overflow: the run stops before the step, keeps its weights, and says where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, REPOSITORY, tiny_args, tiny_options
from detectron2.utils.events import EventStorage
from faulty_run import FAULTS, FAULTY_ITERATION, FaultyTrainer

from ulga_d2.engine.launch import main, setup
from ulga_d2.engine.loader import build_mapper
from ulga_d2.engine.not_finite import first_fault
from ulga_d2.engine.trainer import Trainer
from ulga_d2.errors import UserError
from ulga_d2.weights.checkpoint import load_checkpoint

SECONDS = 60
KEPT = f"model_{FAULTY_ITERATION:07d}.pth"


def run_faulty(place: str, rank: int, folder: Path) -> subprocess.CompletedProcess:
    """Train on two ranks with a fault on one of them."""
    leaf = str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml")
    flags = ["--place", place, "--rank", str(rank), "--config-file", leaf]
    flags += ["--num-gpus", "2", *tiny_options(folder, SOLVER__MAX_ITER=9)]
    return subprocess.run(
        [sys.executable, "-m", "tests.faulty_run", *flags],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def faulty_trainer(place: str, folder: Path) -> FaultyTrainer:
    """Return a trainer of one rank that will meet the fault."""
    cfg, data, _ = setup(tiny_args(folder, SOLVER__MAX_ITER=9))
    trainer = FaultyTrainer(cfg, data)
    trainer.place, trainer.rank = place, 0
    return trainer


@pytest.mark.parametrize("place", FAULTS)
def test_the_first_thing_that_is_not_finite_is_named(sample_data, tmp_path, place):
    _, named = FAULTS[place]
    with pytest.raises(UserError) as caught:
        faulty_trainer(place, tmp_path).train()
    assert f"First not finite: {named}" in str(caught.value)
    report = json.loads((tmp_path / "not_finite.json").read_text())
    assert named in report["ranks"][0]["first"]
    assert report["iteration"] == FAULTY_ITERATION


def test_the_report_holds_rate_images_and_losses_and_the_images_are_stored(sample_data, tmp_path):
    trainer = faulty_trainer("head", tmp_path)
    with pytest.raises(UserError, match=r"Learning rate 4e-06.*rank's images.*BASE_LR"):
        trainer.train()
    report = json.loads((tmp_path / "not_finite.json").read_text())
    assert report["learning_rate"] == trainer.optimizer.param_groups[0]["lr"]
    assert report["losses"]["loss_box_reg"] == "nan"
    (rank,) = report["ranks"]
    images = torch.load(tmp_path / rank["images"], weights_only=True)
    assert [image["image_id"] for image in images] == rank["image_ids"]
    known = {record["image_id"]: record for record in trainer.data.train}
    assert all(image["file_name"] == known[image["image_id"]]["file_name"] for image in images)
    assert images[0]["image"].shape == (3, 64, 64)
    assert all(len(image["boxes"]) == len(image["classes"]) for image in images)


def test_the_weights_before_the_step_are_kept_and_resumed_from(sample_data, tmp_path):
    with pytest.raises(UserError, match=f"weights before it are in {KEPT}"):
        faulty_trainer("loss", tmp_path / "faulty").train()
    assert (tmp_path / "faulty" / "last_checkpoint").read_text() == KEPT
    kept = load_checkpoint(tmp_path / "faulty" / KEPT)
    main(tiny_args(tmp_path / "sound", SOLVER__MAX_ITER=9, SOLVER__CHECKPOINT_PERIOD=3))
    sound = load_checkpoint(tmp_path / "sound" / "model_0000003.pth")
    for part in ("iteration", "loss_normalizer"):
        assert kept[part] == sound[part]
    for name, value in sound["model"].items():
        assert torch.equal(kept["model"][name], value), name
    main(tiny_args(tmp_path / "faulty", resume=True, SOLVER__MAX_ITER=9))
    ends = [load_checkpoint(tmp_path / run / "model_final.pth") for run in ("faulty", "sound")]
    assert all(
        torch.equal(ends[0]["model"][name], value) for name, value in ends[1]["model"].items()
    )


def test_weights_that_hold_a_nan_do_not_replace_the_last_checkpoint(sample_data, tmp_path):
    with pytest.raises(UserError, match="last checkpoint is kept"):
        faulty_trainer("weight", tmp_path).train()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    assert not (tmp_path / KEPT).exists()


def test_a_sound_step_has_no_fault(sample_data, tmp_path):
    cfg, data, _ = setup(tiny_args(tmp_path, SOLVER__ACCUMULATION_STEPS=2))
    trainer = Trainer(cfg, data)
    batches = [[data_of(trainer, 0)], [data_of(trainer, 1)]]
    with EventStorage():
        assert first_fault(trainer._step, batches, 0) == ""
    assert not any(module._forward_hooks for module in trainer.model.modules())


def data_of(trainer: Trainer, index: int) -> dict:
    """Return an image as the loader gives it."""
    return build_mapper(trainer.cfg)(trainer.data.train[index])


def check_two_ranks(place: str, folder: Path) -> float:
    start = time.monotonic()
    done = run_faulty(place, 1, folder)
    seconds = time.monotonic() - start
    assert done.returncode == 1, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    error = done.stderr[done.stderr.index("error: iteration 3") :]
    assert f"First not finite: {FAULTS[place][1]}" in error
    assert "(rank 1, images " in error
    report = json.loads((folder / "not_finite.json").read_text())
    assert [bool(rank["first"]) for rank in report["ranks"]] == [False, True]
    assert all((folder / rank["images"]).is_file() for rank in report["ranks"])
    return seconds


def test_a_fault_on_one_rank_stops_both_within_a_minute(sample_data, tmp_path):
    check_two_ranks("interaction", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("place", FAULTS)
def test_a_fault_at_any_place_stops_both_ranks_within_a_minute(
    sample_data, tmp_path, place, record_property
):
    record_property("seconds", check_two_ranks(place, tmp_path))
