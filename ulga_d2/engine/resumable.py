"""Which checkpoints a run can go on from: those that hold a whole state of training."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..config import parse_config, value_of
from ..errors import UserError
from ..weights.checkpoint import evaluated_weights, load_weights
from ..weights.tensor_checks import tensor_fault
from .checks import build_empty_model
from .optimizer import build_optimizer

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from .datasets import RunData

logger = logging.getLogger(__name__)

MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW, each of its parameter's shape


def check_resumable(cfg: CfgNode, state: dict[str, Any], path: Path) -> None:
    """Refuse a checkpoint that is whole, and whose run cannot be gone on with.

    Args:
        cfg: of the run, before its classes are known.
        state: what the file holds, after `weights.checkpoint.check_content`.
        path: of the file, for messages.

    Raises:
        UserError: naming the file and the entry that is missing or odd.
    """
    for key, is_valid, wanted in _ENTRIES:
        value = state.get(key, None if key in _NEEDED else _ABSENT)
        if value is not _ABSENT and not is_valid(value):
            found = f"is {str(value)[:80]}" if key in state else "is missing"
            raise UserError(f"{path}: its {key} {found}, and must be {wanted}")
    length = value_of(parse_config(state["config"], str(path)), "SOLVER.MAX_ITER")
    if type(length) is int and state["iteration"] > length:
        raise UserError(
            f"{path}: its iteration is {state['iteration']}, after the end of its run at "
            f"SOLVER.MAX_ITER {length}"
        )
    model = _model_of(cfg, len(state["class_names"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that an empty model takes no values
        load_weights(model, state, path)
        load_weights(model, {"model": evaluated_weights(state)}, path)
    _check_moments(cfg, model, state, path)


def check_length(cfg: CfgNode, state: Mapping[str, Any]) -> None:
    """Refuse to go on with a run that has come further than its config wants it to.

    Raises:
        UserError: naming both numbers.
    """
    if state["iteration"] > cfg.SOLVER.MAX_ITER:
        raise UserError(
            f"--resume: {state['iteration']} iterations were done, and SOLVER.MAX_ITER is "
            f"{cfg.SOLVER.MAX_ITER}; give {state['iteration']} or more, or --eval-only to evaluate "
            "the weights"
        )


def check_same_data(state: Mapping[str, Any], data: RunData, *, by_itself: bool) -> None:
    """Warn where a resumed run would train on other records than before.

    Args:
        state: the checkpoint; older versions wrote nothing of the data into it.
        data: of the run, as they are now.
        by_itself: nobody has asked for it now: a launcher or a scheduler has started the run again.

    Raises:
        UserError: the data differ, and the run goes on by itself.
    """
    before, now = state.get("data"), data.fingerprint()
    if before is None:
        logger.info("the checkpoint does not tell which data its run read: not compared")
    elif before["sha256"] != now["sha256"]:
        counts = " and ".join(
            f"{of['images']:,} images with {of['boxes']:,} boxes {when}"
            for of, when in ((before, "before"), (now, "now"))
        )
        what = f"the training data are not those of the checkpoint: {counts}"
        if by_itself:
            raise UserError(
                f"{what}. A run that is started again by itself does not go on with other data: "
                "give it the data of before, or start it by hand with --resume"
            )
        logger.warning("--resume: %s; the run is no longer that of one data set", what)


def _model_of(cfg: CfgNode, num_classes: int) -> nn.Module:
    own = cfg.clone()
    own.defrost()
    for node in (own.MODEL.RETINANET, own.MODEL.ROI_HEADS):
        node.NUM_CLASSES = num_classes
    return build_empty_model(own)


def _check_moments(cfg: CfgNode, model: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    groups = build_optimizer(cfg, model).param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moments = state["moments"]
    missing = [number for number in range(len(parameters)) if number not in moments]
    if state["iteration"] and missing:  # a step gives every parameter a gradient
        first = names[id(parameters[missing[0]])]
        raise UserError(
            f"{path}: it holds no moments of {len(missing)} of {len(parameters)} parameters, such "
            f"as {first}"
        )
    for number, of_one in moments.items():
        if type(number) is not int or not 0 <= number < len(parameters):
            raise UserError(
                f"{path}: it has moments of the parameter {str(number)[:80]}, and the model has "
                f"{len(parameters)} parameters"
            )
        fault = _moment_fault(of_one, parameters[number])
        if fault:
            name = names[id(parameters[number])]
            raise UserError(f"{path}: of the optimizer's moments of {name}, {fault}")


def _moment_fault(of_one: object, parameter: Tensor) -> str:
    if not isinstance(of_one, Mapping):
        return "there is no dict"
    for name in MOMENTS:
        value = of_one.get(name)
        fault = tensor_fault(value)
        if fault:
            return f"{name} {fault}"
        if value.shape != parameter.shape or not value.is_floating_point():
            wanted = f"{tuple(parameter.shape)} floating-point numbers"
            return f"{name} is {tuple(value.shape)} of {value.dtype}, and must be {wanted}"
    if bool((of_one["exp_avg_sq"] < 0).any()):
        return "exp_avg_sq holds negative numbers, and is a mean of squares"
    step = of_one.get("step")
    step = step.item() if isinstance(step, Tensor) and step.numel() == 1 else step
    return "" if _is_number(step) and step >= 1 else f"step is {step}, and must count from 1"


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_pair(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2


def _are_pairs(value: object, of_pair: Callable[[Any, Any], bool]) -> bool:
    is_list = isinstance(value, (list, tuple))
    return is_list and all(_is_pair(pair) and of_pair(*pair) for pair in value)


def _are_normalizers(value: object) -> bool:
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    return is_list and (
        all(item is None for item in value) or all(_is_number(item) and item > 0 for item in value)
    )


def _are_recent(value: object) -> bool:
    def is_figure(figure: object, at: object) -> bool:
        return _is_number(figure) and type(at) is int

    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and _is_pair(pair)
        and isinstance(pair[0], bool)
        and pair[1]
        and _are_pairs(pair[1], is_figure)
        for name, pair in value.items()
    )


def _are_evaluations(value: object) -> bool:
    def is_evaluation(at: object, figure: object) -> bool:
        return type(at) is int and (figure is None or _is_number(figure))

    return _are_pairs(value, is_evaluation)


def _is_fingerprint(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and all(type(value.get(name)) is int for name in ("images", "boxes"))
        and isinstance(value.get("sha256"), str)
    )


_ABSENT = object()
_NEEDED = ("moments", "loss_normalizer")  # older versions wrote no others
_ENTRIES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("moments", lambda value: isinstance(value, Mapping), "a dict of the optimizer's moments"),
    ("loss_normalizer", _are_normalizers, "a number above 0 of each process, or None"),
    ("recent", _are_recent, "the last figures by their names"),
    ("evaluations", _are_evaluations, "pairs of an iteration and a figure"),
    ("data", _is_fingerprint, "counts of the training set, and its sha256"),
)
