"""Attention over tokens: in shifted windows (Swin), and over a whole map or its windows (ViT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .init import init_weights
from .linear import Linear
from .windows import WindowGeometry, window_geometry


class WindowAttention(nn.Module):
    """Let each token attend to the tokens of its window, with a learned bias by relative position.

    Source: Swin, arXiv:2103.14030.

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
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(
            torch.empty((2 * window_size - 1) ** 2, num_heads)
        )
        index = relative_position_index(window_size)
        self.register_buffer("relative_position_index", index, persistent=False)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return each token's weighted sum over its window, projected."""
        windows = window_geometry(*x.shape[1:3], self.window_size, self.shift_size, x.device)
        out = self._attend(windows.project(x, self.qkv), windows)  # (B, windows * L, C)
        return self.proj(windows.join(out).reshape(x.shape))

    def _attend(self, qkv: Tensor, windows: WindowGeometry) -> Tensor:
        """Attend within windows: (B, windows * L, 3C) to (B, windows * L, C)."""
        length, width = self.window_size**2, qkv.shape[-1] // 3
        parts = qkv.reshape(-1, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (B * windows, h, L, C / h)
        bias = self._bias()[None]
        if windows.mask is not None:
            bias = (bias + windows.mask).repeat(qkv.shape[0], 1, 1, 1)  # (B * windows, h, L, L)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        return out.transpose(1, 2).reshape(qkv.shape[0], -1, width)

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


class GlobalAttention(nn.Module):
    """Let each token attend to all tokens of the map, or of its window.

    Windows need no mask: as in ViTDet, what pads the map to whole windows attends and is attended
    to. A padded token is a zero before the projection, hence the projection's bias after it.

    Source: ViT, arXiv:2010.11929; its windows and the two bias tables by relative row and column,
    ViTDet, arXiv:2203.16527.

    Args:
        dim: channels C of the tokens.
        num_heads: heads h, a divisor of C.
        window_size: side of a window in tokens; 0 for the whole map.
        rel_pos_size: side of the map (or window) for which the bias tables have an entry a
            distance, (2 * size - 1, C / h) each; other sides interpolate them. 0 for no bias.

    Shape:
        input and output (B, H, W, C); any H, W >= 1.
    """

    def __init__(self, dim: int, *, num_heads: int, window_size: int, rel_pos_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.has_rel_pos = rel_pos_size > 0
        if self.has_rel_pos:
            table = torch.zeros(2 * rel_pos_size - 1, dim // num_heads)
            self.rel_pos_h = nn.Parameter(table)
            self.rel_pos_w = nn.Parameter(table.clone())
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        """Return each token's weighted sum over the map or its window, projected."""
        batch, height, width, dim = x.shape
        if self.window_size:
            size = self.window_size
            windows = window_geometry(height, width, size, 0, x.device)
            qkv = windows.project(x, self.qkv).reshape(-1, size * size, 3 * dim)
            out = self._attend(qkv, size, size)  # (B * windows, L, C)
            out = windows.join(out.reshape(batch, -1, dim))
        else:
            out = self._attend(self.qkv(x).flatten(1, 2), height, width)
        return self.proj(out.reshape(x.shape))

    def _attend(self, qkv: Tensor, height: int, width: int) -> Tensor:
        """Attend within each map of a batch: (B, H * W, 3C) to (B, H * W, C)."""
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, h, H * W, C / h)
        bias = self._bias(query, height, width) if self.has_rel_pos else None
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return out.transpose(1, 2).flatten(2)

    def _bias(self, query: Tensor, height: int, width: int) -> Tensor:
        """Return what each query adds for the row and the column of a key: (B, h, N, N)."""
        batch, heads, count, _ = query.shape
        query = query.unflatten(2, (height, width))
        by_row = torch.einsum("bnijc,ikc->bnijk", query, relative(self.rel_pos_h, height))
        by_column = torch.einsum("bnijc,jkc->bnijk", query, relative(self.rel_pos_w, width))
        bias = by_row[..., :, None] + by_column[..., None, :]  # (B, h, H, W, H, W)
        return bias.reshape(batch, heads, count, count)


def relative(table: Tensor, side: int) -> Tensor:
    """Return the table's rows by distance, (side, side, C): query first, then key.

    A table for another side is stretched linearly.
    """
    if table.shape[0] != 2 * side - 1:
        stretched = F.interpolate(table.t()[None], size=2 * side - 1, mode="linear")
        table = stretched[0].t()
    place = torch.arange(side, device=table.device)
    return table[place[:, None] - place[None, :] + side - 1]
