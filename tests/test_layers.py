"""The common parts: shapes, odd maps, geometry."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.backbone.swin import SwinTransformerBlock
from torch import nn
from torch.nn import functional as F

from ulga_d2.layers import linear
from ulga_d2.layers.attention import WindowAttention
from ulga_d2.layers.block import Block, DropPath
from ulga_d2.layers.embed import PatchEmbed, PatchMerging
from ulga_d2.layers.mlp import Mlp
from ulga_d2.layers.neighborhood_attention import NeighborhoodAttention
from ulga_d2.layers.windows import window_geometry

MAPS = [(1, 1), (1, 7), (13, 29), (7, 14), (8, 6)]


@pytest.mark.parametrize("size", MAPS)
@pytest.mark.parametrize("shift_size", [0, 3])
def test_window_attention_keeps_the_shape_of_any_map(size, shift_size):
    attention = WindowAttention(8, num_heads=2, window_size=7, shift_size=shift_size)
    x = torch.randn(2, *size, 8)
    assert attention(x).shape == x.shape


@pytest.mark.parametrize("size", MAPS)
@pytest.mark.parametrize("shift_size", [0, 3])
def test_every_token_has_one_slot_and_every_slot_a_token_or_padding(size, shift_size):
    windows = window_geometry(*size, 7, shift_size, torch.device("cpu"))
    count = size[0] * size[1]
    assert torch.equal(windows.tokens[windows.slots], torch.arange(count))
    assert int((windows.tokens < count).sum()) == count
    assert windows.has_padding == (len(windows.tokens) > count)


def test_a_token_attends_to_nothing_beyond_its_region_of_a_shifted_window():
    attention = WindowAttention(8, num_heads=1, window_size=4, shift_size=2).double()
    x = torch.randn(1, 8, 8, 8, dtype=torch.double)
    changed = x.clone()
    changed[:, 7, 7] += 5.0  # the cyclic shift brings the corner into the window of (0, 0)
    difference = (attention(x) - attention(changed)).abs().amax(-1)[0]
    assert difference[7, 7] > 1e-3
    assert difference[:6].max() < 1e-12 and difference[:, :6].max() < 1e-12


@pytest.mark.parametrize("shift_size", [0, 3])
def test_block_equals_detectron2s_swin_block(shift_size):
    theirs = SwinTransformerBlock(16, num_heads=4, window_size=7, shift_size=shift_size)
    nn.init.normal_(theirs.attn.relative_position_bias_table)
    ours = Block(
        16,
        attn=WindowAttention(16, num_heads=4, window_size=7, shift_size=shift_size),
        mlp=Mlp(16, mlp_ratio=4.0),
        interaction=nn.Identity(),
        drop_path=0.0,
    )
    state = {k: v for k, v in theirs.state_dict().items() if "relative_position_index" not in k}
    ours.load_state_dict(state, strict=True)
    x = torch.randn(2, 14, 14, 16)
    theirs.H = theirs.W = 14
    windows = window_geometry(14, 14, 7, 3, torch.device("cpu"))
    expected = theirs(x.flatten(1, 2), windows.mask[:, 0]).view_as(x)
    assert torch.allclose(ours(x), expected, atol=1e-6)


def test_geometry_first_used_in_inference_mode_serves_a_later_training_step():
    attention = WindowAttention(8, num_heads=2, window_size=7, shift_size=3)
    x = torch.randn(1, 9, 15, 8)  # a size that no other test uses
    with torch.inference_mode():
        attention(x)
    attention(x).sum().backward()
    assert attention.qkv.weight.grad is not None


@pytest.mark.parametrize("size", [(9, 11), (10, 12)])
def test_geometry_first_used_in_an_export_serves_a_later_call(size):
    attentions = [
        WindowAttention(8, num_heads=2, window_size=7, shift_size=3),
        NeighborhoodAttention(8, num_heads=2, window_size=7),
    ]
    for attention in attentions:
        x = torch.randn(1, *size, 8)
        torch.export.export(attention, (x,), strict=False)
        assert type(attention(x)) is torch.Tensor


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    out = drop(torch.ones(20000, 2))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(out[:, 0], out[:, 1])
    assert out.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(drop.eval()(out), out)


@pytest.mark.parametrize(
    ("size", "tokens"), [((1, 1), (1, 1)), ((7, 30), (2, 8)), ((32, 4), (8, 1))]
)
def test_patch_embed_pads_to_whole_patches(size, tokens):
    embed = PatchEmbed(8, patch_size=4, in_channels=3, has_norm=True)
    assert embed(torch.randn(2, 3, *size)).shape == (2, *tokens, 8)


@pytest.mark.parametrize(("size", "merged"), [((1, 1), (1, 1)), ((5, 8), (3, 4))])
def test_patch_merging_halves_any_map_and_doubles_the_channels(size, merged):
    assert PatchMerging(8)(torch.randn(2, *size, 8)).shape == (2, *merged, 16)


@pytest.mark.parametrize("has_avx512", [False, True])
@pytest.mark.parametrize("dims", [(8, 24), (24, 8)])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (16, 16)])
def test_both_forms_of_a_linear_give_the_same_numbers_and_gradients(
    size, dims, has_avx512, monkeypatch
):
    monkeypatch.setattr(linear, "HAS_AVX512", has_avx512)
    layer = linear.Linear(*dims)
    x = torch.randn(2, *size, dims[0], requires_grad=True)
    expected = F.linear(x, layer.weight, layer.bias)
    with torch.no_grad():
        inference = layer(x)
    assert inference.is_contiguous()
    assert torch.allclose(inference, expected, atol=1e-6)
    found = layer(x)
    assert torch.allclose(found, expected, atol=1e-6)
    inputs, direction = [x, *layer.parameters()], torch.randn_like(expected)
    pair = (torch.autograd.grad(y, inputs, direction) for y in (found, expected))
    for one, other in zip(*pair, strict=True):
        assert torch.allclose(one, other, atol=1e-5, rtol=1e-5)
