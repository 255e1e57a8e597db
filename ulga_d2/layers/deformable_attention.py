"""Deformable attention (DAT, arXiv:2201.00520; DAT++, arXiv:2309.01430), in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .init import init_weights
from .linear import Linear
from .places import centred_places, released_places
from .sampled_bias import SampledBias

# On a CPU, logits of one step, so that they stay in its cache; without steps, half as long again.
CPU_STEP = 2**21


class DeformableAttention(nn.Module):
    """Let each token attend to a few points of the map, whose places the tokens themselves choose.

        q      = x W_q
        points = clamp(reference points + offsets(q), -1, 1)     -1, 1: the centres of border cells
        s      = x at the points, bilinearly; k = s W_k, v = s W_v
        y      = softmax(q k^T / sqrt(C / h) + bias) v W_o       bias: by query's place - point

    All tokens share the points of a map; each of the g groups of channels has its own. There are
    about (H / r)(W / r) of them, for a stride r of the offset network.

    The bias is read bilinearly from a table, as the released code does, but by two matrix products,
    rows then columns, instead of four entries for each query and key (`SampledBias`).

    Source: DAT++ and its released code, with `ref_points` "released" and `offset_init` "default".
    Ours: the centred points, the start at zero offsets, `interaction`, and maps of one row or
    column, whose only cell is at 0 (there the released code divides by zero).

    Args:
        dim: channels C of the tokens.
        num_heads: heads h, a divisor of C.
        num_groups: groups g with points of their own, a divisor of h.
        kernel_size: side of the offset network's kernel, odd and above the stride.
        stride: tokens from one reference point to the next.
        grid_size: side of the map for which the bias table has one entry a distance.
        offset_init: "zero" for points that start at the reference points, or "default" for torch's
            initial weights, with which they start scattered over a good part of the map.
        ref_points: "centred" for the centres of an even grid's cells over the map, or "released"
            for the points of the released weights, which lean down and right and past the border.
        interaction: what the tokens go through before attention, unseen by the offset network;
            `nn.Identity()` where the block has it.

    Shape:
        input and output (B, H, W, C); any H, W >= 1.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        num_groups: int,
        kernel_size: int,
        stride: int,
        grid_size: int,
        offset_init: str,
        ref_points: str,
        interaction: nn.Module,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.place_keys = {"centred": centred_places, "released": released_places}[ref_points]
        self.q = Linear(dim, dim)
        self.k = Linear(dim, dim)
        self.v = Linear(dim, dim)
        self.proj = Linear(dim, dim)
        side = 2 * grid_size - 1
        self.relative_position_bias_table = nn.Parameter(torch.empty(num_heads, side, side))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.01)
        self.apply(init_weights)  # before these two, which come with weights of their own
        self.offsets = OffsetNetwork(
            dim, num_groups=num_groups, kernel_size=kernel_size, stride=stride, init=offset_init
        )
        self.interaction = interaction

    def forward(self, x: Tensor) -> Tensor:
        """Return each token's weighted sum over the points, projected."""
        query = self.q(x)
        points = self.points(query)
        enhanced = self.interaction(x)
        if enhanced is not x:  # nn.Identity() asks for no second query
            query = self.q(enhanced)
        sampled = sample(enhanced, points)
        bias = SampledBias(self.relative_position_bias_table, points, x.shape[1:3])
        return self.proj(self._attend(query, self.k(sampled), self.v(sampled), bias))

    def points(self, query: Tensor) -> Tensor:
        """Return where each group samples the map: (B, H, W, C) to (B, g, H_k, W_k, 2).

        A point is its row and its column, from -1 to 1; computed in float32 at least.
        """
        offsets = self.offsets(query)
        offsets = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
        row, column = (
            self.place_keys(count, side, offsets)
            for count, side in zip(offsets.shape[2:4], query.shape[1:3], strict=True)
        )
        reference = torch.stack(torch.meshgrid(row, column, indexing="ij"), dim=-1)
        return (reference + offsets).clamp(-1.0, 1.0)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: SampledBias) -> Tensor:
        """Attend to n points, some rows of the map after the others.

        Shape:
            query and output (B, H, W, C), key and value (B, n, C).
        """
        key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (key, value)
        )  # (B, h, n, C / h)
        key = key * self.scale
        step = rows_at_once(query, self.num_heads * key.shape[2])
        parts = []
        for first in range(0, query.shape[1], step):
            rows = query[:, first : first + step].unflatten(-1, (self.num_heads, -1))
            rows = rows.permute(0, 3, 4, 1, 2).flatten(3)  # (B, h, C / h, N)
            # By points, then queries: so the bias is added as it is read. In place, in the bias's
            # precision: no backward pass needs the logits without it.
            read = bias.read(first, first + step)
            logits = (key @ rows).to(read.dtype)
            logits.view(read.shape).add_(read)  # (B, h, n, N)
            shares = logits.softmax(dim=2).to(value.dtype)
            parts.append(shares.transpose(2, 3) @ value)
        return torch.cat(parts, dim=2).transpose(1, 2).reshape(query.shape)


def rows_at_once(query: Tensor, logits_each: int) -> int:
    """Return how many rows of a map (B, H, W, C) attend in one step, 1 to H.

    A traced model takes the steps of one image, whatever the batch, so that one trace serves
    batches of any size.

    Args:
        query: the map.
        logits_each: logits of one query.
    """
    if query.device.type != "cpu":
        return query.shape[1]
    batch = 1 if torch.compiler.is_compiling() else query.shape[0]
    in_row = batch * query.shape[2] * logits_each
    return min(max(CPU_STEP // in_row, 1), query.shape[1])


class OffsetNetwork(nn.Module):
    """Predict from the queries how far each point leaves its reference point.

    Source: DAT++. All groups share the weights.

    Args:
        dim: channels C of the queries.
        num_groups: groups g of channels, each with offsets of its own.
        kernel_size: side of the depthwise kernel, odd.
        stride: its stride r.
        init: "zero" for offsets that start at zero, or "default" for torch's initial weights.

    Shape:
        input (B, H, W, C), output (B, g, ceil(H / r), ceil(W / r), 2): down and across, in halves
        of the map.
    """

    def __init__(
        self, dim: int, *, num_groups: int, kernel_size: int, stride: int, init: str
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        width = dim // num_groups
        self.depthwise = nn.Conv2d(
            width, width, kernel_size, stride=stride, padding=kernel_size // 2, groups=width
        )
        self.norm = nn.LayerNorm(width)
        self.pointwise = Linear(width, 2, bias=False)
        if init == "zero":
            nn.init.zeros_(self.pointwise.weight)

    def forward(self, query: Tensor) -> Tensor:
        """Return the offsets of every group."""
        local = self.depthwise(by_group(query, self.num_groups)).permute(0, 2, 3, 1)
        offsets = self.pointwise(F.gelu(self.norm(local)))  # (B * g, H_k, W_k, 2)
        return offsets.unflatten(0, (-1, self.num_groups))


def by_group(x: Tensor, num_groups: int) -> Tensor:
    """Split the channels into maps of their own: (B, H, W, C) to (B * g, C / g, H, W)."""
    return x.unflatten(-1, (num_groups, -1)).permute(0, 3, 4, 1, 2).flatten(0, 1)


def sample(x: Tensor, points: Tensor) -> Tensor:
    """Read a map bilinearly at points: (B, H, W, C), (B, g, H_k, W_k, 2) to (B, H_k * W_k, C)."""
    maps = by_group(x, points.shape[1]).to(points.dtype)
    grid = points.flatten(0, 1).flip(-1)  # columns first, as torch wants it
    read = F.grid_sample(maps, grid, mode="bilinear", align_corners=True)  # (B * g, C / g, ...)
    return read.reshape(x.shape[0], x.shape[3], -1).transpose(1, 2).to(x.dtype)
