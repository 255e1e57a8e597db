"""The best checkpoint by a chosen figure, and the run that stops when it no longer gains."""

from __future__ import annotations

import pytest
from conftest import tiny_args
from test_trainer import start_command

from ulga_d2.engine import trainer as trainer_module
from ulga_d2.engine.launch import main
from ulga_d2.errors import UserError
from ulga_d2.weights.checkpoint import load_checkpoint

RUN = {"SOLVER__MAX_ITER": 6, "SOLVER__CHECKPOINT_PERIOD": 2, "TEST__EVAL_PERIOD": 1}


@pytest.fixture
def scripted(monkeypatch):
    """Let evaluations give the figures that a test writes down, in turn."""
    figures: list[float] = []

    def evaluate(cfg, model, data, iteration):
        value = figures.pop(0)
        return {"bbox": {} if value is None else {"AP": value}}

    monkeypatch.setattr(trainer_module, "evaluate", evaluate)
    return figures


def test_the_checkpoint_of_the_best_evaluation_is_kept_and_is_not_resumed_from(
    scripted, sample_data, tmp_path
):
    scripted += [1.0, 5.0, None, 5.0, 2.0, 4.0]
    main(tiny_args(tmp_path, **RUN))
    assert load_checkpoint(tmp_path / "model_best.pth")["iteration"] == 2
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert not scripted


def test_the_last_evaluation_can_be_the_best(scripted, sample_data, tmp_path):
    scripted += [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    main(tiny_args(tmp_path, **RUN))
    assert load_checkpoint(tmp_path / "model_best.pth")["iteration"] == 6


def test_without_evaluations_in_between_no_best_checkpoint_is_written(
    scripted, sample_data, tmp_path
):
    scripted += [1.0]
    main(tiny_args(tmp_path, **{**RUN, "TEST__EVAL_PERIOD": 0}))
    assert not (tmp_path / "model_best.pth").exists()


def test_a_run_stops_when_its_patience_is_over_and_a_resume_with_more_goes_on(
    scripted, sample_data, tmp_path
):
    scripted += [3.0, 2.0, 3.0]
    results = main(tiny_args(tmp_path, **RUN, TEST__PATIENCE=2))
    assert results == {"bbox": {"AP": 3.0}}
    final = load_checkpoint(tmp_path / "model_final.pth")
    assert final["iteration"] == 3
    assert final["evaluations"] == [[1, 3.0], [2, 2.0], [3, 3.0]]
    scripted += [3.0]  # the resumed run stops at once, and gives its results
    main(tiny_args(tmp_path, resume=True, **RUN, TEST__PATIENCE=2))
    scripted += [9.0, 1.0, 1.0]
    main(tiny_args(tmp_path, resume=True, **RUN, TEST__PATIENCE=3))
    assert load_checkpoint(tmp_path / "model_best.pth")["iteration"] == 4
    assert load_checkpoint(tmp_path / "model_final.pth")["iteration"] == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"TEST__BEST_METRIC": "bbox/mAP"}, r"BEST_METRIC is 'bbox/mAP'.*bbox/AP50"),
        ({"TEST__EVAL_PERIOD": 0, "TEST__PATIENCE": 1}, r"give TEST\.EVAL_PERIOD"),
        ({"TEST__PATIENCE": -1}, r"TEST\.PATIENCE is -1"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_training(
    sample_data, tmp_path, changes, message
):
    with pytest.raises(UserError, match=message):
        main(tiny_args(tmp_path, **{**RUN, **changes}))


def test_two_ranks_stop_together(sample_data, tmp_path):
    # Boxes of an untrained detector hit nothing, so the first evaluation stays the best.
    rates = {"SOLVER__BASE_LR": 1e-9, "SOLVER__BASE_LR_END": 0.0}
    changes = {**RUN, **rates, "TEST__PATIENCE": 1}
    process = start_command(tmp_path, "--num-gpus", "2", **changes)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-3000:]
    state = load_checkpoint(tmp_path / "model_final.pth")
    assert state["iteration"] == len(state["evaluations"]) == 2
    assert load_checkpoint(tmp_path / "model_best.pth")["iteration"] == 1
