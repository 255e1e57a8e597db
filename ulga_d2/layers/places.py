"""Places on a line of cells whose first and last centres are at -1 and 1 (one cell: at 0)."""

from __future__ import annotations

import torch
from torch import Tensor


def centred_places(count: int, side: int, like: Tensor) -> Tensor:
    """Return the centres of `count` equal parts of a line of `side` cells: (count,).

    In the type and on the device of `like`; as many parts as cells are the cells themselves.
    """
    place = torch.arange(count, dtype=like.dtype, device=like.device)
    return ((2 * place + 1) * (side / count) - side) / max(side - 1, 1)


def released_places(count: int, side: int, like: Tensor) -> Tensor:
    """Return the reference points of the released DAT++, which are not quite centred: (count,)."""
    place = torch.arange(count, dtype=like.dtype, device=like.device)
    return (2 * place + 1) / max(count - 1, 1) - 1
