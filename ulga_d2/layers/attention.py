"""Window attention with shifted windows (Swin, arXiv:2103.14030)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from .init import init_weights

OUT_OF_REACH = -100.0  # added to the logit of a key in another region of a shifted window


class WindowAttention(nn.Module):
    """Let each token attend to the tokens of its window, with a learned bias by relative position.

    Padding to whole windows, the cyclic shift and its mask happen inside, so a caller hands over a
    map of any size. A padded token is a zero before the projection, hence the projection's bias
    after it: projecting the real tokens alone gives the same numbers for less work.

    Args:
        dim: channels C of the tokens.
        num_heads: heads h, a divisor of C.
        window_size: side of a window in tokens.
        shift_size: how far the windows are shifted, 0 <= shift_size < window_size.

    Shape:
        input and output (B, H, W, C); any H, W >= 1.
    """

    def __init__(self, dim: int, *, num_heads: int, window_size: int, shift_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.shift_size = shift_size
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(
            torch.empty((2 * window_size - 1) ** 2, num_heads)
        )
        index = relative_position_index(window_size)
        self.register_buffer("relative_position_index", index, persistent=False)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return each token's weighted sum over its window, projected."""
        batch, height, width, dim = x.shape
        windows = window_geometry(height, width, self.window_size, self.shift_size, x.device)
        qkv = self.qkv(x).reshape(batch, height * width, 3 * dim)
        if windows.has_padding:
            padding = self.qkv.bias.to(qkv.dtype).expand(batch, 1, 3 * dim)
            qkv = torch.cat([qkv, padding], dim=1)
        qkv = qkv.index_select(1, windows.tokens)  # (B, windows * L, 3C)
        out = self._attend(qkv, windows)  # (B, windows * L, C)
        return self.proj(out.index_select(1, windows.slots).reshape(batch, height, width, dim))

    def _attend(self, qkv: Tensor, windows: WindowGeometry) -> Tensor:
        """Attend within windows: (B, windows * L, 3C) to (B, windows * L, C)."""
        batch, length = qkv.shape[0], self.window_size**2
        qkv = qkv.reshape(
            batch, -1, length, 3, self.num_heads, qkv.shape[-1] // 3 // self.num_heads
        )
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5)  # each (B, windows, h, L, C / h)
        logits = (query * self.scale) @ key.transpose(-2, -1) + self._bias()
        if windows.mask is not None:
            logits = logits + windows.mask  # (windows, 1, L, L)
        out = logits.softmax(dim=-1).to(value.dtype) @ value
        return out.transpose(2, 3).reshape(batch, -1, qkv.shape[-1] * self.num_heads)

    def _bias(self) -> Tensor:
        length = self.window_size**2
        bias = self.relative_position_bias_table[self.relative_position_index]  # (L * L, h)
        return bias.reshape(length, length, self.num_heads).permute(2, 0, 1)  # (h, L, L)


def relative_position_index(window_size: int) -> Tensor:
    """Return, for each pair of tokens in a window, the row of the bias table: (L * L,)."""
    side = torch.arange(window_size)
    row, column = torch.meshgrid(side, side, indexing="ij")
    row, column = row.flatten(), column.flatten()
    down = row[:, None] - row[None, :] + window_size - 1
    across = column[:, None] - column[None, :] + window_size - 1
    return (down * (2 * window_size - 1) + across).flatten()


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


@lru_cache(maxsize=128)
def window_geometry(
    height: int, width: int, window_size: int, shift_size: int, device: torch.device
) -> WindowGeometry:
    """Return the windows of a map, shifted up and left by `shift_size` tokens, cyclically.

    Kept from call to call. Built outside inference mode, whose tensors a later backward pass could
    not use.
    """
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
