"""Small models of the libraries whose checkpoints we take, and what their backbones compute."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import public_dat as dat
import timm
import torch
from conftest import CONFIGS, tiny_options
from detectron2.config import CfgNode
from detectron2.modeling.backbone.swin import SwinTransformer as Detectron2Swin
from detectron2.modeling.backbone.vit import ViT as Detectron2ViT
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

from ulga_d2 import get_cfg
from ulga_d2.config import merge_config

Source = tuple[dict[str, Tensor], Callable[[Tensor], list[Tensor]]]
"""A state dict, and image to maps: (B, H, W, C), before the norms that a classifier has not."""

SIDE = 256
DIM, DEPTHS, HEADS, WINDOW = 8, (2, 2, 2, 2), (1, 2, 2, 4), 4
VIT_SIDE, GRID = 128, 8
VIT = {"embed_dim": 32, "depth": 4, "num_heads": 2}
NORM = partial(nn.LayerNorm, eps=1e-6)

KEYS = {
    "swin": {
        "MODEL__ULGA__SWIN__EMBED_DIM": DIM,
        "MODEL__ULGA__SWIN__DEPTHS": list(DEPTHS),
        "MODEL__ULGA__SWIN__NUM_HEADS": list(HEADS),
        "MODEL__ULGA__SWIN__WINDOW_SIZE": WINDOW,
        "MODEL__FPN__IN_FEATURES": ["stage2", "stage3", "stage4", "stage5"],
        "MODEL__RETINANET__IN_FEATURES": ["p2", "p3", "p4", "p5"],
        "MODEL__ANCHOR_GENERATOR__SIZES": [[32]],
    },
    "vit": {
        "MODEL__ULGA__VIT__EMBED_DIM": 32,
        "MODEL__ULGA__VIT__DEPTH": 4,
        "MODEL__ULGA__VIT__NUM_HEADS": 2,
        "MODEL__ULGA__VIT__GRID_SIZE": GRID,
    },
    "dat": {
        "MODEL__ULGA__DAT__EMBED_DIM": dat.DIMS[0],
        "MODEL__ULGA__DAT__DEPTHS": list(dat.DEPTHS),
        "MODEL__ULGA__DAT__NUM_HEADS": list(dat.HEADS),
        "MODEL__ULGA__DAT__NUM_GROUPS": list(dat.GROUPS),
        "MODEL__ULGA__DAT__OFFSET_KERNEL": list(dat.KERNELS),
        "MODEL__ULGA__DAT__REF_POINTS": "released",
        "MODEL__ULGA__DAT__GRID_SIZE": dat.GRID,
    },
}


def config(backbone: str, variant: str = "baseline", **changes: object) -> CfgNode:
    """Return the config of a detector whose backbone has the sizes of the models below."""
    cfg = get_cfg()
    leaf = CONFIGS / f"brain_tumor_{backbone}_{variant}_nano.yaml"
    merge_config(cfg, str(leaf), tiny_options(Path("unused"), **{**KEYS[backbone], **changes}))
    return cfg


def _randomised(model: nn.Module) -> nn.Module:
    """Fill what starts at zero or one, so that a weight in another's place is seen."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or any(part in name for part in ("bias_table", "pos", "token")):
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def timm_swin() -> Source:
    model = _randomised(
        timm.models.swin_transformer.SwinTransformer(
            img_size=SIDE,
            embed_dim=DIM,
            depths=DEPTHS,
            num_heads=HEADS,
            window_size=WINDOW,
            num_classes=3,
        )  # fmt: skip
    )
    maps = partial(model.forward_intermediates, intermediates_only=True)
    return model.state_dict(), lambda x: [y.permute(0, 2, 3, 1) for y in maps(x)]


def timm_swin_of_feature_maps() -> Source:
    """Return what `timm.create_model(..., features_only=True)` saves: `layers_0` for `layers.0`."""
    state, maps = timm_swin()
    state = {name.replace("layers.", "layers_"): value for name, value in state.items()}
    return {name: value for name, value in state.items() if "head" not in name}, maps


def torchvision_swin() -> Source:
    model = _randomised(
        TorchvisionSwin([4, 4], DIM, list(DEPTHS), list(HEADS), [WINDOW, WINDOW], num_classes=3)
    )

    def maps(x: Tensor) -> list[Tensor]:
        found = []
        for module in model.features:
            x = module(x)
            found.append(x)
        return found[1::2]

    return model.state_dict(), maps


def detectron2_swin() -> Source:
    """Return all of it with `maps` after their norms, which this layout has."""
    model = _randomised(
        Detectron2Swin(
            embed_dim=DIM, depths=DEPTHS, num_heads=HEADS, window_size=WINDOW, drop_path_rate=0.0
        )
    )
    return model.state_dict(), lambda x: [y.permute(0, 2, 3, 1) for y in model(x).values()]


def microsoft_swin() -> Source:
    """Return the names of Microsoft's files: a norm and a head at the end, masks as buffers."""
    state, _ = detectron2_swin()
    plain = Detectron2Swin(
        embed_dim=DIM, depths=DEPTHS, num_heads=HEADS, window_size=WINDOW, drop_path_rate=0.0
    ).eval()
    for i in range(4):
        setattr(plain, f"norm{i}", nn.Identity())
    state = {name: value for name, value in state.items() if not name.startswith("norm")}
    plain.load_state_dict(state)
    state["norm.weight"] = state["norm.bias"] = torch.ones(8 * DIM)
    state["head.weight"], state["head.bias"] = torch.ones(3, 8 * DIM), torch.ones(3)
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 16, 16)
    return state, lambda x: [y.permute(0, 2, 3, 1) for y in plain(x).values()]


def _on_the_grid(tokens: Tensor) -> list[Tensor]:
    return [tokens.reshape(len(tokens), GRID, GRID, -1)]


def timm_vit(**changes: object) -> Source:
    """Return a ViT; its maps are those of the image's tokens by themselves, as ours are."""
    model = _randomised(
        timm.models.vision_transformer.VisionTransformer(
            img_size=VIT_SIDE, **{**VIT, "num_classes": 3, **changes}
        )
    )

    def maps(x: Tensor) -> list[Tensor]:
        x = model.patch_embed(x)
        return _on_the_grid(model.norm(model.blocks(x + model.pos_embed[:, -x.shape[1] :])))

    return model.state_dict(), maps


def torchvision_vit() -> Source:
    model = _randomised(
        TorchvisionViT(VIT_SIDE, 16, VIT["depth"], VIT["num_heads"], 32, 128, num_classes=3)
    )

    def maps(x: Tensor) -> list[Tensor]:
        x = model.conv_proj(x).flatten(2).transpose(1, 2) + model.encoder.pos_embedding[:, 1:]
        return _on_the_grid(model.encoder.ln(model.encoder.layers(x)))

    return model.state_dict(), maps


def torchvision_vit_as_published() -> Source:
    """Return the names of its published files, which are older than its present code."""
    state, maps = torchvision_vit()
    older = (("mlp.0.", "mlp.linear_1."), ("mlp.3.", "mlp.linear_2."))
    for new, old in older:
        state = {name.replace(new, old): value for name, value in state.items()}
    return state, maps


def detectron2_vit(**changes: object) -> Source:
    model = _randomised(
        Detectron2ViT(
            pretrain_img_size=VIT_SIDE,
            norm_layer=NORM,
            **{"img_size": VIT_SIDE, **VIT, **changes},
        )
    )
    return model.state_dict(), lambda x: [model(x)["last_feat"].permute(0, 2, 3, 1)]
