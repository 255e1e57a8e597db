"""What a training will take: the forecast's arithmetic, the ways to need less, a real trial."""

from __future__ import annotations

import argparse

import pytest
from conftest import CONFIGS, tiny_options

from ulga_d2.cli.main import main
from ulga_d2.engine import trial
from ulga_d2.engine.fit import MARGIN, Plan, Trials, forecasts
from ulga_d2.engine.launch import read_config
from ulga_d2.engine.memory import free_memory, peak_memory
from ulga_d2.engine.trial import Cost
from ulga_d2.errors import UserError

LEAF = str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml")
ASKED = Plan(8, 1, False, 256)


class Machine:
    """A made-up machine whose costs are known: bytes and seconds of each setting."""

    def __init__(self) -> None:
        self.asked: list[dict] = []

    def __call__(self, options: dict) -> Cost:
        self.asked.append(options)
        return self.cost(Plan(*options.values()))

    @staticmethod
    def cost(plan: Plan) -> Cost:
        pixels = (plan.size / 256) ** 2
        each = (30 if plan.checkpointing else 100) * pixels
        peak = 500 + max(plan.micro_batch * each, plan.batch * 20 * pixels)
        seconds = plan.accumulation * (0.1 + plan.micro_batch * pixels)
        return Cost(round(peak), seconds)


@pytest.mark.parametrize(
    "plan",
    [ASKED, Plan(8, 2, False, 256), Plan(8, 8, False, 256), Plan(16, 16, False, 256)],
    ids=str,
)
def test_the_lines_through_the_trials_meet_every_batch(plan):
    trials = Trials(Machine(), 256, False, plan.batch)
    true = Machine.cost(plan)
    assert trials.peak(plan) == pytest.approx(true.peak)
    assert trials.step_seconds(plan) == pytest.approx(true.step_seconds)


@pytest.mark.parametrize(
    ("limit", "what", "plan"),
    [
        (2000, "as it is", ASKED),
        (1000, "more accumulation", Plan(8, 2, False, 256)),
        (720, "more accumulation", Plan(8, 8, False, 256)),
        (690, "smaller batch", Plan(4, 4, True, 256)),
        (530, "smaller images", Plan(8, 8, True, 32)),
    ],
)
def test_the_first_way_that_fits_is_the_mildest(limit, what, plan):
    machine = Machine()
    found = list(forecasts(ASKED, machine, limit))
    last = found[-1]
    assert (last.what, last.plan) == (what, plan)
    assert Machine.cost(last.plan).peak <= MARGIN * limit
    assert all(Machine.cost(other.plan).peak > MARGIN * limit for other in found[:-1])


def test_nothing_is_measured_that_is_not_needed():
    machine = Machine()
    list(forecasts(ASKED, machine, 2000))
    assert len(machine.asked) == 3  # one image, two images, an evaluation


def test_where_nothing_fits_every_way_is_shown():
    found = list(forecasts(ASKED, Machine(), 400))
    assert found[-1].plan.size == 32
    assert {forecast.what for forecast in found} == {
        "as it is", "more accumulation", "checkpointing", "checkpointing and accumulation",
        "smaller batch", "smaller images",
    }  # fmt: skip


def test_every_proposal_is_a_config_that_can_train():
    for forecast in forecasts(Plan(6, 2, False, 96), Machine(), 1):
        assert forecast.plan.batch % forecast.plan.accumulation == 0
        assert forecast.plan.size % 32 == 0 and forecast.plan.batch >= 1


def pairs(options: list[str]) -> list[str]:
    return [
        word for key, value in zip(options[::2], options[1::2], strict=True)
        for word in ("--set", key, value)
    ]  # fmt: skip


def test_the_words_of_the_proposal_are_options_that_are_accepted(
    sample_data, tmp_path, capsys, monkeypatch
):
    true = {2: Cost(10 << 30, 1.0), 1: Cost(6 << 30, 0.5)}

    def measured(_cfg, options, *, boxes, classes):
        assert boxes >= 1 and classes == 3
        return true[Plan(*options.values()).micro_batch]

    monkeypatch.setattr(trial, "measure", measured)
    assert main(["fit", LEAF, "--memory", "7", *pairs(tiny_options(tmp_path))]) == 0
    out = capsys.readouterr().out
    words = out.split("it fits as: ")[1].split()
    assert words == ["SOLVER.ACCUMULATION_STEPS", "2"]
    assert "10.00 GiB, 5 s an epoch: as it is" in out  # 10 images, 5 steps
    assert not list(tmp_path.iterdir())


def test_a_proposal_that_fails_its_check_is_exit_code_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    monkeypatch.setattr(trial, "measure", lambda *_a, **_k: Cost(9 << 30, 1.0))
    assert main(["fit", LEAF, "--memory", "1", *pairs(tiny_options(tmp_path))]) == 1
    out = capsys.readouterr().out
    assert "the data are not here: 1000 images" in out and "does NOT fit" in out


@pytest.mark.parametrize("memory", ["0", "-1", "nan"])
def test_an_impossible_limit_is_refused(memory, capsys):
    assert main(["fit", LEAF, "--memory", memory]) == 2
    assert "--memory is" in capsys.readouterr().err


def test_a_real_trial_takes_more_with_more_images(tmp_path):
    options = tiny_options(tmp_path, INPUT__SQUARE_SIZE=128)
    cfg = read_config(argparse.Namespace(config_file=LEAF, opts=options, eval_only=True))
    one, many = (
        trial.measure(cfg, Plan(n, 1, False, 128).options(), boxes=3, classes=2) for n in (1, 8)
    )
    assert 0 < one.step_seconds < many.step_seconds
    assert 100 << 20 < one.peak < many.peak - (10 << 20)


def test_a_trial_that_fails_says_why(tmp_path):
    cfg = read_config(
        argparse.Namespace(config_file=LEAF, opts=tiny_options(tmp_path), eval_only=True)
    )
    with pytest.raises(UserError, match=r"a trial with MODEL\.FPN\.NORM GM failed.*"):
        trial.measure(cfg, {"MODEL.FPN.NORM": "GM"}, boxes=3, classes=2)


def test_the_peak_grows_with_what_is_held():
    before = peak_memory("cpu")
    held = bytearray(before + (50 << 20))
    held[::4096] = b"x" * len(held[::4096])
    assert peak_memory("cpu") >= before + (50 << 20)
    assert free_memory("cpu") > 0
