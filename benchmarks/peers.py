"""Our backbones, and the peers that they are measured against, with the same weights."""

from __future__ import annotations

from functools import partial

import torch
from detectron2.modeling.backbone.swin import SwinTransformer as Detectron2Swin
from detectron2.modeling.backbone.vit import ViT as Detectron2ViT
from torch import Tensor, nn

from ulga_d2 import get_cfg
from ulga_d2.backbone.dat import DAT
from ulga_d2.backbone.swin import SwinTransformer
from ulga_d2.backbone.vit import ViT
from ulga_d2.weights.detect import recognise

from .plain_dat import plain_form

STAGES = ["stage2", "stage3", "stage4", "stage5"]
VIT_S = {"embed_dim": 384, "depth": 12, "num_heads": 6}
WINDOW = 14


def our_swin(*interactions: str) -> nn.Module:
    """Build our Swin-T with all four maps."""
    cfg = get_cfg()
    cfg.MODEL.FPN.IN_FEATURES = STAGES
    cfg.MODEL.ULGA.INTERACTIONS = list(interactions)
    cfg.MODEL.ULGA.SWIN.DROP_PATH_RATE = 0.0
    return SwinTransformer(cfg)


def swin_pair() -> tuple[nn.Module, nn.Module]:
    """Build our Swin-T and detectron2's, with equal weights."""
    ours = our_swin()
    theirs = Detectron2Swin(drop_path_rate=0.0, out_indices=(0, 1, 2, 3))
    return _with_weights_of(theirs, ours), theirs


def our_vit(*, rel_pos: bool, window_size: int, grid_size: int) -> nn.Module:
    """Build our ViT-S; it returns its last map alone, as detectron2's does."""
    cfg = get_cfg()
    cfg.MODEL.FPN.IN_FEATURES = ["stage4", "stage5"]
    node = cfg.MODEL.ULGA.VIT
    node.REL_POS, node.WINDOW_SIZE, node.GRID_SIZE = rel_pos, window_size, grid_size
    node.DROP_PATH_RATE = 0.0
    return _LastTokens(ViT(cfg))


def vit_pair(grid_size: int) -> tuple[nn.Module, nn.Module]:
    """Build our ViT-S and detectron2's: windows, relative positions, equal weights."""
    ours = our_vit(rel_pos=True, window_size=WINDOW, grid_size=grid_size)
    pixels = 16 * grid_size
    theirs = Detectron2ViT(
        img_size=pixels,
        **VIT_S,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=WINDOW,
        window_block_indexes=[index for index in range(12) if index % 3 != 2],
        pretrain_img_size=pixels,
        pretrain_use_cls_token=False,
    )
    _with_weights_of(theirs, ours.vit)
    return ours, theirs


def dat_pair() -> tuple[nn.Module, nn.Module]:
    """Build our DAT++ T as released, and the same network by the plain formulas."""
    cfg = get_cfg()
    cfg.MODEL.FPN.IN_FEATURES = STAGES
    node = cfg.MODEL.ULGA.DAT
    node.OFFSET_INIT, node.REF_POINTS, node.DROP_PATH_RATE = "default", "released", 0.0
    ours = DAT(cfg)
    return ours, plain_form(ours)


class _LastTokens(nn.Module):
    """What detectron2's ViT returns, by our ViT."""

    def __init__(self, vit: ViT) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"last_feat": self.vit.tokens(image).permute(0, 3, 1, 2)}


def _with_weights_of(theirs: nn.Module, ours: nn.Module) -> nn.Module:
    """Fill what starts at zero or one in `theirs`, and give all its weights to `ours`."""
    for parameter in theirs.parameters():
        if parameter.ndim == 1 or float(parameter.detach().abs().max()) == 0.0:
            nn.init.normal_(parameter, std=0.1)
    tensors = recognise(theirs.state_dict(), type(theirs).__name__).tensors
    unexpected = ours.load_state_dict(tensors, strict=False).unexpected_keys
    if unexpected:
        raise RuntimeError(f"weights without a place: {unexpected}")
    return ours


def largest_difference(ours: nn.Module, theirs: nn.Module, image: Tensor) -> float:
    """Return the largest difference of two models' maps, relative to the largest value."""
    with torch.inference_mode():
        pairs = zip(ours.eval()(image).values(), theirs.eval()(image).values(), strict=True)
        return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
