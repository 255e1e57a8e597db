"""Neighbourhood attention (NAT, arXiv:2204.07143), in tiles of plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .init import init_weights
from .linear import Linear

TILE = 8  # the side of a tile in tokens, at most; no less than a window's


class NeighborhoodAttention(nn.Module):
    """Let each token attend to the tokens around it, with a learned bias by relative position.

    The window of a token near a border is moved inside the map, so every token has window_size^2
    keys. A map smaller than the window is padded with zero tokens at the right and bottom, which
    are keys like the others.

    Source: the attention is NAT's; these two border rules are those of its library and of DAT++
    (arXiv:2309.01430). Ours: queries are taken in tiles, against the tile and the margin around it
    that holds all their keys, under a mask. With tiles of 8 and windows of 7 that costs 3 times the
    memory of the keys, where one window a token would cost 49 times.

    Args:
        dim: channels C of the tokens.
        num_heads: heads h, a divisor of C.
        window_size: side of a token's window, odd.

    Shape:
        input and output (B, H, W, C); any H, W >= 1.
    """

    def __init__(self, dim: int, *, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        side = 2 * window_size - 1
        self.relative_position_bias_table = nn.Parameter(torch.empty(num_heads, side, side))
        self.apply(init_weights)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return each token's weighted sum over its window, projected."""
        height, width = x.shape[1:3]
        least = self.window_size
        if height < least or width < least:
            x = F.pad(x, (0, 0, 0, max(0, least - width), 0, max(0, least - height)))
        out = self._attend(self.qkv(x))
        return self.proj(out[:, :height, :width])

    def _attend(self, qkv: Tensor) -> Tensor:
        """Attend within windows: (B, H, W, 3C) to (B, H, W, C)."""
        height, width = qkv.shape[1:3]
        tiles = tile_geometry(height, width, self.window_size, qkv.device)
        query, key, value = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 4, 1, 2, 5)
        key, value = tiles.with_margins(key), tiles.with_margins(value)  # (B, h, tiles, K, C / h)
        logits = (tiles.cut(query) * self.scale) @ key.transpose(-2, -1)  # (B, h, tiles, L, K)
        bias = self._bias(tiles)
        # In place, in the bias's precision: no backward pass needs the logits before.
        logits = logits.to(bias.dtype).add_(bias).add_(tiles.mask)
        out = tiles.join(logits.softmax(dim=-1).to(value.dtype) @ value)  # (B, h, H, W, C / h)
        return out.permute(0, 2, 3, 1, 4).flatten(3)

    def _bias(self, tiles: Tiles) -> Tensor:
        bias = self.relative_position_bias_table.flatten(1)[:, tiles.bias_index]
        return bias.unflatten(1, (1, *tiles.mask.shape[1:]))  # (h, 1, L, K)


@dataclass(frozen=True)
class Tiles:
    """How a map is cut into tiles of L queries, each with the K keys of a wider square around it.

    Attributes:
        size: height and width of the map.
        grid: tiles down and across.
        sides: height and width of a tile.
        start: how far above and left of the map the first tile begins.
        margin: by how much the square of keys sticks out on each side.
        bias_index: (L * K,), the entry of the bias table for each query and key of a tile.
        mask: (tiles, L, K), 0 where the key is in the query's window, else -inf.
    """

    size: tuple[int, int]
    grid: tuple[int, int]
    sides: tuple[int, int]
    start: tuple[int, int]
    margin: int
    bias_index: Tensor
    mask: Tensor

    def cut(self, x: Tensor) -> Tensor:
        """Cut (B, h, H, W, c) into tiles, (B, h, tiles, L, c); zeros fill the border's."""
        x = self._padded(x, margin=0, extra=0)
        x = x.unflatten(3, (-1, self.sides[1])).unflatten(2, (-1, self.sides[0]))
        return x.transpose(3, 4).flatten(4, 5).flatten(2, 3)

    def with_margins(self, x: Tensor) -> Tensor:
        """Cut (B, h, H, W, c) into tiles with their margins, (B, h, tiles, K, c)."""
        x, twice = self._padded(x, margin=self.margin, extra=1), 2 * self.margin
        # A tile with its margins is the padded map's tile and the first of the next one. Joining
        # these twice, down and across, has a far cheaper backward pass than `Tensor.unfold`.
        x = x.unflatten(2, (-1, self.sides[0]))
        x = torch.cat([x[:, :, :-1], x[:, :, 1:, :twice]], dim=3)  # (B, h, I, S, W', c)
        x = x.unflatten(4, (-1, self.sides[1])).transpose(3, 4)
        x = torch.cat([x[:, :, :, :-1], x[:, :, :, 1:, :, :twice]], dim=5)  # (B, h, I, J, S, S, c)
        return x.flatten(4, 5).flatten(2, 3)

    def join(self, x: Tensor) -> Tensor:
        """Put (B, h, tiles, L, c) back into the map, (B, h, H, W, c)."""
        x = x.unflatten(3, self.sides).unflatten(2, self.grid)
        x = x.transpose(3, 4).flatten(4, 5).flatten(2, 3)
        (top, left), (height, width) = self.start, self.size
        return x[:, :, top : top + height, left : left + width]

    def _padded(self, x: Tensor, *, margin: int, extra: int) -> Tensor:
        """Pad a map with zeros to whole tiles, behind a margin, and with `extra` tiles after."""
        top, left = (start + margin for start in self.start)
        down, across = (
            (count + extra) * side - length
            for count, side, length in zip(self.grid, self.sides, self.size, strict=True)
        )
        return F.pad(x, (0, 0, left, across - left, top, down - top))


def tile_geometry(height: int, width: int, window_size: int, device: torch.device) -> Tiles:
    """Return the tiles of a map whose sides are no less than the window's.

    Kept from call to call, unless torch is tracing: the tensors of a trace must not outlive it.
    """
    if torch.compiler.is_compiling():
        return _build(height, width, window_size, device)
    return _kept(height, width, window_size, device)


def _build(height: int, width: int, window_size: int, device: torch.device) -> Tiles:
    # Outside inference mode, whose tensors a later backward pass could not use.
    with torch.inference_mode(False):
        lines = [_tile_line(side, window_size) for side in (height, width)]
        (top, row, rows), (left, column, columns) = lines
        index = row[:, None, :, None] * (2 * window_size - 1) + column[:, None]
        # (I, J, row and column of the query, row and column of the key)
        near = rows[:, None, :, None, :, None] & columns[:, None, :, None]
        mask = torch.where(near, 0.0, -torch.inf).flatten(4, 5).flatten(2, 3).flatten(0, 1)
        return Tiles(
            size=(height, width),
            grid=(rows.shape[0], columns.shape[0]),
            sides=(rows.shape[1], columns.shape[1]),
            start=(top, left),
            margin=window_size // 2,
            bias_index=index.flatten().to(device),
            mask=mask.to(device),
        )


_kept = lru_cache(maxsize=32)(_build)


def _tile_line(length: int, window_size: int) -> tuple[int, Tensor, Tensor]:
    """Cut one axis of a map into tiles of one side t, with margins of the window's radius.

    Tiles stick out evenly on both sides. So the first and the last hold more than a radius of the
    map, and the margin of each reaches all keys of a window that was moved inside; the places
    outside are queries too, with the keys of the border's windows.

    Returns:
        by how much the first tile sticks out; the index into the bias table for each place of a
        query and of a key in a tile, (t, t + 2 radius); whether the key is in the query's window,
        (tiles, t, t + 2 radius).
    """
    radius = window_size // 2
    side = max(-(-length // -(-length // TILE)), window_size)  # as even tiles as can be
    tiles = -(-length // side)
    before = (tiles * side - length) // 2
    query = torch.arange(side, device="cpu")[:, None]
    key = torch.arange(-radius, side + radius, device="cpu")
    index = (key - query + window_size - 1).clamp(0, 2 * window_size - 2)
    start = side * torch.arange(tiles, device="cpu")[:, None, None] - before
    first = (start + query - radius).clamp(0, length - window_size)
    return before, index, (start + key >= first) & (start + key < first + window_size)
