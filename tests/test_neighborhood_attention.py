"""Neighbourhood attention in tiles: the numbers of a dense masked attention, on any map."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ulga_d2.layers.neighborhood_attention import NeighborhoodAttention, tile_geometry

# Fewer cells than the window, as many, whole tiles, ragged tiles, long and thin.
MAPS = [(1, 1), (1, 7), (3, 10), (7, 7), (8, 16), (9, 9), (15, 17), (13, 29), (6, 25)]


def attention(window_size: int, dim: int = 8) -> NeighborhoodAttention:
    torch.manual_seed(0)
    module = NeighborhoodAttention(dim, num_heads=2, window_size=window_size)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def line(length: int, window_size: int) -> tuple[Tensor, Tensor]:
    """Return how far each cell of a line is from each other, and whether it is in its window."""
    place = torch.arange(length)
    first = (place - window_size // 2).clamp(0, length - window_size)[:, None]
    near = (place[None] >= first) & (place[None] < first + window_size)
    assert (near.sum(1) == window_size).all()
    return place[None] - place[:, None], near


def by_definition(module: NeighborhoodAttention, x: Tensor) -> Tensor:
    """Attend over all pairs of cells, those outside the window masked."""
    height, width = x.shape[1:3]
    size = module.window_size
    x = F.pad(x, (0, 0, 0, max(0, size - width), 0, max(0, size - height)))
    (down, near_rows), (across, near_columns) = (line(side, size) for side in x.shape[1:3])
    near = near_rows[:, None, :, None] & near_columns[:, None]  # (H, W, H, W)
    table = F.pad(module.relative_position_bias_table, [max(x.shape[1:3])] * 4)
    centre = table.shape[1] // 2
    bias = table[:, centre + down[:, None, :, None], centre + across[:, None]]
    query, key, value = module.qkv(x).unflatten(-1, (3, module.num_heads, -1)).unbind(3)
    logits = torch.einsum("bijhc,bklhc->bhijkl", query, key) * module.scale + bias
    logits = logits.masked_fill(~near, -torch.inf)
    weights = logits.flatten(4).softmax(-1).view_as(logits)
    out = torch.einsum("bhijkl,bklhc->bijhc", weights, value).flatten(3)
    return module.proj(out)[:, :height, :width]


@pytest.mark.parametrize("size", MAPS)
@pytest.mark.parametrize("window_size", [3, 7])
def test_outputs_and_gradients_equal_the_dense_masked_attention(window_size, size):
    module = attention(window_size)
    x = torch.randn(2, *size, 8, requires_grad=True)
    found, expected = module(x), by_definition(module, x)
    assert found.shape == x.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    names, parameters = zip(*module.named_parameters(), strict=True)
    direction = torch.randn_like(found)
    pair = (torch.autograd.grad(y, [x, *parameters], direction) for y in (found, expected))
    for name, one, other in zip(["x", *names], *pair, strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max(), name


def test_a_window_wider_than_a_tile_is_dense_attention_too():
    module = attention(11)
    x = torch.randn(1, 23, 14, 8)
    assert torch.allclose(module(x), by_definition(module, x), rtol=1e-5, atol=1e-5)


def test_a_window_as_large_as_the_map_is_global_attention():
    module = attention(7).double()
    nn.init.zeros_(module.relative_position_bias_table)
    x = torch.randn(1, 7, 7, 8, dtype=torch.double)
    query, key, value = module.qkv(x).flatten(1, 2).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(x.shape)
    assert torch.allclose(module(x), module.proj(out))


def test_the_padding_of_a_small_map_is_a_key_of_zero_tokens():
    """With equal logits, each of 49 keys gives its share; the padding's value is the bias."""
    module = attention(7)
    with torch.no_grad():
        module.qkv.weight[:16].zero_()  # queries and keys
        module.qkv.bias[:16].zero_()
        module.relative_position_bias_table.zero_()
        x = torch.randn(1, 2, 3, 8)
        real = x @ module.qkv.weight[16:].t()
        expected = module.proj(real.sum((1, 2)) / 49 + module.qkv.bias[16:])
        assert torch.allclose(module(x), expected[:, None, None].expand_as(x), atol=1e-6)


@pytest.mark.parametrize("size", [(7, 7), (9, 9), (10, 41), (57, 64)])
def test_every_place_of_a_tile_has_49_keys_and_every_token_one_place(size):
    tiles = tile_geometry(*size, 7, torch.device("cpu"))
    assert ((tiles.mask == 0).sum(-1) == 49).all()
    number = torch.arange(size[0] * size[1]).view(1, 1, *size, 1)
    assert torch.equal(tiles.join(tiles.cut(number)), number)


def test_geometry_first_used_in_inference_mode_serves_a_later_training_step():
    module = attention(7)
    x = torch.randn(1, 9, 17, 8)  # a size that no other test uses
    with torch.inference_mode():
        module(x)
    module(x).sum().backward()
    assert module.qkv.weight.grad is not None
