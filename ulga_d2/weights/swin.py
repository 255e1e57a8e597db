"""Swin checkpoints (arXiv:2103.14030): Microsoft's, detectron2's, timm's and torchvision's names.

They differ in where the halving between two stages is counted: Microsoft and detectron2 put it at
the end of the earlier stage, timm (from 0.9 on) at the start of the later one, and torchvision
numbers stages and halvings in one row. All four join a 2x2 square of tokens in the same order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from .layout import Layout

STAGES = ("stage2", "stage3", "stage4", "stage5")
MARK = "stages.stage2.0.attn.relative_position_bias_table"

_BUFFERS = (r".*\.(relative_position_index|attn_mask)", "tables that are computed anew")
# After the last stage, for the classifier; our maps have a norm each, as detectron2's have.
_CLASSIFIER = (r"(norm|head|head\.fc)\.(weight|bias)", "the classifier and its norm")
_MAP_NORMS = r"norms\..*"
_STEM = (r"^patch_embed\.", "stem.")


def find_layout(names: Collection[str]) -> Layout | None:
    """Return the layout of a Swin with these names, or None if they are not a Swin's."""
    if "features.1.0.attn.relative_position_bias_table" in names:
        return TORCHVISION
    # timm writes `layers_0` where it hands out feature maps.
    first = [name for name in names if re.fullmatch(r"layers[._]0\.blocks\.0\..*bias_table", name)]
    if not first or "patch_embed.proj.weight" not in names:
        return None
    if "layers.0.downsample.reduction.weight" not in names:
        return TIMM
    has_map_norms = any(re.match(r"norm\d\.", name) for name in names)
    return DETECTRON2 if has_map_norms else MICROSOFT


def sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the keys of MODEL.ULGA.SWIN off a Swin's weights, under our names."""
    dim = tensors["stem.proj.weight"].shape[0]
    blocks = [re.match(r"stages\.(stage\d)\.(\d+)\.", name) for name in tensors]
    found = {(match[1], int(match[2])) for match in blocks if match}
    table = "stages.{}.0.attn.relative_position_bias_table"
    tables = [tensors[table.format(stage)] for stage in STAGES if table.format(stage) in tensors]
    keys: dict[str, Any] = {
        "EMBED_DIM": dim,
        "DEPTHS": [sum(stage == name for name, _ in found) for stage in STAGES],
        "NUM_HEADS": [table.shape[1] for table in tables],
        "WINDOW_SIZE": (math.isqrt(tables[0].shape[0]) + 1) // 2,
    }
    hidden = tensors.get("stages.stage2.0.mlp.fc1.weight")
    if hidden is not None:
        keys["MLP_RATIO"] = hidden.shape[0] / dim
    return keys


def _no_guesses(_tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {}


def _as_it_is(_name: str, tensor: Tensor) -> Tensor:
    return tensor


def _stages(folder: str) -> tuple[tuple[str, str], ...]:
    return tuple((rf"^{folder}{i}\.blocks\.", f"stages.{STAGES[i]}.") for i in range(4))


def _downsamples(folder: str, first: int) -> tuple[tuple[str, str], ...]:
    return tuple(
        (rf"^{folder}{first + i}\.downsample\.", f"downsamples.{STAGES[1 + i]}.") for i in range(3)
    )


def _layout(name: str, renames: tuple[tuple[str, str], ...], absent: str) -> Layout:
    return Layout(
        name=name,
        node="SWIN",
        renames=renames,
        ignored=(_BUFFERS, _CLASSIFIER),
        absent=absent,
        optional=_MAP_NORMS,
        mark=MARK,
        adapt=_as_it_is,
        sizes=sizes,
        guesses=_no_guesses,
    )


_OLD_ROW = (_STEM, *_stages(r"layers\."), *_downsamples(r"layers\.", 0))

MICROSOFT = _layout("Swin, Microsoft's names", _OLD_ROW, _MAP_NORMS)

DETECTRON2 = _layout(
    "Swin, detectron2's names",
    (*_OLD_ROW, *((rf"^norm{i}\.", f"norms.{STAGES[i]}.") for i in range(4))),
    r"(?!)",
)

TIMM = _layout(
    "Swin, timm's names",
    (_STEM, *_stages(r"layers[._]"), *_downsamples(r"layers[._]", 1)),
    _MAP_NORMS,
)

TORCHVISION = _layout(
    "Swin, torchvision's names",
    (
        (r"^features\.0\.0\.", "stem.proj."),
        (r"^features\.0\.2\.", "stem.norm."),
        *((rf"^features\.{2 * i + 1}\.", f"stages.{STAGES[i]}.") for i in range(4)),
        *((rf"^features\.{2 * i}\.", f"downsamples.{STAGES[i]}.") for i in range(1, 4)),
        (r"\.mlp\.0\.", ".mlp.fc1."),
        (r"\.mlp\.3\.", ".mlp.fc2."),
    ),
    _MAP_NORMS,
)
