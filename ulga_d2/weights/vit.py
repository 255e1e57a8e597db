"""ViT checkpoints (arXiv:2010.11929): timm's, torchvision's and detectron2's names.

Ours has no class token: it is left out, and so is its row in the position table. How many heads a
ViT has cannot be read off its weights, unless it has relative positions; published ones give each
head 64 channels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from .layout import Layout

MARK = "position.pos_embed"
TABLE = "blocks.0.attn.rel_pos_h"
HEAD_DIM = 64
MAX_TOKENS = 2  # a class token, and one for distillation

_TOKENS = (r"(cls|dist)_token|class_token", "the class token")
_CLASSIFIER = (r"(head|head_dist|heads|fc_norm|pre_logits)\..*", "the classifier")
_TABLES = r"blocks\.\d+\.attn\.rel_pos_[hw]"
_NEVER_PUBLISHED = rf"to_stage3\..*|{_TABLES}"


def find_layout(names: Collection[str]) -> Layout | None:
    """Return the layout of a ViT with these names, or None if they are not a ViT's."""
    if {"conv_proj.weight", "encoder.pos_embedding"} <= set(names):
        return TORCHVISION
    if not {"patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight"} <= set(names):
        return None
    if "norm.weight" in names:
        return TIMM
    return TIMM_POOLED if "fc_norm.weight" in names else DETECTRON2


def adapt(name: str, tensor: Tensor) -> Tensor:
    """Turn a position table (1, tokens + S * S, C) into (1, S, S, C); the tokens' rows go."""
    if name != MARK or tensor.ndim != 3 or tensor.shape[0] != 1:
        return tensor
    side = math.isqrt(tensor.shape[1])
    tokens = tensor.shape[1] - side**2
    if tokens > MAX_TOKENS:
        return tensor
    return tensor[:, tokens:].reshape(1, side, side, tensor.shape[2])


def sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the keys of MODEL.ULGA.VIT off a ViT's weights, under our names."""
    dim = tensors["stem.proj.weight"].shape[0]
    blocks = {match[1] for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name))}
    keys: dict[str, Any] = {"EMBED_DIM": dim, "DEPTH": len(blocks)}
    if MARK in tensors and tensors[MARK].ndim == 4:
        keys["GRID_SIZE"] = tensors[MARK].shape[1]
    if TABLE in tensors:
        keys |= {"NUM_HEADS": dim // tensors[TABLE].shape[1], "REL_POS": True, **_maps(tensors)}
    hidden = tensors.get("blocks.0.mlp.fc1.weight")
    if hidden is not None:
        keys["MLP_RATIO"] = hidden.shape[0] / dim
    return keys


def guesses(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the number of heads where no table tells it, as published ViTs have it."""
    if TABLE in tensors:
        return {}
    return {"NUM_HEADS": max(1, tensors["stem.proj.weight"].shape[0] // HEAD_DIM)}


def _maps(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Tell from the lengths of the tables how large a map blocks attend to, or its windows.

    That map may be larger than the one of the position table: ViTDet keeps the table of its
    pretraining, and stretches it for every image.
    """
    tables = [table for name, table in tensors.items() if name.endswith(".rel_pos_h")]
    sides = [(len(table) + 1) // 2 for table in tables]
    if min(sides) == max(sides):
        return {"GRID_SIZE": max(sides)}
    windows = {"WINDOW_SIZE": min(sides), "NUM_GLOBAL": sides.count(max(sides))}
    return {"GRID_SIZE": max(sides), **windows}


TIMM = Layout(
    name="ViT, timm's names",
    node="VIT",
    renames=((r"^patch_embed\.", "stem."), (r"^pos_embed$", MARK)),
    ignored=(_TOKENS, _CLASSIFIER),
    absent=_NEVER_PUBLISHED,
    optional=r"(?!)",
    mark=MARK,
    adapt=adapt,
    sizes=sizes,
    guesses=guesses,
    silent=("WINDOW_SIZE", "NUM_GLOBAL"),
)

# Their last norm follows the pooling to one token, so it is the classifier's.
TIMM_POOLED = replace(
    TIMM, name="ViT, timm's names, without a last norm", absent=rf"{_NEVER_PUBLISHED}|norm\..*"
)

DETECTRON2 = replace(TIMM_POOLED, name="ViT, detectron2's names")

TORCHVISION = replace(
    TIMM,
    name="ViT, torchvision's names",
    renames=(
        (r"^conv_proj\.", "stem.proj."),
        (r"^encoder\.pos_embedding$", MARK),
        (r"^encoder\.ln\.", "norm."),
        (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.self_attention\.in_proj_", ".attn.qkv."),
        (r"\.self_attention\.out_proj\.", ".attn.proj."),
        # The published files have the older names, linear_1 and linear_2.
        (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
        (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
    ),
)
