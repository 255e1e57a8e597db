"""ACP, CAT and their fusion against their plain formulas, and what must hold of any interaction."""

from __future__ import annotations

import pytest
import torch
from plain_interaction import build, config, plain_acp, plain_cat, randomised, with_length_of
from torch import nn
from torch.nn import functional as F

from ulga_d2.errors import UserError
from ulga_d2.interaction.acp import AggressiveConvPooling
from ulga_d2.interaction.build import build_interaction_layer
from ulga_d2.interaction.cat import ConceptualAttentionTransformation

VARIANTS = {
    "acp": (["acp"],),
    "cat": (["cat"],),
    "ulga": (["acp", "cat"],),
    "lite": (["acp", "cat"], "CAT.CONCEPT_RATIO", 0.25),
    "sum": (["acp", "cat"], "FUSE.MODE", "sum"),
    "depthwise": (["depthwise"],),
    "fuse": (["fuse"],),
}
MAPS = [(1, 1), (1, 7), (13, 29)]


def variant(name: str, dim: int = 12, *opts: object) -> nn.Module:
    names, *own_opts = VARIANTS[name]
    return build(names, dim, *own_opts, *opts)


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


# --- the plain formulas, in float64 -------------------------------------------------------------


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("pool_stride", [1, 2])
def test_acp_equals_a_plain_loop_of_convolution_and_pooling(num_layers, kernel_size, pool_stride):
    acp = AggressiveConvPooling(
        6, num_layers=num_layers, kernel_size=kernel_size, pool_stride=pool_stride
    )
    acp = randomised(acp)
    x = torch.randn(2, 11, 6, 6, dtype=torch.double)
    assert close(acp(x), plain_acp(acp, x))


@pytest.mark.parametrize(("num_layers", "reach"), [(1, 5), (2, 13), (3, 29), (4, 61)])
def test_a_pooled_token_of_acp_sees_the_neighbourhood_that_the_text_says(num_layers, reach):
    acp = AggressiveConvPooling(2, num_layers=num_layers, kernel_size=3, pool_stride=2)
    acp = randomised(acp)
    acp._pool = lambda y: F.avg_pool2d(  # as wide as max-pooling, but every token counts
        y.permute(0, 3, 1, 2), 3, stride=2, padding=1
    ).permute(0, 2, 3, 1)
    x = torch.randn(1, 96, 1, 2, dtype=torch.double, requires_grad=True)
    y = x
    for conv, norm in zip(acp.convs, acp.norms, strict=True):
        y = acp._pool(y + F.gelu(norm(conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))))
    y[0, y.shape[1] // 2].sum().backward()
    assert int((x.grad.abs().sum(-1) > 0).sum()) == reach


@pytest.mark.parametrize("concept_ratio", [1.0, 0.25])
def test_cat_equals_its_formula(concept_ratio):
    cat = randomised(
        ConceptualAttentionTransformation(8, num_concepts=5, concept_ratio=concept_ratio)
    )
    z = torch.randn(2, 7, 9, 8, dtype=torch.double) + 3.0  # a shared mean, which is the trap
    concepts = cat(z)
    for image in range(2):
        a, t, m, g = plain_cat(cat, z[image])
        assert close(concepts.forward_map[image], a)
        assert close(concepts.tokens[image], t)
        assert close(concepts.backward_map[image], m)
        assert close(concepts.backward_map[image] @ concepts.values[image], g)


@pytest.mark.parametrize("name", ["acp", "cat", "ulga", "lite", "fuse"])
def test_fusion_equals_one_linear_over_the_concatenation(name):
    module = randomised(variant(name, 8))
    x = torch.randn(1, 6, 5, 8, dtype=torch.double)
    z = x if module.acp is None else plain_acp(module.acp, x)
    parts = [x] if name == "cat" else [x, z]
    if module.cat is not None:
        parts.append(plain_cat(module.cat, z[0])[-1].view(1, 6, 5, -1))
    fused = x + module.fuse(torch.cat(parts, dim=-1))
    assert close(module(x), with_length_of(x, fused))


def test_gated_sum_equals_its_formula():
    module = randomised(variant("sum", 8))
    x = torch.randn(1, 6, 5, 8, dtype=torch.double)
    z = plain_acp(module.acp, x)
    g = plain_cat(module.cat, z[0])[-1].view_as(x)
    fused = x + module.acp_gate * (z - x) + module.cat_gate * g
    assert close(module(x), with_length_of(x, fused))


def test_depthwise_control_equals_its_two_convolutions():
    module = randomised(variant("depthwise", 8))
    x = torch.randn(2, 6, 5, 8, dtype=torch.double)
    local = F.conv2d(
        x.permute(0, 3, 1, 2), module.depthwise.weight, module.depthwise.bias, padding=1, groups=8
    )
    mixed = F.conv2d(local, module.pointwise.weight[:, :, None, None], module.pointwise.bias)
    assert close(module(x), x + mixed.permute(0, 2, 3, 1))


# --- what must hold of them ---------------------------------------------------------------------


def test_cat_is_equivariant_to_the_order_of_tokens():
    cat = randomised(ConceptualAttentionTransformation(8, num_concepts=4, concept_ratio=1.0))
    z = torch.randn(1, 6, 7, 8, dtype=torch.double)
    order = torch.randperm(42)
    shuffled = z.flatten(1, 2)[:, order].view_as(z)
    one, other = cat(z), cat(shuffled)
    assert close(one.forward_map[..., order], other.forward_map)
    assert close(one.backward_map[:, order], other.backward_map)
    assert close(one.values, other.values)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("size", MAPS)
def test_an_interaction_keeps_the_shape_and_moves_every_parameter(name, size):
    module = variant(name)
    x = torch.randn(2, *size, 12, requires_grad=True)
    out = module(x)
    assert out.shape == x.shape
    (out * torch.randn_like(out)).sum().backward()
    for parameter_name, parameter in module.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        # A single token is its own mean: after centring, CAT has nothing to look at.
        assert parameter.grad.abs().sum() > 0 or size == (1, 1), parameter_name


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_autocast_is_finite_and_near_float32(name, dtype):
    module = variant(name, 32)
    x = (4 * torch.randn(1, 16, 16, 32) + 8).to(dtype)  # a shared mean, which centring removes
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = module(x)
    low.float().square().sum().backward()
    assert torch.isfinite(low).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())
    assert F.cosine_similarity(low.float().flatten(), module(x.float()).flatten(), dim=0) > 0.999


def test_concept_maps_are_made_in_float32_under_autocast():
    cat = ConceptualAttentionTransformation(8, num_concepts=4, concept_ratio=1.0)
    seen = []
    softmax = torch.Tensor.softmax

    def spy(logits: torch.Tensor, **options: object) -> torch.Tensor:
        out = softmax(logits, **options)
        seen.append(out.dtype)
        return out

    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", dtype=torch.bfloat16):
        patch.setattr(torch.Tensor, "softmax", spy)
        concepts = cat(torch.randn(1, 64, 64, 8))
    assert seen == [torch.float32, torch.float32]
    assert concepts.forward_map.float().sum(-1).sub(1).abs().max() < 1e-2


@pytest.mark.parametrize("name", ["acp", "cat", "ulga", "sum", "fuse"])
def test_an_interaction_turns_tokens_and_keeps_their_length(name):
    module = randomised(variant(name))
    x = torch.randn(2, 6, 5, 12, dtype=torch.double)
    x[0, 0, 0] = 0
    y = module(x)
    assert close(y.norm(dim=-1), x.norm(dim=-1))
    assert F.cosine_similarity(x, y, dim=-1).mean() < 0.99


@pytest.mark.parametrize("name", VARIANTS)
def test_zero_initialised_fusion_changes_nothing_to_the_last_bit(name):
    module = variant(name, 12, "FUSE.ZERO_INIT", True)
    x = torch.randn(2, 9, 8, 12)
    assert torch.equal(module(x), x)


def test_an_interaction_holds_no_state_from_one_call_to_the_next():
    module = variant("ulga")
    x, other = torch.randn(1, 8, 8, 12), torch.randn(2, 5, 3, 12)
    before, state = module(x), {key: value.clone() for key, value in module.state_dict().items()}
    module(other)
    assert torch.equal(module(x), before)
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("name", ["cat", "ulga", "sum"])
def test_parts_give_the_maps_for_figures(name):
    module = variant(name)
    x = torch.randn(2, 5, 6, 12)
    z, concepts = module.parts(x)
    assert z.shape == x.shape
    assert concepts.forward_map.shape == (2, 16, 30)
    assert concepts.backward_map.shape == (2, 30, 16)
    assert torch.allclose(concepts.forward_map.sum(-1), torch.ones(2, 16))
    assert torch.allclose(concepts.backward_map.sum(-1), torch.ones(2, 30))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ulga", 270_528), ("lite", 115_296), ("fuse", 73_920), ("depthwise", 38_976)],
)
def test_parameters_at_192_channels_are_as_the_formula_says(name, expected):
    assert sum(p.numel() for p in variant(name, 192).parameters()) == expected


# --- what a user chooses and reads --------------------------------------------------------------


def test_stages_narrow_the_interaction_and_the_rest_is_the_identity():
    layer = build_interaction_layer(config("INTERACTIONS", ["acp"], "STAGES", ["stage4"]))
    assert isinstance(layer(8, "stage3"), nn.Identity)
    assert not isinstance(layer(8, "stage4"), nn.Identity)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["INTERACTIONS", ["apc"]], r"INTERACTIONS has the unknown name 'apc'; .* mean acp\?"),
        (["INTERACTIONS", ["acp", "fuse"]], r"a control \(depthwise, fuse\) stands alone"),
        (["INTERACTIONS", ["acp", "acp"]], r"name each once"),
        (["STAGES", ["stage1"]], r"STAGES has the unknown name 'stage1'; known are stage2"),
        (["INTERACTIONS", ["acp"], "STAGES", []], r"STAGES is \[\]; give a stage"),
        (["ACP.NUM_LAYERS", 5], r"ACP\.NUM_LAYERS is 5; give 1 to 4"),
        (["ACP.KERNEL_SIZE", 4], r"ACP\.KERNEL_SIZE is 4; give an odd number"),
        (["ACP.POOL_STRIDE", 3], r"ACP\.POOL_STRIDE is 3; give 1 or 2"),
        (["CAT.NUM_CONCEPTS", 0], r"CAT\.NUM_CONCEPTS is 0; give 1 or more"),
        (["CAT.CONCEPT_RATIO", 2.0], r"CAT\.CONCEPT_RATIO is 2\.0; give more than 0"),
        (["FUSE.MODE", "add"], r"FUSE\.MODE is 'add'; give 'concat' or 'sum'"),
        (
            ["INTERACTIONS", ["cat"], "FUSE.MODE", "sum", "CAT.CONCEPT_RATIO", 0.5],
            r"CONCEPT_RATIO is 0\.5; give 1\.0 with FUSE\.MODE 'sum'",
        ),
        (["INTERACTIONS", ["fuse"], "FUSE.MODE", "sum"], r"'concat' with INTERACTIONS \['fuse'\]"),
    ],
)
def test_an_impossible_interaction_is_refused_with_the_valid_values(opts, message):
    with pytest.raises(UserError, match=message):
        build_interaction_layer(config(*opts))
