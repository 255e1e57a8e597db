"""ACP, CAT and their fusion against their plain formulas, and what must hold of any interaction."""

from __future__ import annotations

import cv2
import matplotlib
import numpy as np
import pytest
import torch
from conftest import CONFIGS
from torch import Tensor, nn
from torch.nn import functional as F

from ulga_d2 import get_cfg
from ulga_d2.backbone.swin import SwinTransformer
from ulga_d2.config import merge_config
from ulga_d2.errors import UserError
from ulga_d2.interaction.acp import AggressiveConvPooling
from ulga_d2.interaction.build import build_interaction_layer
from ulga_d2.interaction.cat import ConceptualAttentionTransformation

VARIANTS = {
    "acp": ["acp"],
    "cat": ["cat"],
    "ulga": ["acp", "cat"],
    "depthwise": ["depthwise"],
    "fuse": ["fuse"],
}
MAPS = [(1, 1), (1, 7), (13, 29)]


def config(*opts: object):
    cfg = get_cfg()
    cfg.merge_from_list([str(o) if not isinstance(o, (list, bool)) else o for o in opts])
    return cfg


def build(names: list[str], dim: int = 12, *opts: object) -> nn.Module:
    torch.manual_seed(0)
    layer = build_interaction_layer(config("MODEL.ULGA.INTERACTIONS", names, *opts))
    return layer(dim, "stage3")


def randomised(module: nn.Module) -> nn.Module:
    """Give every parameter a random value in float64, so that no term of a formula is idle."""
    generator = torch.Generator().manual_seed(1)
    module.double()
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.double) * 0.3
    return module


# --- the plain formulas -------------------------------------------------------------------------


def plain_acp(acp: AggressiveConvPooling, x: Tensor) -> Tensor:
    y, total = x.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2)
    for conv, norm, gate in zip(acp.convs, acp.norms, acp.gates, strict=True):
        local = F.conv2d(y, conv.weight, conv.bias, padding=conv.padding, groups=y.shape[1])
        mean = local.mean(1, keepdim=True)
        variance = local.var(1, keepdim=True, unbiased=False)
        local = (local - mean) / torch.sqrt(variance + norm.eps)
        local = local * norm.weight[:, None, None] + norm.bias[:, None, None]
        y = F.max_pool2d(y + F.gelu(local), 3, stride=acp.pool_stride, padding=1)
        up = F.interpolate(y, size=x.shape[1:3], mode="bilinear", align_corners=False)
        total = total + gate[:, None, None] * up
    return total.permute(0, 2, 3, 1)


def plain_cat(cat: ConceptualAttentionTransformation, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return A (K x N), M (N x K) and G (N x d) of one map, each line as docs/method.md has it."""
    z = z.flatten(0, 1)
    zc = z - z.mean(0)
    a = (zc @ cat.concept_query.T).softmax(0).T
    t = (
        F.layer_norm(
            a @ (zc @ cat.pool_proj.weight.T) + cat.pool_proj.bias,
            (cat.concept_dim,),
            cat.norm.weight,
            cat.norm.bias,
        )
        + cat.concept_embed
    )
    q = zc @ cat.query.weight.T + cat.query.bias
    k = t @ cat.key.weight.T + cat.key.bias
    m = (q @ k.T / cat.concept_dim**0.5).softmax(1)
    return a, m, m @ (t @ cat.value.weight.T + cat.value.bias)


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("pool_stride", [1, 2])
def test_acp_equals_a_plain_loop_of_convolution_and_pooling(num_layers, kernel_size, pool_stride):
    acp = randomised(
        AggressiveConvPooling(
            6, num_layers=num_layers, kernel_size=kernel_size, pool_stride=pool_stride
        )
    )
    x = torch.randn(2, 11, 6, 6, dtype=torch.double)
    assert torch.allclose(acp(x), plain_acp(acp, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("concept_ratio", [1.0, 0.25])
def test_cat_equals_its_formula_in_float64(concept_ratio):
    cat = randomised(
        ConceptualAttentionTransformation(8, num_concepts=5, concept_ratio=concept_ratio)
    )
    z = torch.randn(2, 7, 9, 8, dtype=torch.double) + 3.0  # a shared mean, which is the trap
    concepts = cat(z)
    for image in range(2):
        a, m, g = plain_cat(cat, z[image])
        assert torch.allclose(concepts.forward_map[image], a, rtol=1e-10, atol=1e-12)
        assert torch.allclose(concepts.backward_map[image], m, rtol=1e-10, atol=1e-12)
        aligned = concepts.backward_map[image] @ concepts.values[image]
        assert torch.allclose(aligned, g, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("names", [["acp"], ["cat"], ["acp", "cat"], ["fuse"]])
def test_fusion_equals_one_linear_over_the_concatenation(names):
    module = randomised(build(names, 8))
    x = torch.randn(1, 6, 5, 8, dtype=torch.double)
    z = plain_acp(module.acp, x) if "acp" in names else x
    parts = [x]
    if names != ["cat"]:
        parts.append(z)
    if "cat" in names:
        parts.append(plain_cat(module.cat, z[0])[2].view(1, 6, 5, 8))
    expected = x + module.fuse(torch.cat(parts, dim=-1))
    assert torch.allclose(module(x), expected, rtol=1e-10, atol=1e-12)


def test_gated_sum_equals_its_formula():
    module = randomised(build(["acp", "cat"], 8, "MODEL.ULGA.FUSE.MODE", "sum"))
    x = torch.randn(1, 6, 5, 8, dtype=torch.double)
    z = plain_acp(module.acp, x)
    g = plain_cat(module.cat, z[0])[2].view_as(x)
    expected = x + module.acp_gate * (z - x) + module.cat_gate * g
    assert torch.allclose(module(x), expected, rtol=1e-10, atol=1e-12)


# --- what must hold of them ---------------------------------------------------------------------


def test_cat_is_equivariant_to_the_order_of_tokens():
    cat = randomised(ConceptualAttentionTransformation(8, num_concepts=4, concept_ratio=1.0))
    z = torch.randn(1, 6, 7, 8, dtype=torch.double)
    order = torch.randperm(42)
    shuffled = z.flatten(1, 2)[:, order].view_as(z)
    one, other = cat(z), cat(shuffled)
    assert torch.allclose(one.backward_map[:, order], other.backward_map, atol=1e-12)
    assert torch.allclose(one.values, other.values, atol=1e-12)


@pytest.mark.parametrize("names", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("size", MAPS)
def test_an_interaction_keeps_the_shape_and_moves_every_parameter(names, size):
    module = build(names)
    x = torch.randn(2, *size, 12, requires_grad=True)
    out = module(x)
    assert out.shape == x.shape
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # A single token is its own mean: after centring, CAT has nothing to look at.
        assert parameter.grad.abs().sum() > 0 or size == (1, 1), name


@pytest.mark.parametrize("names", VARIANTS.values(), ids=VARIANTS)
def test_bfloat16_autocast_is_finite_and_near_float32(names):
    module = build(names, 32)
    x = 4 * torch.randn(1, 16, 16, 32) + 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = module(x).float()
    assert torch.isfinite(low).all()
    assert F.cosine_similarity(low.flatten(), module(x).flatten(), dim=0) > 0.999


@pytest.mark.parametrize("names", VARIANTS.values(), ids=VARIANTS)
def test_zero_initialised_fusion_changes_nothing_to_the_last_bit(names):
    module = build(names, 12, "MODEL.ULGA.FUSE.ZERO_INIT", True)
    x = torch.randn(2, 9, 8, 12)
    assert torch.equal(module(x), x)


def test_an_interaction_holds_no_state_from_one_call_to_the_next():
    module = build(["acp", "cat"])
    x, other = torch.randn(1, 8, 8, 12), torch.randn(2, 5, 3, 12)
    before = module(x)
    module(other)
    assert torch.equal(module(x), before)


def test_stages_narrow_the_interaction_and_the_rest_is_the_identity():
    layer = build_interaction_layer(
        config("MODEL.ULGA.INTERACTIONS", ["acp"], "MODEL.ULGA.STAGES", ["stage4"])
    )
    assert isinstance(layer(8, "stage3"), nn.Identity)
    assert not isinstance(layer(8, "stage4"), nn.Identity)


@pytest.mark.parametrize(
    ("opts", "expected"),
    [
        (["MODEL.ULGA.INTERACTIONS", ["acp", "cat"]], 270_528),
        (
            ["MODEL.ULGA.INTERACTIONS", ["acp", "cat"], "MODEL.ULGA.CAT.CONCEPT_RATIO", 0.25],
            115_296,
        ),
    ],
)
def test_parameters_at_192_channels_are_as_the_formula_says(opts, expected):
    module = build_interaction_layer(config(*opts))(192, "stage3")
    assert sum(p.numel() for p in module.parameters()) == expected


def photograph(size: int) -> Tensor:
    """Return a real photograph that matplotlib ships, normalised: (1, 3, size, size)."""
    path = matplotlib.get_data_path() + "/sample_data/grace_hopper.jpg"
    pixels = cv2.resize(cv2.imread(path)[:, :, ::-1], (size, size), interpolation=cv2.INTER_AREA)
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float()
    return (image - 115.0) / 58.0


def concept_cosines(names: list[str]) -> list[float]:
    """Return the mean cosine between concept tokens in each block of a Swin at initialisation."""
    torch.manual_seed(0)
    cfg = config("MODEL.ULGA.INTERACTIONS", names)
    merge_config(cfg, f"{CONFIGS}/brain_tumor_swin_ulga_nano.yaml", [])
    cfg.MODEL.ULGA.INTERACTIONS = names
    model = SwinTransformer(cfg)
    found = []
    for module in model.modules():
        if isinstance(module, ConceptualAttentionTransformation):
            module.register_forward_hook(lambda _m, _i, out: found.append(_mean_cosine(out.tokens)))
    model(photograph(256))
    return found


def _mean_cosine(tokens: Tensor) -> float:
    unit = F.normalize(tokens[0], dim=-1)
    off_diagonal = ~torch.eye(len(unit), dtype=torch.bool)
    return (unit @ unit.T)[off_diagonal].mean().item()


@pytest.mark.parametrize("names", [["cat"], ["acp", "cat"]])
def test_concept_tokens_do_not_collapse_at_initialisation_on_a_real_image(names):
    cosines = concept_cosines(names)
    assert len(cosines) == 8
    assert max(cosines) < 0.2


# --- what a user reads --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["INTERACTIONS", ["apc"]], r"INTERACTIONS has the unknown name 'apc'; .* mean acp\?"),
        (["INTERACTIONS", ["acp", "fuse"]], r"a control \(depthwise, fuse\) stands alone"),
        (["INTERACTIONS", ["acp", "acp"]], r"name each once"),
        (["STAGES", ["stage1"]], r"STAGES has the unknown name 'stage1'; known are stage2"),
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
    prefixed = [f"MODEL.ULGA.{o}" if i % 2 == 0 else o for i, o in enumerate(opts)]
    with pytest.raises(UserError, match=message):
        build_interaction_layer(config(*prefixed))
