"""DAT++: of the published size, finite on any image, with offsets from plain or enhanced tokens."""

from __future__ import annotations

import pytest
import torch
from conftest import CONFIGS
from detectron2.modeling import BACKBONE_REGISTRY
from torch import nn
from torch.nn import functional as F

from ulga_d2 import get_cfg
from ulga_d2.backbone.dat import DAT
from ulga_d2.config import merge_config
from ulga_d2.errors import UserError
from ulga_d2.layers.deformable_attention import DeformableAttention
from ulga_d2.layers.embed import ConvDownsample, ConvStem
from ulga_d2.layers.local_perception import LocalPerception
from ulga_d2.layers.mlp import ConvMlp
from ulga_d2.layers.neighborhood_attention import NeighborhoodAttention

ALL_STAGES = ["stage2", "stage3", "stage4", "stage5"]
SMALL = {
    "embed_dim": 16, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4], "num_groups": [1, 1, 2, 2],
    "window_size": 7, "offset_kernel": [9, 7, 5, 3], "offset_stride": [8, 4, 2, 1],
    "grid_size": 8, "mlp_ratio": 2.0, "drop_path_rate": 0.0,
}  # fmt: skip


def small_dat(**changes: object) -> DAT:
    arguments = {
        **SMALL, "offset_init": "default", "ref_points": "released", "offset_input": "enhanced",
        "interaction_layer": lambda _dim, _stage: nn.Identity(), "out_features": ALL_STAGES,
        "gradient_checkpointing": False,
    }  # fmt: skip
    torch.manual_seed(0)
    return DAT(**{**arguments, **changes})


def nano(names: list[str], *opts: str) -> nn.Module:
    cfg = get_cfg()
    merge_config(cfg, str(CONFIGS / "brain_tumor_dat_baseline_nano.yaml"), list(opts))
    cfg.MODEL.ULGA.INTERACTIONS = names
    torch.manual_seed(0)
    return BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg, None)


# In millions: published for T, S and B, of formula for the others; the backbone, and what ACP and
# CAT add to it with concepts of C and of C / 4.
PARAMETERS = {
    "dat_nano": (3.41, 1.77, 0.76),
    "dat_micro": (7.56, 3.92, 1.66),
    "dat_mini": (13.34, 6.90, 2.90),
    "dat": (23.45, 12.85, 5.41),
    "dat_s": (52.36, 28.61, 11.96),
    "dat_b": (92.66, 50.59, 21.05),
}
AS_CLASSIFIER = {"dat": 23.96, "dat_s": 53.13, "dat_b": 93.69}


def count(size: str, names: list[str], concept_ratio: float = 1.0) -> float:
    """Count the parameters before the output norms, which a classifier does not have."""
    cfg = get_cfg()
    merge_config(cfg, str(CONFIGS / "_base_" / f"{size}.yaml"), [])
    cfg.MODEL.FPN.IN_FEATURES = ALL_STAGES[1:]
    cfg.MODEL.ULGA.INTERACTIONS = names
    cfg.MODEL.ULGA.CAT.CONCEPT_RATIO = concept_ratio
    with torch.device("meta"):
        model = DAT(cfg)
    return sum(p.numel() for n, p in model.named_parameters() if not n.startswith("norms")) / 1e6


@pytest.mark.parametrize("size", PARAMETERS)
def test_dat_variants_have_the_published_number_of_parameters(size):
    plain, full, lite = PARAMETERS[size]
    baseline = count(size, [])
    assert baseline == pytest.approx(plain, abs=0.006)
    added = [count(size, ["acp", "cat"], ratio) - baseline for ratio in (1.0, 0.25)]
    assert added == pytest.approx([full, lite], abs=0.006)
    if size in AS_CLASSIFIER:
        width = {"dat": 512, "dat_s": 768, "dat_b": 1024}[size]
        norm_and_head = (2 * width + 1000 * width + 1000) / 1e6
        assert baseline + norm_and_head == pytest.approx(AS_CLASSIFIER[size], abs=0.006)


def test_neighbourhood_and_points_take_turns_and_the_last_stage_has_points_alone():
    near, far = NeighborhoodAttention, DeformableAttention
    for name, stage in small_dat().stages.items():
        assert all(isinstance(module, LocalPerception) for module in stage[::2])
        kinds = [type(block.attn) for block in stage[1::2]]
        assert kinds == ([far, far] if name == "stage5" else [near, far])


@pytest.mark.parametrize("names", [[], ["acp", "cat"]], ids=["baseline", "ulga"])
def test_every_parameter_of_nano_learns_once_the_offsets_have_left_zero(names):
    opts = ("MODEL.ULGA.DAT.OFFSET_INIT", "default", "MODEL.ULGA.DAT.DROP_PATH_RATE", "0.0")
    model = nano(names, *opts).train()
    features = model(torch.randn(1, 3, 64, 96))
    sum((value * torch.randn_like(value)).sum() for value in features.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (33, 70), (8, 200), (96, 64)])
@pytest.mark.parametrize("ref_points", ["centred", "released"])
def test_images_of_any_size_give_finite_maps_and_gradients(size, ref_points):
    """At 32 x 32 pixels, where the last map has one cell, the released code gives NaN."""
    model = small_dat(ref_points=ref_points)
    features = model(torch.randn(2, 3, *size))
    for name, value in features.items():
        stride = 2 ** int(name[-1])
        assert value.shape[2:] == tuple(-(-side // stride) for side in size)
        assert value.isfinite().all()
    sum(value.square().sum() for value in features.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_geometry_filled_in_inference_mode_serves_a_later_training_step():
    model = small_dat()
    image = torch.randn(1, 3, 76, 44)  # a size that no other test uses
    with torch.inference_mode():
        model(image)
    sum(value.square().sum() for value in model(image).values()).backward()
    assert model.stem.conv1.weight.grad.abs().sum() > 0


class Shift(nn.Module):
    """An interaction that is easy to see: it adds a number to all tokens, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + 3.0


@pytest.mark.parametrize("offset_input", ["plain", "enhanced"])
def test_offset_networks_see_plain_or_enhanced_tokens(offset_input):
    model = small_dat(offset_input=offset_input, interaction_layer=lambda _dim, _stage: Shift())
    model.eval()
    for name, stage in model.stages.items():
        seen = []
        block = stage[3]
        block.attn.offsets.register_forward_pre_hook(lambda _, args, s=seen: s.append(args[0]))
        block.norm1.register_forward_hook(lambda _, args, out, s=seen: s.append(out))
        with torch.no_grad():
            block(torch.randn(1, 9, 5, block.norm1.normalized_shape[0]))
            normed, query = seen
            expected = block.attn.q(normed + 3.0 * (offset_input == "enhanced"))
        assert torch.equal(query, expected), name
        inside, outside = block.attn.interaction, block.interaction
        shift = inside if offset_input == "plain" else outside
        assert isinstance(shift, Shift) and shift.calls == 1
        assert isinstance(outside if offset_input == "plain" else inside, nn.Identity)


def test_plain_offset_input_keeps_the_baselines_keys_and_builds_from_the_config():
    plain = nano(["acp", "cat"], "MODEL.ULGA.DAT.OFFSET_INPUT", "plain")
    keys = set(plain.state_dict())
    assert set(nano([]).state_dict()) <= keys
    blocks = {key.split(".attn.interaction.")[0] for key in keys if ".attn.interaction." in key}
    assert len(blocks) == 1 + 1 + 3 + 2  # the blocks of nano that attend to points


def test_the_small_parts_follow_their_formulas():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 6, 8)
    maps = x.permute(0, 3, 1, 2)
    unit, mlp, down = LocalPerception(8), ConvMlp(8, mlp_ratio=2.0), ConvDownsample(8)
    conv = unit.depthwise
    local = maps + F.conv2d(maps, conv.weight, conv.bias, padding=1, groups=8)
    assert torch.allclose(unit(x), local.permute(0, 2, 3, 1), atol=1e-6)
    hidden = mlp.fc1(x).permute(0, 3, 1, 2)
    conv = mlp.local.depthwise
    hidden = hidden + F.conv2d(hidden, conv.weight, conv.bias, padding=1, groups=16)
    assert torch.allclose(mlp(x), mlp.fc2(F.gelu(hidden).permute(0, 2, 3, 1)), atol=1e-6)
    fewer = F.conv2d(maps, down.conv.weight, stride=2, padding=1).permute(0, 2, 3, 1)
    assert down.conv.bias is None
    assert torch.allclose(down(x), down.norm(fewer), atol=1e-5)
    stem = ConvStem(8, in_channels=3)
    assert stem(torch.randn(1, 3, 33, 2)).shape == (1, 9, 1, 8)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("DEPTHS", "[2,2]", r"DAT\.DEPTHS is \[2, 2\]; give four numbers"),
        ("EMBED_DIM", "33", r"DAT\.EMBED_DIM is 33; give an even number"),
        ("NUM_HEADS", "[1,2,4,7]", r"NUM_HEADS\[3\] is 7, .* divide the 256 channels .* is 8"),
        (
            "NUM_GROUPS",
            "[1,1,3,4]",
            r"NUM_GROUPS\[2\] is 3; give a divisor of NUM_HEADS\[2\] \(4\)",
        ),
        ("WINDOW_SIZE", "6", r"DAT\.WINDOW_SIZE is 6; give an odd number, 3 or more"),
        (
            "OFFSET_KERNEL",
            "[9,6,5,3]",
            r"OFFSET_KERNEL\[1\] is 6; give an odd number above .*\(4\)",
        ),
        (
            "OFFSET_STRIDE",
            "[9,4,2,1]",
            r"OFFSET_KERNEL\[0\] is 9; .* above OFFSET_STRIDE\[0\] \(9\)",
        ),
        ("GRID_SIZE", "4", r"DAT\.GRID_SIZE is 4; give 8 or more"),
        ("OFFSET_INIT", "zeros", r"OFFSET_INIT is zeros; give zero or default"),
        ("REF_POINTS", "center", r"REF_POINTS is center; give centred or released"),
        ("OFFSET_INPUT", "x", r"OFFSET_INPUT is x; give enhanced or plain"),
        ("MLP_RATIO", "0.0", r"DAT\.MLP_RATIO is 0\.0; give more"),
    ],
)
def test_an_impossible_dat_is_refused_with_the_key(key, value, message):
    with pytest.raises(UserError, match=message):
        nano([], f"MODEL.ULGA.DAT.{key}", value)
