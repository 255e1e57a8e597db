"""DAT++ by the public formulas, one step after the other: what our faster forms are measured by.

Neighbours are gathered window by window, and the position bias is read with `grid_sample` for each
query and point, as the released code does (there with a compiled neighbourhood attention).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ulga_d2.layers.deformable_attention import DeformableAttention
from ulga_d2.layers.neighborhood_attention import NeighborhoodAttention


def plain_form(model: nn.Module) -> nn.Module:
    """Copy a DAT++ and let the copy attend by the plain formulas."""
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if isinstance(module, NeighborhoodAttention):
            module.forward = _bound(neighbourhood, module)
        elif isinstance(module, DeformableAttention):
            module.forward = _bound(deformable, module)
    return plain


def _bound(function: object, module: nn.Module) -> object:
    return lambda x: function(module, x)


def neighbourhood(module: NeighborhoodAttention, x: Tensor) -> Tensor:
    """Attend to a gathered copy of each token's window; maps of at least the window's side."""
    batch, height, width, dim = x.shape
    side, heads = module.window_size, module.num_heads
    query, key, value = (
        module.qkv(x).reshape(batch, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
    )
    rows, columns = (
        (torch.arange(length) - side // 2).clamp(0, length - side)[:, None] + torch.arange(side)
        for length in (height, width)
    )  # (H, side), (W, side)
    index = (rows[:, None, :, None] * width + columns[None, :, None, :]).reshape(-1)
    down = rows - torch.arange(height)[:, None] + side - 1
    across = columns - torch.arange(width)[:, None] + side - 1
    entry = (down[:, None, :, None] * (2 * side - 1) + across[None, :, None, :]).reshape(-1)
    bias = module.relative_position_bias_table.flatten(1)[:, entry]
    shape = (batch, heads, height * width, side * side, dim // heads)
    key, value = key[:, :, index].view(shape), value[:, :, index].view(shape)
    logits = (query * module.scale)[..., None, :] @ key.transpose(-2, -1)
    weights = (logits + bias.view(heads, -1, 1, side * side)).softmax(dim=-1)
    return module.proj((weights @ value).squeeze(3).transpose(1, 2).reshape(x.shape))


def deformable(module: DeformableAttention, x: Tensor) -> Tensor:
    """Attend to sampled points, with a bias read by `grid_sample` for each query and point."""
    batch, height, width, dim = x.shape
    heads = module.num_heads
    image = x.permute(0, 3, 1, 2)
    query = _as_convolution(module.q, image)
    points = module.points(query.permute(0, 2, 3, 1)).flatten(0, 1)  # (B * g, H_k, W_k, 2)
    groups = points.shape[0] // batch
    maps = image.reshape(batch * groups, dim // groups, height, width)
    sampled = F.grid_sample(maps, points.flip(-1), align_corners=True).reshape(batch, dim, 1, -1)
    query, key, value = (
        part.reshape(batch * heads, dim // heads, -1)
        for part in (
            query,
            _as_convolution(module.k, sampled),
            _as_convolution(module.v, sampled),
        )
    )
    logits = torch.einsum("bcm,bcn->bmn", query, key) * module.scale
    cells = torch.stack(
        torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"),
        dim=-1,
    )
    distance = (cells.view(1, -1, 1, 2) - points.reshape(batch * groups, 1, -1, 2)) / 2
    table = module.relative_position_bias_table.unflatten(0, (groups, -1)).repeat(batch, 1, 1, 1)
    bias = F.grid_sample(table, distance.flip(-1), align_corners=True)
    weights = (logits + bias.reshape(logits.shape)).softmax(dim=-1)
    out = torch.einsum("bmn,bcn->bcm", weights, value).reshape(batch, dim, height, width)
    return _as_convolution(module.proj, out).permute(0, 2, 3, 1)


def _as_convolution(linear: nn.Linear, image: Tensor) -> Tensor:
    return F.conv2d(image, linear.weight[:, :, None, None], linear.bias)
