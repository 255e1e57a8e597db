"""A run that is resumed on other data than before says so, and never does so by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import tiny_args

from ulga_d2.data.fingerprint import fingerprint
from ulga_d2.data.sample import write_sample
from ulga_d2.engine.checkpoint import save_checkpoint
from ulga_d2.engine.launch import main, setup
from ulga_d2.errors import UserError
from ulga_d2.weights.checkpoint import load_checkpoint

RUN = {"SOLVER__MAX_ITER": 2, "SOLVER__CHECKPOINT_PERIOD": 1}
LONGER = {**RUN, "SOLVER__MAX_ITER": 3}


@pytest.fixture
def own_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the data root at a sample of this test's own."""
    write(tmp_path / "data", 10)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    return tmp_path / "data"


def write(root: Path, num_train: int) -> None:
    options = {"num_val": 6, "size": 64, "difficulty": "easy", "seed": 0}
    write_sample("brain_tumor", root / "brain_tumor", num_train=num_train, **options)


@pytest.fixture
def changed(own_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run whose training set has got two more images since its last checkpoint."""
    main(tiny_args(tmp_path / "run", **RUN))
    write(tmp_path / "more", 12)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "more"))
    return tmp_path / "run"


def test_a_resumed_run_warns_with_both_counts(changed):
    before = load_checkpoint(changed / "model_final.pth")["data"]
    _, data, _ = setup(tiny_args(changed, resume=True, **LONGER))
    boxes = sum(len(record["annotations"]) for record in data.train)
    assert (before["images"], len(data.train)) == (10, 12)
    log = (changed / "log.txt").read_text()
    counts = f"10 images with {before['boxes']} boxes before and 12 images with {boxes} boxes now"
    assert f"the training data are not those of the checkpoint: {counts}" in log


@pytest.mark.parametrize(
    ("variable", "resume"),
    [
        ("TORCHELASTIC_RESTART_COUNT", False),
        ("TORCHELASTIC_RESTART_COUNT", True),
        ("SLURM_RESTART_COUNT", True),
    ],
)
def test_a_run_that_is_started_again_by_itself_refuses_other_data(
    changed, monkeypatch, variable, resume
):
    monkeypatch.setenv(variable, "1")
    options = LONGER if resume else RUN  # without --resume all settings must be those of before
    with pytest.raises(UserError, match="10 images with .* before and 12 images .*by itself"):
        setup(tiny_args(changed, resume=resume, **options))


def test_a_run_that_has_come_further_than_its_config_wants_is_not_scored_as_shorter(changed):
    with pytest.raises(UserError, match=r"2 iterations were done, and SOLVER\.MAX_ITER is 1"):
        setup(tiny_args(changed, resume=True, SOLVER__MAX_ITER=1))


def test_the_same_data_are_gone_on_with_in_silence(own_sample, tmp_path, monkeypatch):
    main(tiny_args(tmp_path / "run", **RUN))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    setup(tiny_args(tmp_path / "run", **RUN))
    assert "training data are not those" not in (tmp_path / "run" / "log.txt").read_text()


def test_a_checkpoint_of_an_older_version_says_that_nothing_is_compared(changed):
    state = load_checkpoint(changed / "model_final.pth")
    del state["data"]
    save_checkpoint(changed, "model_final.pth", state)
    setup(tiny_args(changed, resume=True, **LONGER))
    log = (changed / "log.txt").read_text()
    assert "the checkpoint does not tell which data its run read" in log
    assert "training data are not those" not in log


def test_evaluation_of_the_last_checkpoint_does_not_look_at_the_training_data(changed):
    setup(tiny_args(changed, resume=True, eval_only=True, **RUN))
    assert "training data are not those" not in (changed / "log.txt").read_text()


def record(name: str, *boxes: tuple[float, ...], **more: object) -> dict:
    annotations = [
        {"bbox": [*box], "bbox_mode": 0, "category_id": 0, "iscrowd": 0, **more} for box in boxes
    ]
    return {"file_name": name, "height": 9, "width": 9, "annotations": annotations}


def test_the_exact_fingerprint_tells_what_changes_a_training_and_not_where_the_files_lie():
    box, other = (1.0, 1.0, 5.0, 5.0), (2.0, 2.0, 4.0, 4.0)
    base = [record("a/1.png", box, other), record("a/2.png")]
    same = [record("b/1.png", box, other), record("b/2.png")]
    assert fingerprint(base, exact=True) == fingerprint(same, exact=True)
    assert fingerprint(base) == fingerprint(base[::-1])
    for changed in (
        base[::-1],
        [record("a/1.png", other, box), base[1]],
        [record("a/1.png", (1.001, 1.0, 5.0, 5.0), other), base[1]],
        [record("a/1.png", box, other, iscrowd=1), base[1]],
        [record("a/1.png", box, other, segmentation={"size": [9, 9], "counts": b"0"}), base[1]],
        base[:1],
    ):
        assert fingerprint(changed, exact=True)["sha256"] != fingerprint(base, exact=True)["sha256"]
    assert json.dumps(fingerprint(base, exact=True))
