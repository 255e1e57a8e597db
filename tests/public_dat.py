"""The names and shapes of LeapLabTHU's DAT++ files, for a small model."""

from __future__ import annotations

import torch
from torch import Tensor

DIMS, DEPTHS, HEADS, GROUPS = (8, 16, 32, 64), (2, 4, 2, 2), (1, 2, 4, 4), (1, 2, 4, 4)
KERNELS, GRID = (9, 7, 5, 3), 16


class Shapes(dict):
    """Names and shapes, with a bias beside each weight unless said otherwise."""

    def add(self, name: str, *weight: int, bias: bool = True) -> None:
        self[f"{name}.weight"] = weight
        if bias:
            self[f"{name}.bias"] = weight[:1]


def released(*, detection: bool) -> Shapes:
    """Return the names and shapes of a DAT++ as models/dat.py of LeapLabTHU/DAT builds it."""
    shapes = Shapes()
    shapes.add("patch_proj.0", DIMS[0] // 2, 3, 3, 3)
    shapes.add("patch_proj.1.norm", DIMS[0] // 2)
    shapes.add("patch_proj.3", DIMS[0], DIMS[0] // 2, 3, 3)
    shapes.add("patch_proj.4.norm", DIMS[0])
    for i, (dim, depth) in enumerate(zip(DIMS, DEPTHS, strict=True)):
        for d in range(depth):
            stage = f"stages.{i}"
            shapes.add(f"{stage}.layer_norms.{2 * d}.norm", dim)
            shapes.add(f"{stage}.layer_norms.{2 * d + 1}.norm", dim)
            shapes.add(f"{stage}.local_perception_units.{d}", dim, 1, 3, 3)
            shapes.add(f"{stage}.mlps.{d}.linear1.0", 4 * dim, dim, 1, 1)
            shapes.add(f"{stage}.mlps.{d}.linear2.0", dim, 4 * dim, 1, 1)
            shapes.add(f"{stage}.mlps.{d}.dwc", 4 * dim, 1, 3, 3)
            _add_attention(shapes, f"{stage}.attns.{d}", i, is_near=d % 2 == 0 and i < 3)
        if i < 3:
            shapes.add(f"down_projs.{i}.0", DIMS[i + 1], dim, 3, 3, bias=False)
            shapes.add(f"down_projs.{i}.1.norm", DIMS[i + 1])
        if detection and i > 0:
            shapes.add(f"norms.{i}.norm", dim)
    if not detection:
        shapes.add("cls_norm.norm", DIMS[-1])
        shapes.add("cls_head", 3, DIMS[-1])
    return shapes


def _add_attention(shapes: Shapes, name: str, stage: int, *, is_near: bool) -> None:
    dim, width, side = DIMS[stage], DIMS[stage] // GROUPS[stage], 2 * (GRID >> stage) - 1
    if is_near:
        shapes.add(f"{name}.qkv", 3 * dim, dim)
        shapes.add(f"{name}.proj", dim, dim)
        shapes[f"{name}.rpb"] = (HEADS[stage], 13, 13)
        return
    for part in ("proj_q", "proj_k", "proj_v", "proj_out"):
        shapes.add(f"{name}.{part}", dim, dim, 1, 1)
    shapes.add(f"{name}.conv_offset.0", width, 1, KERNELS[stage], KERNELS[stage])
    shapes.add(f"{name}.conv_offset.1.norm", width)
    shapes.add(f"{name}.conv_offset.3", 2, width, 1, 1, bias=False)
    shapes[f"{name}.rpe_table"] = (HEADS[stage], side, side)


def state_of(*, detection: bool = False) -> dict[str, Tensor]:
    """Return random weights of these names."""
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in released(detection=detection).items()}
