"""The builders that a YAML names under MODEL.BACKBONE.NAME, registered with detectron2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelP6P7

from ..errors import UserError
from .hierarchical import STAGE_NAMES
from .swin import SwinTransformer

if TYPE_CHECKING:
    from detectron2.config import CfgNode


@BACKBONE_REGISTRY.register()
def build_retinanet_ulga_swin_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build Swin and its FPN from MODEL.ULGA, MODEL.FPN and INPUT.SQUARE_SIZE."""
    check_swin(cfg)
    return _with_pyramid(cfg, SwinTransformer(cfg))


def _with_pyramid(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """Put an FPN on a backbone; p6 and p7 are made from p5 where the detector reads them.

    The FPN asks the detector to pad every batch to the square of INPUT.SQUARE_SIZE.
    """
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    reads_top = {"p6", "p7"} & set(cfg.MODEL.RETINANET.IN_FEATURES)
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=channels,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelP6P7(channels, channels, in_feature="p5") if reads_top else None,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
        square_pad=cfg.INPUT.SQUARE_SIZE,
    )


def check_swin(cfg: CfgNode) -> None:
    """Refuse a Swin that cannot be built.

    Raises:
        UserError: naming the key and the fault.
    """
    node = cfg.MODEL.ULGA.SWIN
    for key in ("DEPTHS", "NUM_HEADS"):
        if len(node[key]) != len(STAGE_NAMES) or min(node[key]) < 1:
            raise UserError(
                f"MODEL.ULGA.SWIN.{key} is {list(node[key])}; give four numbers >= 1, one a stage"
            )
    for stage, heads in enumerate(node.NUM_HEADS):
        dim = node.EMBED_DIM * 2**stage
        if dim % heads:
            raise UserError(
                f"MODEL.ULGA.SWIN.NUM_HEADS[{stage}] is {heads}, which does not divide the {dim} "
                f"channels of {STAGE_NAMES[stage]} (EMBED_DIM {node.EMBED_DIM} x {2**stage})"
            )
    features = list(cfg.MODEL.FPN.IN_FEATURES)
    if not features or not set(features) <= set(STAGE_NAMES) or features != sorted(set(features)):
        raise UserError(
            f"MODEL.FPN.IN_FEATURES is {features}; choose from {', '.join(STAGE_NAMES)}, in order"
        )
