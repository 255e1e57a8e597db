"""The builders that a YAML names under MODEL.BACKBONE.NAME, registered with detectron2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelP6P7
from torch import Tensor

from ..errors import UserError
from .dat import DAT
from .hierarchical import STAGE_NAMES
from .swin import SwinTransformer
from .vit import STAGE_NAME, STRIDES, ViT

if TYPE_CHECKING:
    from detectron2.config import CfgNode

TOP_LEVELS = ("p6", "p7")
GROUPS = 32  # of detectron2's GroupNorm
DAT_NAMES = {
    "OFFSET_INIT": ("zero", "default"),
    "REF_POINTS": ("centred", "released"),
    "OFFSET_INPUT": ("enhanced", "plain"),
}


@BACKBONE_REGISTRY.register()
def build_retinanet_ulga_swin_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SquareFPN:
    """Build Swin and its FPN from MODEL.ULGA, MODEL.FPN and INPUT.SQUARE_SIZE."""
    check_swin(cfg)
    check_pyramid(cfg, STAGE_NAMES)
    return _with_pyramid(cfg, SwinTransformer(cfg))


@BACKBONE_REGISTRY.register()
def build_retinanet_ulga_vit_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SquareFPN:
    """Build ViT and its FPN from MODEL.ULGA, MODEL.FPN and INPUT.SQUARE_SIZE."""
    check_vit(cfg)
    check_pyramid(cfg, tuple(STRIDES))
    return _with_pyramid(cfg, ViT(cfg))


@BACKBONE_REGISTRY.register()
def build_retinanet_ulga_dat_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SquareFPN:
    """Build DAT++ and its FPN from MODEL.ULGA, MODEL.FPN and INPUT.SQUARE_SIZE."""
    check_dat(cfg)
    check_pyramid(cfg, STAGE_NAMES)
    return _with_pyramid(cfg, DAT(cfg))


class SquareFPN(FPN):
    """An FPN whose input is one square, and nothing larger.

    Detectors pad a batch to a multiple of `size_divisibility`. So images no larger than the square
    come as exactly the square, and a larger image comes as a larger map, which is refused.
    detectron2's own "square_size" constraint would crop it without a word.
    """

    @property
    def size_divisibility(self) -> int:
        """The side of the square in pixels."""
        return self._square_pad

    @property
    def padding_constraints(self) -> dict[str, int]:
        """None beside `size_divisibility`."""
        return {}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the maps of the pyramid.

        Args:
            x: (B, 3, H, W), neither H nor W above the side of the square.

        Raises:
            UserError: the image is larger.
        """
        side = self._square_pad
        if max(x.shape[-2:]) > side:
            raise UserError(
                f"the network was given an image with a side above {side} pixels, which is "
                f"INPUT.SQUARE_SIZE; resize its longest side to {side} (INPUT.MIN_SIZE_TEST {side} "
                f"and INPUT.MAX_SIZE_TEST {side} do that), or cut it into tiles"
            )
        return super().forward(x)


def _with_pyramid(cfg: CfgNode, bottom_up: Backbone) -> SquareFPN:
    """Put an FPN on a backbone; p6 and p7 are made from p5 where the detector reads them."""
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    reads_top = set(TOP_LEVELS) & set(head_levels(cfg)[1])
    return SquareFPN(
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
        UserError: naming the key, its value and the valid ones.
    """
    node = cfg.MODEL.ULGA.SWIN
    _check_stages("SWIN", node, ("DEPTHS", "NUM_HEADS"))
    _check("ULGA.SWIN.EMBED_DIM", node.EMBED_DIM, node.EMBED_DIM >= 1, "1 or more")
    _check("ULGA.SWIN.WINDOW_SIZE", node.WINDOW_SIZE, node.WINDOW_SIZE >= 1, "1 or more")
    _check_rates("ULGA.SWIN", node, node.EMBED_DIM)
    _check_heads("SWIN", node)


def check_dat(cfg: CfgNode) -> None:
    """Refuse a DAT++ that cannot be built.

    Raises:
        UserError: naming the key, its value and the valid ones.
    """
    node = cfg.MODEL.ULGA.DAT
    stages = ("DEPTHS", "NUM_HEADS", "NUM_GROUPS", "OFFSET_KERNEL", "OFFSET_STRIDE")
    _check_stages("DAT", node, stages)
    dim, window, grid = node.EMBED_DIM, node.WINDOW_SIZE, node.GRID_SIZE
    valid = "an even number, 2 or more: the stem's first convolution has half of it"
    _check("ULGA.DAT.EMBED_DIM", dim, dim >= 2 and dim % 2 == 0, valid)
    valid = "an odd number, 3 or more"
    _check("ULGA.DAT.WINDOW_SIZE", window, window >= 3 and window % 2 == 1, valid)
    _check("ULGA.DAT.GRID_SIZE", grid, grid >= 8, "8 or more: stage5 has an eighth of it")
    _check_rates("ULGA.DAT", node, dim)
    _check_heads("DAT", node)
    for stage, (heads, groups) in enumerate(zip(node.NUM_HEADS, node.NUM_GROUPS, strict=True)):
        valid = f"a divisor of NUM_HEADS[{stage}] ({heads})"
        _check(f"ULGA.DAT.NUM_GROUPS[{stage}]", groups, heads % groups == 0, valid)
        kernel, stride = node.OFFSET_KERNEL[stage], node.OFFSET_STRIDE[stage]
        valid = f"an odd number above OFFSET_STRIDE[{stage}] ({stride})"
        is_valid = kernel % 2 == 1 and kernel > stride
        _check(f"ULGA.DAT.OFFSET_KERNEL[{stage}]", kernel, is_valid, valid)
    for key, names in DAT_NAMES.items():
        valid = " or ".join(names)
        _check(f"ULGA.DAT.{key}", node[key], node[key] in names, valid)


def check_vit(cfg: CfgNode) -> None:
    """Refuse a ViT that cannot be built.

    Raises:
        UserError: naming the key, its value and the valid ones.
    """
    node, interaction = cfg.MODEL.ULGA.VIT, cfg.MODEL.ULGA
    for key in ("EMBED_DIM", "DEPTH", "NUM_HEADS", "GRID_SIZE"):
        _check(f"ULGA.VIT.{key}", node[key], node[key] >= 1, "1 or more")
    dim, heads = node.EMBED_DIM, node.NUM_HEADS
    valid = f"a divisor of EMBED_DIM ({dim})"
    _check("ULGA.VIT.NUM_HEADS", heads, dim % heads == 0, valid)
    _check_rates("ULGA.VIT", node, dim)
    _check("ULGA.VIT.WINDOW_SIZE", node.WINDOW_SIZE, node.WINDOW_SIZE >= 0, "0 or more")
    valid = 1 <= node.NUM_GLOBAL <= node.DEPTH
    _check("ULGA.VIT.NUM_GLOBAL", node.NUM_GLOBAL, valid, f"1 to DEPTH ({node.DEPTH})")
    stages = list(interaction.STAGES)
    valid = not interaction.INTERACTIONS or STAGE_NAME in stages
    _check("ULGA.STAGES", stages, valid, f"a list with {STAGE_NAME}, where ViT's blocks are")


def check_pyramid(cfg: CfgNode, names: tuple[str, ...]) -> None:
    """Refuse a pyramid that cannot be built, or whose parameters would get no gradient.

    Args:
        cfg: the config.
        names: the backbone's maps, from fine to coarse.

    Raises:
        UserError: naming the key, its value and the valid ones.
    """
    features = list(cfg.MODEL.FPN.IN_FEATURES)
    ends = [list(names[first:]) for first in range(len(names))]
    valid = f"stages in order up to {names[-1]}, such as {ends[-3]}"
    _check("FPN.IN_FEATURES", features, features in ends, valid)
    levels = [f"p{name[-1]}" for name in features]
    key, wanted = head_levels(cfg)
    valid = f"{levels} or {[*levels, *TOP_LEVELS]}, as MODEL.FPN.IN_FEATURES is {features}"
    _check(key, wanted, wanted in (levels, [*levels, *TOP_LEVELS]), valid)
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    if "GN" in (cfg.MODEL.FPN.NORM, cfg.MODEL.RETINANET.NORM):
        valid = f"a multiple of {GROUPS}, the groups of its norm GN"
        _check("FPN.OUT_CHANNELS", channels, channels % GROUPS == 0, valid)


def head_levels(cfg: CfgNode) -> tuple[str, list[str]]:
    """Return the key that says which levels of the pyramid the dense head reads, and these."""
    node = "RETINANET" if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "RPN"
    return f"{node}.IN_FEATURES", list(cfg.MODEL[node].IN_FEATURES)


def _check(key: str, value: object, is_valid: bool, valid: str) -> None:
    if not is_valid:
        raise UserError(f"MODEL.{key} is {value}; give {valid}")


def _check_rates(place: str, node: CfgNode, dim: int) -> None:
    ratio, rate = node.MLP_RATIO, node.DROP_PATH_RATE
    _check(f"{place}.MLP_RATIO", ratio, ratio * dim >= 1, "more, such as 4.0")
    _check(f"{place}.DROP_PATH_RATE", rate, 0 <= rate < 1, "0 or more, less than 1")


def _check_stages(name: str, node: CfgNode, keys: tuple[str, ...]) -> None:
    for key in keys:
        valid = len(node[key]) == len(STAGE_NAMES) and min(node[key]) >= 1
        _check(f"ULGA.{name}.{key}", list(node[key]), valid, "four numbers >= 1, one a stage")


def _check_heads(name: str, node: CfgNode) -> None:
    for stage, heads in enumerate(node.NUM_HEADS):
        dim = node.EMBED_DIM * 2**stage
        if dim % heads:
            divisors = [number for number in range(1, dim + 1) if dim % number == 0]
            nearest = min(divisors, key=lambda number: abs(number - heads))
            raise UserError(
                f"MODEL.ULGA.{name}.NUM_HEADS[{stage}] is {heads}, which does not divide the {dim} "
                f"channels of {STAGE_NAMES[stage]} (EMBED_DIM {node.EMBED_DIM} x {2**stage}); the "
                f"nearest number that does is {nearest}"
            )
