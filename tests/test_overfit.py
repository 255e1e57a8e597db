"""The self-test of a config: a batch is learnt by heart, or the reason why not is told."""

from __future__ import annotations

import math

import pytest
import torch

from tests.conftest import CONFIGS, tiny_options
from ulga_d2.cli.main import main
from ulga_d2.engine import overfit
from ulga_d2.engine.overfit import Memorised, diagnosis

LEAF = str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml")


def command(tmp_path, *words: str) -> list[str]:
    options = tiny_options(tmp_path)
    pairs = [
        word for key, value in zip(options[::2], options[1::2], strict=True)
        for word in ("--set", key, value)
    ]  # fmt: skip
    return ["overfit", LEAF, *pairs, *words]


def test_a_batch_of_the_data_is_learnt_by_heart(sample_data, tmp_path, capsys):
    assert main(command(tmp_path, "--iterations", "200")) == 0
    assert "learnt: loss 0.0" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())  # a self-test leaves no run behind


def test_the_shipped_nano_leaf_learns_a_sample_by_heart(monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/nowhere")
    assert main(["overfit", LEAF, "--sample", "--set", "MODEL.DEVICE", "cpu"]) == 0
    assert "learnt: loss 0.0" in capsys.readouterr().out


def test_too_few_iterations_are_a_failure_that_says_the_loss_still_falls(
    sample_data, tmp_path, capsys
):
    assert main(command(tmp_path, "--iterations", "24")) == 1
    out = capsys.readouterr().out
    assert "NOT learnt" in out and "diagnosis: still falling" in out


def test_a_part_that_no_gradient_reaches_is_named(sample_data, tmp_path, capsys, monkeypatch):
    def cut(cfg):
        model = overfit_build(cfg)
        model.head.bbox_subnet.register_forward_hook(lambda _m, _i, output: output.detach())
        return model

    overfit_build = overfit.build_seeded_model
    monkeypatch.setattr(overfit, "build_seeded_model", cut)
    assert main(command(tmp_path, "--iterations", "2")) == 1
    assert "no gradient reaches head.bbox_subnet" in capsys.readouterr().out


def test_the_first_weight_with_a_gradient_that_is_not_finite_is_named(
    sample_data, tmp_path, capsys, monkeypatch
):
    def spoil(cfg):
        model = overfit_build(cfg)
        model.head.cls_score.bias.register_hook(lambda gradient: gradient * math.nan)
        return model

    overfit_build = overfit.build_seeded_model
    monkeypatch.setattr(overfit, "build_seeded_model", spoil)
    assert main(command(tmp_path, "--iterations", "5")) == 1
    out = capsys.readouterr().out
    assert "gradient of head.cls_score.bias is not finite in iteration 0" in out


def test_a_loss_that_stays_is_named_with_where_to_look():
    losses = [{"loss_cls": 0.001, "loss_box_reg": 0.5}] * 40
    words = diagnosis(Memorised(losses, 1.0, ()))
    assert words.startswith("loss_box_reg stays at 0.500") and "ulga data check" in words


def test_a_loss_that_fell_until_the_rate_did_is_not_said_to_stay():
    falling = [{"loss_mask": max(0.1, 0.7 - 0.01 * number)} for number in range(120)]
    assert diagnosis(Memorised(falling, 1.0, ())).startswith("still falling (loss_mask 0.100)")


@pytest.mark.parametrize("words", [["--images", "0"], ["--images", "99"], ["--iterations", "0"]])
def test_impossible_numbers_are_refused(sample_data, tmp_path, capsys, words):
    assert main(command(tmp_path, *words)) == 2
    assert words[0] in capsys.readouterr().err


def test_a_sample_of_an_unknown_set_is_refused(tmp_path, capsys):
    words = ["--sample", "--set", "DATASETS.TRAIN", "['own_train']"]
    assert main(command(tmp_path, *words)) == 2
    assert "own_train" in capsys.readouterr().err


def test_the_rate_rises_then_falls_to_zero():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    rates = []
    for number in range(100):
        overfit._set_rate(optimizer, number, 100)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] < rates[9] == rates[50] == overfit.LEARNING_RATE
    assert rates[99] < 0.03 * overfit.LEARNING_RATE
