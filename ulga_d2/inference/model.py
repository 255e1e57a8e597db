"""The detector of a run, built so that its first weights follow from the config alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from .. import get_cfg
from ..config import value_of
from ..errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def build_seeded_model(cfg: CfgNode) -> nn.Module:
    """Build the detector on its device; its initial weights are a function of SEED.

    With INPUT.TILE or class weights, RetinaNet is built as its subclass that ignores boxes cut by a
    tile and weights its classes. The name in the config and the names of the weights stay
    RetinaNet's, so that detectron2 reads both.
    """
    torch.manual_seed(cfg.SEED)
    name = cfg.MODEL.META_ARCHITECTURE
    if name == "RetinaNet" and (cfg.INPUT.TILE.SIDE or cfg.MODEL.RETINANET.CLASS_WEIGHTS):
        name = "IgnoringRetinaNet"
    model = META_ARCH_REGISTRY.get(name)(cfg).to(cfg.MODEL.DEVICE)
    if cfg.SOLVER.AMP.ENABLED and hasattr(model, "head"):
        # The focal loss sums tens of thousands of terms: too many for bfloat16's eight bits.
        model.head.register_forward_hook(lambda _module, _inputs, output: _to_float32(output))
    return model


def scoring_head(cfg: CfgNode) -> str:
    """Return the name of the node under MODEL of the head that scores detections."""
    return "RETINANET" if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "ROI_HEADS"


def box_settings(cfg: CfgNode) -> dict[str, Any]:
    """Return the settings that change a trained detector's boxes, by their keys.

    TEST.DETECTIONS_PER_IMAGE is not among them: result files state it as max_detections.
    """
    head = scoring_head(cfg)
    keys = ["INPUT.SQUARE_SIZE", "INPUT.INTENSITY", "INPUT.INTENSITY_RANGE"]
    keys += [f"MODEL.{head}.SCORE_THRESH_TEST", f"MODEL.{head}.NMS_THRESH_TEST"]
    keys += ["MODEL.RETINANET.TOPK_CANDIDATES_TEST"] * (head == "RETINANET")
    keys += ["INPUT.TILE.SIDE", "INPUT.TILE.OVERLAP", "INPUT.TILE.WHOLE_IMAGE"]
    keys += ["TEST.AUG.ENABLED", "TEST.AUG.MIN_SIZES", "TEST.AUG.MAX_SIZE", "TEST.AUG.FLIP"]
    # Result files of earlier versions have none of these.
    stock = get_cfg()
    of_nms = [*(f"TEST.NMS.{name}" for name in stock.TEST.NMS), "TEST.CLASS_SCORE_THRESH"]
    keys += [key for key in of_nms if value_of(cfg, key) != value_of(stock, key)]
    return {key: value_of(cfg, key) for key in keys}


def check_per_class(cfg: CfgNode, key: str, class_names: Sequence[str]) -> None:
    """Refuse a list of one number a class that has another length; an empty one is none.

    Raises:
        UserError: naming the key and the classes in their order.
    """
    numbers = value_of(cfg, key)
    if numbers and len(numbers) != len(class_names):
        raise UserError(
            f"{key} has {len(numbers)} numbers, and there are {len(class_names)} classes; give one "
            f"each, in this order: {list(class_names)}"
        )


def _to_float32(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float()
    return type(value)(_to_float32(item) for item in value)
