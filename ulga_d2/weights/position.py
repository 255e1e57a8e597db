"""Position tables for another grid, window or map than they were learned on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F


def resize(name: str, table: Tensor, shape: Sequence[int]) -> Tensor | None:
    """Return a table in the given shape, or None if `name` is no position table or cannot be.

    Absolute tables (1, S, S, C) and Swin's of a window's (2S - 1)^2 relative positions are
    resized bicubically, as their papers' code does; ViTDet's of 2S - 1 distances linearly, and
    DAT's (heads, 2H - 1, 2W - 1) of displacements bilinearly between fixed corners, as the
    attention does that reads them.
    """
    stretch = _BY_LAST_PART.get(name.rpartition(".")[2])
    resized = stretch(table.float(), shape) if stretch and table.ndim == len(shape) else None
    return resized if resized is not None and resized.shape == tuple(shape) else None


def _absolute(table: Tensor, shape: Sequence[int]) -> Tensor:
    channels_first = table.permute(0, 3, 1, 2)
    resized = F.interpolate(channels_first, tuple(shape[1:3]), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1)


def _relative(table: Tensor, shape: Sequence[int]) -> Tensor | None:
    if table.ndim == 3:
        size = tuple(shape[1:])
        return F.interpolate(table[None], size, mode="bilinear", align_corners=True)[0]
    old, new = math.isqrt(table.shape[0]), math.isqrt(shape[0])
    if old**2 != table.shape[0]:
        return None
    square = table.t().reshape(1, -1, old, old)  # (1, heads, 2S - 1, 2S - 1)
    resized = F.interpolate(square, (new, new), mode="bicubic", align_corners=False)
    return resized.flatten(2)[0].t()


def _distances(table: Tensor, shape: Sequence[int]) -> Tensor:
    return F.interpolate(table.t()[None], shape[0], mode="linear", align_corners=False)[0].t()


_BY_LAST_PART: dict[str, Callable[[Tensor, Sequence[int]], Tensor | None]] = {
    "pos_embed": _absolute,
    "relative_position_bias_table": _relative,
    "rel_pos_h": _distances,
    "rel_pos_w": _distances,
}
