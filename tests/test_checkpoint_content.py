"""Checkpoints with a right sha256 and a content that no run has written; weights that are none."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_args
from detectron2.config import CfgNode
from test_checkpoint_damage import NEW, OLD
from test_weights_start import public_file  # noqa: F401

from tests.predict_files import write_png
from ulga_d2.config import resolve_classes
from ulga_d2.engine.checkpoint import save_checkpoint
from ulga_d2.engine.initial import read_initial
from ulga_d2.engine.launch import main, read_config
from ulga_d2.engine.resumable import check_resumable
from ulga_d2.engine.trained import open_trained
from ulga_d2.errors import UserError
from ulga_d2.inference.model import build_seeded_model
from ulga_d2.inference.predictor import Predictor
from ulga_d2.weights.checkpoint import load_checkpoint, load_last, load_weights
from ulga_d2.weights.digest import content_sha256

BOX = "head.bbox_pred.weight"
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
            f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in itertools.pairwise("abcdefghi")
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
        edit("model", BOX, by=lambda value: value.double() + 1e300),
        f"'{BOX}' has numbers .* too large",
    ),
    "the mean nan": (edit("ema", BOX, by=with_nan), f"averaged weight '{BOX}' has 1 of"),
    "the mean without one": (drop("ema", BOX), f"Missing key.*{BOX}"),
    "the mean of int8": (edit("ema", BOX, by=torch.Tensor.char), f"'{BOX}' .* torch.int8"),
    "the mean of another shape": (edit("ema", BOX, by=lambda value: value[:1]), BOX),
    "the mean a list": (put("ema", value=[1]), "holds no averaged weights by name"),
    "the mean's steps missing": (drop("ema_steps"), "its ema_steps is missing"),
    "the mean's steps a text": (put("ema_steps", value="1"), "its ema_steps is '1'"),
    "the mean's steps a tensor": (
        put("ema_steps", value=torch.tensor([1, 2])), "its ema_steps is a Tensor",
    ),
    "moments missing": (drop("moments"), "its moments is missing"),
    "moments a list": (put("moments", value=[]), r"its moments is \[\]"),
    "moments empty": (put("moments", value={}), "no moments of (.*) of \\1 parameters, such as"),
    "moments of one parameter missing": (drop("moments", 5), "no moments of 1 of"),
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


@pytest.fixture(scope="module")
def cfg(run_folder: Path) -> CfgNode:
    """Return the config of the run."""
    return read_config(tiny_args(run_folder, **RUN))


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_entry_is_named_and_the_checkpoint_before_is_gone_on_with(
    two_checkpoints, cfg, caplog, kind
):
    change, message = ODD[kind]
    rewrite(two_checkpoints / NEW, change)
    path, state = load_last(two_checkpoints, partial(check_resumable, cfg))
    assert (path.name, state["iteration"]) == (OLD, 1)
    *damages, instead = caplog.messages
    damage = "\n".join(damages)
    assert damage.startswith((f"{two_checkpoints / NEW}", f"the config in {two_checkpoints / NEW}",
                              f"the weights in {two_checkpoints / NEW}"))  # fmt: skip
    assert re.search(message, damage, re.DOTALL), damage
    assert instead == f"going on with {two_checkpoints / OLD} instead (iteration 1)"


def test_a_resumed_run_reaches_its_end_from_the_checkpoint_before_an_odd_one(
    two_checkpoints, sample_data, run_folder
):
    rewrite(two_checkpoints / NEW, edit("moments", 3, "exp_avg", by=with_nan))
    main(tiny_args(two_checkpoints, resume=True, SOLVER__CHECKPOINT_KEEP=3, **RUN))
    log = (two_checkpoints / "log.txt").read_text()
    assert "exp_avg has 1 of" in log and "instead (iteration 1)" in log
    again, before = (load_checkpoint(folder / NEW) for folder in (two_checkpoints, run_folder))
    for part in ("model", "ema", "moments", "loss_normalizer"):
        assert content_sha256({part: again[part]}) == content_sha256({part: before[part]}), part


def test_where_all_checkpoints_are_odd_each_is_named_in_one_error(two_checkpoints, cfg):
    rewrite(two_checkpoints / NEW, drop("moments"))
    rewrite(two_checkpoints / OLD, put("iteration", value=-5))
    with pytest.raises(UserError, match=rf"{NEW}: its moments(.|\n)*{OLD}: its iteration is -5"):
        load_last(two_checkpoints, partial(check_resumable, cfg))


@pytest.mark.parametrize("kind", ["sparse", "meta", "quantized", "itself"])
def test_a_value_that_has_no_sha256_is_named_and_the_checkpoint_before_is_used(
    two_checkpoints, cfg, kind, caplog
):
    state = load_checkpoint(two_checkpoints / NEW)
    itself: list = []
    itself.append(itself)
    weight = state["model"][BOX]
    values = {
        "sparse": weight.to_sparse(),
        "meta": weight.to("meta"),
        "quantized": torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        "itself": itself,
    }
    (two_checkpoints / NEW).unlink()
    for sha256 in ({}, {"sha256": state["sha256"]}):
        content = {**state, "model": {**state["model"], BOX: values[kind]}, **sha256}
        content = content if sha256 else {k: v for k, v in content.items() if k != "sha256"}
        torch.save(content, two_checkpoints / NEW)
        caplog.clear()
        path, _ = load_last(two_checkpoints, partial(check_resumable, cfg))
        assert path.name == OLD
        assert f"{two_checkpoints / NEW}" in caplog.text and "instead (iteration 1)" in caplog.text


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64], ids=lambda dtype: str(dtype)
)
def test_weights_of_other_floating_point_types_are_converted(two_checkpoints, cfg, dtype):
    rewrite(two_checkpoints / NEW, edit("model", BOX, by=lambda value: value.to(dtype)))
    state = load_last(two_checkpoints, partial(check_resumable, cfg))[1]
    model = build_seeded_model(cfg_of(cfg, state))
    load_weights(model, state, NEW)
    assert torch.equal(model.state_dict()[BOX], state["model"][BOX].float())


def cfg_of(cfg: CfgNode, state: dict[str, Any]) -> CfgNode:
    """Return the config with the checkpoint's number of classes."""
    own = cfg.clone()
    resolve_classes(own, tuple(state["class_names"]))
    return own


WEIGHTS = {
    "nan": (edit("model", BOX, by=with_nan), "values that are not finite.*MODEL.WEIGHTS"),
    "int8": (edit("model", BOX, by=torch.Tensor.char), "torch.int8"),
    "classes": (drop("class_names"), "class_names is missing"),
    "config": (put("config", value="- 1"), "not a config"),
}


@pytest.fixture(params=WEIGHTS)
def odd_weights(request, run_folder: Path, tmp_path: Path) -> tuple[Path, str]:
    """Return a checkpoint of the run that no model can take, and what is said of it."""
    path = tmp_path / "odd.pth"
    state = load_checkpoint(run_folder / NEW)
    del state["ema"], state["ema_steps"]
    change, message = WEIGHTS[request.param]
    change(state)
    save_checkpoint(tmp_path, path.name, state, is_last=False)
    return path, f"{path}(.|\n)*{message}"


@pytest.mark.parametrize("flags", [{"eval_only": True}, {}], ids=["evaluate", "start"])
def test_weights_that_are_none_are_neither_evaluated_nor_started_from(
    odd_weights, sample_data, tmp_path, flags
):
    path, message = odd_weights
    with pytest.raises(UserError, match=message) as caught:
        main(tiny_args(tmp_path / "run", MODEL__WEIGHTS=path, **flags))
    assert "BASE_LR" not in str(caught.value)
    assert not (tmp_path / "run" / "inference").exists()


def test_weights_that_are_none_do_not_predict(odd_weights, tmp_path):
    path, message = odd_weights
    with pytest.raises(UserError, match=message):
        Predictor(path, device="cpu")


def test_weights_that_are_none_are_not_explained(odd_weights, run_folder, tmp_path):
    path, message = odd_weights
    image = str(write_png(tmp_path / "image.png"))
    with pytest.raises(UserError, match=message):
        open_trained(str(run_folder / "config.yaml"), str(path), ["MODEL.DEVICE", "cpu"], [image])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_nan, r"not finite"),
        (torch.Tensor.char, r"torch\.int8"),
        (lambda value: value.to_sparse(), "sparse, quantized or meta tensor"),
        (lambda value: value.to("meta"), "sparse, quantized or meta tensor"),
    ],
)
def test_public_weights_that_are_none_start_nothing(public_file, change, message):  # noqa: F811
    state = torch.load(public_file)
    name = "features.0.0.weight"
    torch.save({**state, name: change(state[name])}, public_file)
    with pytest.raises(
        UserError, match=rf"{public_file}(: the weight '{name}'| holds a).*{message}"
    ):
        read_initial(public_file)
