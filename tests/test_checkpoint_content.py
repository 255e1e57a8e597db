"""Checkpoints with a right sha256 and a content that no run has written; weights that are none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_args
from test_checkpoint_damage import NEW, OLD

from ulga_d2.engine.checkpoint import save_checkpoint
from ulga_d2.engine.launch import main, setup
from ulga_d2.weights.checkpoint import load_checkpoint

BOX, SECOND = "head.bbox_pred.weight", "backbone.fpn_lateral3.weight"
NOT_FINITE = float("nan")
RUN = {"SOLVER__MAX_ITER": 3, "SOLVER__CHECKPOINT_PERIOD": 1, "SOLVER__EMA__ENABLED": True}


@pytest.fixture(scope="module")
def run_folder(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was stopped after its second checkpoint of three."""
    folder = tmp_path_factory.mktemp("content") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(sample_root))
        main(tiny_args(folder, SOLVER__CHECKPOINT_KEEP=3, **RUN))
    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text(NEW)
    return folder


@pytest.fixture
def two_checkpoints(run_folder: Path, tmp_path: Path) -> Path:
    """Return a run folder of its own with the two checkpoints."""
    for name in (OLD, NEW, "last_checkpoint"):
        os.link(run_folder / name, tmp_path / name)
    return tmp_path


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a checkpoint's content, and give it the sha256 of the new content."""
    state = load_checkpoint(path)
    change(state)
    path.unlink()
    save_checkpoint(path.parent, path.name, state, is_last=False)


def put(*keys: object, value: object) -> Callable[[dict[str, Any]], None]:
    """Return a change that sets an entry."""

    def change(state: dict[str, Any]) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return change


def drop(*keys: object) -> Callable[[dict[str, Any]], None]:
    """Return a change that takes an entry away."""

    def change(state: dict[str, Any]) -> None:
        for key in keys[:-1]:
            state = state[key]
        del state[keys[-1]]

    return change


def edit(*keys: object, by: Callable[[Any], object]) -> Callable[[dict[str, Any]], None]:
    """Return a change that replaces an entry by a function of it."""

    def change(state: dict[str, Any]) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = by(state[keys[-1]])

    return change


def with_nan(value: torch.Tensor) -> torch.Tensor:
    value = value.clone()
    value.view(-1)[0] = NOT_FINITE
    return value


ODD = {
    "iteration missing": (drop("iteration"), "its iteration is missing"),
    "iteration negative": (put("iteration", value=-5), "its iteration is -5"),
    "iteration nan": (put("iteration", value=NOT_FINITE), "its iteration is nan"),
    "iteration true": (put("iteration", value=True), "its iteration is True"),
    "iteration a fraction": (put("iteration", value=2.0), "its iteration is 2.0"),
    "iteration a text": (put("iteration", value="2"), "its iteration is '2'"),
    "iteration huge": (put("iteration", value=2**70), "its iteration is 1180591620717411303424"),
    "iteration after the end": (put("iteration", value=4), "after the end of its run"),
    "config missing": (drop("config"), "its config is missing"),
    "config a number": (put("config", value=5), "its config is 5, and must be a text"),
    "config a list": (put("config", value="- a\n"), "the config in .*not a config"),
    "config no yaml": (put("config", value="{"), "the config in .*not valid YAML"),
    "config with a tag": (put("config", value="A: !!python/name:os.system"), "never run code"),
    "config of aliases": (
        put("config", value="a: &a [1]\n" + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi")
        )),
        "more than .* once its aliases",
    ),
    "config nested": (put("config", value="[" * 5000), "nested too deeply"),
    "class names missing": (drop("class_names"), "its class_names is missing"),
    "class names a text": (put("class_names", value="ab"), "its class_names is 'ab'"),
    "class names a dict": (put("class_names", value={"a": 1}), "its class_names is a dict"),
    "class names twice": (put("class_names", value=["a", "a"]), "class_names is a list"),
    "class names numbers": (put("class_names", value=[1, 2]), "class_names is a list"),
    "class names none": (put("class_names", value=[]), "class_names is a list"),
    "weights missing": (drop("model"), "holds no weights by name"),
    "weights a list": (put("model", value=[torch.zeros(2)]), "holds no weights by name"),
    "one weight missing": (drop("model", BOX), f"Missing key.*{BOX}"),
    "one weight a number": (put("model", BOX, value=3), f"'{BOX}' is a int and no tensor"),
    "one weight of int8": (
        edit("model", BOX, by=torch.Tensor.char), f"'{BOX}' is of the type torch.int8",
    ),
    "one weight complex": (
        edit("model", BOX, by=lambda value: value.to(torch.complex64)),
        f"'{BOX}' is of the type torch.complex64",
    ),
    "one weight of float8": (
        edit("model", BOX, by=lambda value: value.to(torch.float8_e4m3fn)),
        f"'{BOX}' is of the type torch.float8_e4m3fn",
    ),
    "one weight of bool": (
        edit("model", BOX, by=torch.Tensor.bool), f"'{BOX}' is of the type torch.bool",
    ),
    "one weight of another shape": (edit("model", BOX, by=lambda value: value[:1]), BOX),
    "one weight nan": (edit("model", BOX, by=with_nan), f"'{BOX}' has 1 of .* not finite"),
    "one weight infinite": (
        edit("model", BOX, by=lambda value: torch.full_like(value, float("-inf"))),
        f"'{BOX}' has .* not finite.*MODEL.WEIGHTS",
    ),
    "one weight too large for the model": (
        edit("model", BOX, by=lambda value: value.double() + 1e300), f"'{BOX}' has numbers .* too large",
    ),
    "the mean nan": (edit("ema", BOX, by=with_nan), f"averaged weight '{BOX}' has 1 of"),
    "the mean without one": (drop("ema", BOX), f"Missing key.*{BOX}"),
    "the mean of int8": (edit("ema", BOX, by=torch.Tensor.char), f"'{BOX}' is of the type torch.int8"),
    "the mean of another shape": (edit("ema", BOX, by=lambda value: value[:1]), BOX),
    "the mean a list": (put("ema", value=[1]), "holds no averaged weights by name"),
    "the mean's steps missing": (drop("ema_steps"), "its ema_steps is missing"),
    "the mean's steps a text": (put("ema_steps", value="1"), "its ema_steps is '1'"),
    "the mean's steps a tensor": (
        put("ema_steps", value=torch.tensor([1, 2])), "its ema_steps is a Tensor",
    ),
    "moments missing": (drop("moments"), "its moments is missing"),
    "moments a list": (put("moments", value=[]), r"its moments is \[\]"),
    "moments empty": (put("moments", value={}), "no moments of the optimizer"),
    "moments of a stranger": (edit("moments", by=lambda of: {**of, 9999: of[0]}), "parameter 9999"),
    "moments by name": (edit("moments", by=lambda of: {**of, "a": of[0]}), "parameter a"),
    "one moment missing": (drop("moments", 0, "exp_avg"), "exp_avg is a NoneType and no tensor"),
    "one moment no dict": (put("moments", 0, value=[]), "there is no dict"),
    "one moment of another shape": (
        edit("moments", 0, "exp_avg", by=lambda value: value[:1]), r"exp_avg is \(1,.*and must be",
    ),
    "one moment nan": (edit("moments", 0, "exp_avg", by=with_nan), "exp_avg has 1 of"),
    "one square negative": (
        edit("moments", 0, "exp_avg_sq", by=lambda value: value - 1), "holds negative numbers",
    ),
    "one step nan": (put("moments", 0, "step", value=torch.tensor(NOT_FINITE)), "step is nan"),
    "one step missing": (drop("moments", 0, "step"), "step is None"),
    "normalizer missing": (drop("loss_normalizer"), "its loss_normalizer is missing"),
    "normalizer a number": (put("loss_normalizer", value=3.0), "its loss_normalizer is 3.0"),
    "normalizer nan": (put("loss_normalizer", value=[NOT_FINITE]), r"loss_normalizer is \[nan\]"),
    "normalizer of nobody": (put("loss_normalizer", value=[]), r"loss_normalizer is \[\]"),
    "figures a list": (put("recent", value=[1]), r"its recent is \[1\]"),
    "figures empty": (put("recent", value={"loss": (True, [])}), "its recent is"),
    "evaluations a number": (put("evaluations", value=3), "its evaluations is 3"),
    "evaluations odd": (put("evaluations", value=[[1]]), r"its evaluations is \[\[1\]\]"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_entry_is_named_and_the_checkpoint_before_is_gone_on_with(
    two_checkpoints, sample_data, caplog, kind
):
    change, message = ODD[kind]
    rewrite(two_checkpoints / NEW, change)
    _, _, state = setup(tiny_args(two_checkpoints, resume=True, **RUN))
    assert state["iteration"] == 1
    log = (two_checkpoints / "log.txt").read_text()
    assert f"{two_checkpoints / NEW}" in log and "Traceback" not in log
    (line,) = [line for line in log.split("WARNING") if NEW in line and OLD not in line]
    assert __import__("re").search(message, line, __import__("re").DOTALL), line
    assert f"going on with {two_checkpoints / OLD} instead (iteration 1)" in log
