"""SOLVER.EMA: torch's running mean of the weights, evaluated, saved and resumed."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_args
from detectron2.engine import HookBase

from ulga_d2.engine.launch import main, setup
from ulga_d2.engine.trainer import Trainer
from ulga_d2.errors import UserError
from ulga_d2.weights.checkpoint import load_checkpoint

EMA = {"SOLVER__EMA__ENABLED": True, "SOLVER__EMA__DECAY": 0.5}
LENGTH = {"SOLVER__MAX_ITER": 6, "SOLVER__CHECKPOINT_PERIOD": 2, "SOLVER__BASE_LR": 0.01}


class Record(HookBase):
    """Keeps the weights after every step, and may stop the run as Ctrl-C does."""

    def __init__(self, stop_after: int = 0) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []
        self.stop_after = stop_after

    def after_step(self) -> None:
        state = self.trainer.model.state_dict()
        self.seen.append({name: value.clone() for name, value in state.items()})
        if self.trainer.iter + 1 == self.stop_after:
            raise KeyboardInterrupt


def trained(folder, **changes):
    cfg, data, _ = setup(tiny_args(folder, **LENGTH, **changes))
    trainer = Trainer(cfg, data)
    record = Record()
    trainer.register_hooks([record])
    trainer.train()
    return trainer, record.seen


def test_the_mean_follows_its_formula_and_leaves_the_training_alone(sample_data, tmp_path):
    _, plain = trained(tmp_path / "plain")
    trainer, seen = trained(tmp_path / "averaged", **EMA)
    assert all(torch.equal(plain[-1][name], seen[-1][name]) for name in plain[-1])
    for name, parameter in trainer.averaged.module.named_parameters():
        mean = seen[0][name].double()
        for weights in seen[1:]:
            mean = 0.5 * mean + 0.5 * weights[name].double()
        torch.testing.assert_close(parameter.detach().double(), mean, rtol=1e-5, atol=1e-7)


def test_what_is_evaluated_is_the_mean_in_training_and_from_its_checkpoint(
    sample_data, tmp_path, monkeypatch
):
    evaluated = []

    def note(_cfg, model, _data, _iteration):
        evaluated.append({name: value.clone() for name, value in model.state_dict().items()})
        return {}

    monkeypatch.setattr("ulga_d2.engine.trainer.evaluate", note)
    monkeypatch.setattr("ulga_d2.engine.evaluate.evaluate", note)
    trainer, seen = trained(tmp_path, **EMA)
    weights = tmp_path / "model_final.pth"
    main(tiny_args(tmp_path / "alone", eval_only=True, MODEL__WEIGHTS=weights))
    mean = trainer.averaged.module.state_dict()
    assert len(evaluated) == 2
    for model in evaluated:
        assert all(torch.equal(model[name], value) for name, value in mean.items())
    assert not torch.equal(mean["head.cls_score.bias"], seen[-1]["head.cls_score.bias"])


def test_a_resumed_run_has_the_mean_of_the_uninterrupted_one(sample_data, tmp_path):
    trained(tmp_path / "whole", **EMA)
    cfg, data, _ = setup(tiny_args(tmp_path / "cut", **LENGTH, **EMA))
    trainer = Trainer(cfg, data)
    trainer.register_hooks([Record(stop_after=3)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    main(tiny_args(tmp_path / "cut", resume=True, **LENGTH, **EMA))
    whole, cut = (load_checkpoint(tmp_path / run / "model_final.pth") for run in ("whole", "cut"))
    assert whole["ema_steps"] == cut["ema_steps"] == 6
    assert all(torch.equal(whole["ema"][name], cut["ema"][name]) for name in whole["ema"])


def test_a_mean_that_begins_in_the_middle_begins_at_the_weights(sample_data, tmp_path):
    main(tiny_args(tmp_path, **LENGTH))
    saved = load_checkpoint(tmp_path / "model_final.pth")["model"]
    longer = {**LENGTH, "SOLVER__MAX_ITER": 8}
    cfg, data, state = setup(tiny_args(tmp_path, resume=True, **longer, **EMA))
    trainer = Trainer(cfg, data, state, resume=True)
    mean = trainer.averaged.module.state_dict()
    assert all(torch.equal(mean[name], value) for name, value in saved.items())
    assert int(trainer.averaged.n_averaged) == 1


def test_a_decay_that_is_no_share_is_refused(sample_data, tmp_path):
    with pytest.raises(UserError, match=r"SOLVER\.EMA\.DECAY is 1\.0; .*between 0 and 1"):
        setup(tiny_args(tmp_path, SOLVER__EMA__DECAY=1.0))
