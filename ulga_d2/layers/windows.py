"""Windows of a map: which token stands where, padding and cyclic shift included."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OUT_OF_REACH = -100.0  # added to the logit of a key in another region of a shifted window


@dataclass(frozen=True)
class WindowGeometry:
    """Where the tokens of a map stand in its windows.

    Attributes:
        tokens: for each slot of each window, the number of the token there; H * W is padding.
        slots: for each token, its slot.
        mask: (windows, 1, L, L) to add to the logits, or None without a shift.
        has_padding: whether a slot is padding.
    """

    tokens: Tensor
    slots: Tensor
    mask: Tensor | None
    has_padding: bool

    def project(self, x: Tensor, linear: nn.Module) -> Tensor:
        """Project a map and cut it into windows: (B, H, W, C) to (B, windows * L, D).

        What pads the map to whole windows is a zero before the projection, so one zero beside the
        real tokens is projected for all of it.
        """
        x = x.flatten(1, 2)
        if self.has_padding:
            x = F.pad(x, (0, 0, 0, 1))
        return linear(x[:, None])[:, 0].index_select(1, self.tokens)

    def join(self, x: Tensor) -> Tensor:
        """Put (B, windows * L, C) back into the order of the map, (B, H * W, C)."""
        return x.index_select(1, self.slots)


def window_geometry(
    height: int, width: int, window_size: int, shift_size: int, device: torch.device
) -> WindowGeometry:
    """Return the windows of a map, shifted up and left by `shift_size` tokens, cyclically.

    Kept from call to call, unless torch is tracing: the tensors of a trace must not outlive it.
    """
    if torch.compiler.is_compiling():
        return _build(height, width, window_size, shift_size, device)
    return _kept(height, width, window_size, shift_size, device)


def _build(
    height: int, width: int, window_size: int, shift_size: int, device: torch.device
) -> WindowGeometry:
    # Outside inference mode, whose tensors a later backward pass could not use.
    with torch.inference_mode(False):
        padded = [side + -side % window_size for side in (height, width)]
        count = height * width
        number = torch.full(padded, count, device="cpu")
        number[:height, :width] = torch.arange(count, device="cpu").reshape(height, width)
        number = torch.roll(number, (-shift_size, -shift_size), (0, 1))
        tokens = _partition(number, window_size).flatten()
        slots = tokens.argsort()[:count]  # padding, the largest number, comes last
        mask = _shift_mask(padded, window_size, shift_size) if shift_size else None
        return WindowGeometry(
            tokens.to(device),
            slots.to(device),
            None if mask is None else mask.to(device),
            len(tokens) > count,
        )


_kept = lru_cache(maxsize=32)(_build)


def _partition(grid: Tensor, window_size: int) -> Tensor:
    """Cut a (H, W) grid into windows: (windows, L)."""
    height, width = grid.shape
    grid = grid.reshape(height // window_size, window_size, width // window_size, window_size)
    return grid.permute(0, 2, 1, 3).reshape(-1, window_size**2)


def _shift_mask(padded: list[int], window_size: int, shift_size: int) -> Tensor:
    """Keep tokens apart that the cyclic shift brought together from opposite borders."""
    regions = []
    for side in padded:
        region = torch.zeros(side, device="cpu")
        region[side - window_size :] = 1
        region[side - shift_size :] = 2
        regions.append(region)
    windows = _partition(3 * regions[0][:, None] + regions[1][None, :], window_size)
    apart = windows[:, None, :] != windows[:, :, None]  # (windows, L, L)
    return torch.where(apart, OUT_OF_REACH, 0.0)[:, None]
