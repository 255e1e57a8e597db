"""What a training starts from: a checkpoint of this project, or public weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..weights.checkpoint import check_content, evaluated_weights, load_weights
from ..weights.class_rows import BOX_REGRESSION, MASKS, move_class_rows
from ..weights.detect import recognise
from ..weights.initialise import initialise
from ..weights.layout import PublicWeights
from ..weights.load import is_own, read_plain

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

INTERACTION = ".interaction."


def read_initial(path: str | Path) -> dict[str, Any] | PublicWeights:
    """Read a checkpoint of this project, or a public one with its backbone under our names.

    Raises:
        UserError: a file that cannot be read, or is neither of the two.
    """
    found = read_plain(path)
    if not is_own(found):
        return recognise(found, str(path))
    check_content(found, path)
    return found


def start_from(cfg: CfgNode, model: nn.Module, start: dict[str, Any] | PublicWeights) -> None:
    """Give a model its first weights.

    A checkpoint of ours must match it to the last name and shape, with two exceptions. A model with
    interactions can start from one without; they keep their initial values. The classes may differ:
    rows of classes with equal names are kept, other rows keep their initial values. Public weights
    fill the backbone.

    Raises:
        UserError: the weights are another model's.
    """
    is_public = isinstance(start, PublicWeights)
    new = _start_from_public(cfg, model, start) if is_public else _start_from_own(cfg, model, start)
    if new and not cfg.MODEL.ULGA.FUSE.ZERO_INIT:
        logger.warning(
            "the %d weights of the interactions start at random, which changes what the loaded "
            "ones see; MODEL.ULGA.FUSE.ZERO_INIT True starts the model as the one that was loaded",
            len(new),
        )


def _start_from_public(cfg: CfgNode, model: nn.Module, public: PublicWeights) -> list[str]:
    report = initialise(model, public)
    for line in report.lines():
        logger.info("%s", line)
    layout = public.layout
    sizes = layout.sizes(public.tensors)
    seen = {key: sizes[key] for key in layout.silent if key in sizes}
    _warn_of_others(cfg, layout.node, seen, "these weights")
    guesses = layout.guesses(public.tensors)
    _warn_of_others(cfg, layout.node, guesses, "published weights of this kind")
    return [name for name in report.absent if INTERACTION in name]


def _warn_of_others(cfg: CfgNode, node: str, theirs: dict[str, Any], whose: str) -> None:
    for key, value in theirs.items():
        ours = cfg.MODEL.ULGA[node][key]
        if ours != value:
            text = "MODEL.ULGA.%s.%s is %s, and %s were trained with %s"
            logger.warning(text, node, key, ours, whose, value)


def _start_from_own(cfg: CfgNode, model: nn.Module, state: dict[str, Any]) -> list[str]:
    given, new = evaluated_weights(state), []
    if not any(INTERACTION in name for name in given):
        new = [name for name in model.state_dict() if INTERACTION in name]
    own = model.state_dict()
    if list(state["class_names"]) != list(cfg.DATASETS.CLASS_NAMES):
        given = _with_classes_of(cfg, given, own, state["class_names"])
    whole = {**given, **{name: own[name] for name in new}}
    load_weights(model, {"model": whole}, cfg.MODEL.WEIGHTS or "the checkpoint")
    return new


def _with_classes_of(
    cfg: CfgNode, given: dict[str, Tensor], own: dict[str, Tensor], old: list[str]
) -> dict[str, Tensor]:
    """Return the checkpoint's weights for the classes of the config, and log what was reset."""
    agnostic = {
        BOX_REGRESSION: cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG,
        MASKS: cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK,
    }
    moved, report = move_class_rows(
        given,
        own,
        old,
        cfg.DATASETS.CLASS_NAMES,
        class_agnostic=[head for head, is_agnostic in agnostic.items() if is_agnostic],
    )
    logger.info("the classes are not those of %s", cfg.MODEL.WEIGHTS or "the checkpoint")
    for line in report.lines():
        logger.info("%s", line)
    return moved
