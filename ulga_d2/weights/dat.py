"""DAT++ checkpoints (arXiv:2309.01430): LeapLabTHU's names, of classifiers and of detectors.

The released code keeps a stage's parts in one list a kind; ours keeps them in the order in which
they run: the local perception unit of block d is module 2d of its stage, the block is 2d + 1.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from .layout import Layout

STAGES = ("stage2", "stage3", "stage4", "stage5")
MARK = "stem.conv1.weight"


def find_layout(names: Collection[str]) -> Layout | None:
    """Return the layout of a DAT++ with these names, or None if they are not one's."""
    needed = {"patch_proj.0.weight", "patch_proj.3.weight", "stages.0.attns.0.rpb"}
    if not needed <= set(names):
        return None
    has_map_norms = any(name.startswith("norms.") for name in names)
    return DETECTOR if has_map_norms else CLASSIFIER


def adapt(name: str, tensor: Tensor) -> Tensor:
    """Turn a 1x1 convolution's weight into a linear's."""
    return tensor[:, :, 0, 0] if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor


def sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the keys of MODEL.ULGA.DAT off a DAT++'s weights, under our names."""
    modules = [re.match(r"stages\.(stage\d)\.(\d+)\.", name) for name in tensors]
    blocks = {(match[1], int(match[2]) // 2) for match in modules if match}
    depthwise = [_first(tensors, stage, "offsets.depthwise.weight") for stage in STAGES]
    tables = [_first(tensors, stage, "relative_position_bias_table") for stage in STAGES]
    last = tables[-1].shape[1]  # of displacements over the map, as the first one's are over windows
    dim = tensors["stem.conv2.weight"].shape[0]
    return {
        "EMBED_DIM": dim,
        "DEPTHS": [sum(stage == name for name, _ in blocks) for stage in STAGES],
        "NUM_HEADS": [table.shape[0] for table in tables],
        "NUM_GROUPS": [dim * 2**i // weight.shape[0] for i, weight in enumerate(depthwise)],
        "WINDOW_SIZE": (tables[0].shape[1] + 1) // 2,
        "OFFSET_KERNEL": [weight.shape[2] for weight in depthwise],
        "GRID_SIZE": (last + 1) // 2 * 8,
        "MLP_RATIO": _first(tensors, STAGES[0], "mlp.fc1.weight").shape[0] / dim,
    }


def guesses(_tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what no weight shows: the offset networks' strides and the kind of reference points.

    Published weights were trained with these.
    """
    return {"OFFSET_STRIDE": [8, 4, 2, 1], "REF_POINTS": "released"}


def _first(tensors: Mapping[str, Tensor], stage: str, end: str) -> Tensor:
    """Return the weight of that kind in the first block of a stage that has one."""
    pattern = re.compile(rf"stages\.{stage}\.(\d+)\..*{re.escape(end)}")
    found = {int(match[1]): name for name in tensors if (match := pattern.fullmatch(name))}
    return tensors[found[min(found, default=-1)]]


def _stage(match: re.Match[str]) -> str:
    return f"stages.{STAGES[int(match[1])]}"


def _perception_unit(match: re.Match[str]) -> str:
    return f"{_stage(match)}.{2 * int(match[2])}.depthwise."


def _norm(match: re.Match[str]) -> str:
    block, second = divmod(int(match[2]), 2)
    return f"{_stage(match)}.{2 * block + 1}.norm{second + 1}."


def _part(match: re.Match[str]) -> str:
    return f"{_stage(match)}.{2 * int(match[3]) + 1}.{match[2]}."


CLASSIFIER = Layout(
    name="DAT++, LeapLabTHU's names",
    node="DAT",
    renames=(
        (r"^patch_proj\.0\.", "stem.conv1."),
        (r"^patch_proj\.1\.norm\.", "stem.norm1."),
        (r"^patch_proj\.3\.", "stem.conv2."),
        (r"^patch_proj\.4\.norm\.", "stem.norm2."),
        *((rf"^down_projs\.{i}\.0\.", f"downsamples.{STAGES[i + 1]}.conv.") for i in range(3)),
        *((rf"^down_projs\.{i}\.1\.", f"downsamples.{STAGES[i + 1]}.") for i in range(3)),
        *((rf"^norms\.{i}\.norm\.", f"norms.{STAGES[i]}.") for i in range(4)),
        (r"^stages\.(\d)\.local_perception_units\.(\d+)\.", _perception_unit),
        (r"^stages\.(\d)\.layer_norms\.(\d+)\.norm\.", _norm),
        (r"^stages\.(\d)\.(attn|mlp)s\.(\d+)\.", _part),
        (r"\.attn\.proj_([qkv])\.", r".attn.\1."),
        (r"\.attn\.proj_out\.", ".attn.proj."),
        (r"\.attn\.conv_offset\.0\.", ".attn.offsets.depthwise."),
        (r"\.attn\.conv_offset\.1\.", ".attn.offsets."),
        (r"\.attn\.conv_offset\.3\.", ".attn.offsets.pointwise."),
        (r"\.attn\.(rpb|rpe_table)$", ".attn.relative_position_bias_table"),
        (r"\.mlp\.linear1\.0\.", ".mlp.fc1."),
        (r"\.mlp\.linear2\.0\.", ".mlp.fc2."),
        (r"\.mlp\.dwc\.", ".mlp.local.depthwise."),
    ),
    ignored=(
        (r".*\.(relative_position_index|q_grid|reference)", "tables that are computed anew"),
        (r"cls_(norm|head)\..*", "the classifier and its norm"),
    ),
    absent=r"norms\..*",
    optional=r"norms\..*",
    mark=MARK,
    adapt=adapt,
    sizes=sizes,
    guesses=guesses,
)

DETECTOR = replace(CLASSIFIER, name="DAT++, LeapLabTHU's names for detection", absent=r"(?!)")
