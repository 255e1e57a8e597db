"""Swin: equal to detectron2's with its weights, of the published size, with a matched control."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import CONFIGS
from detectron2.modeling.backbone.swin import SwinTransformer as Detectron2Swin
from timm.models.swin_transformer import SwinTransformer as TimmSwin
from torch import nn

from ulga_d2 import get_cfg
from ulga_d2.backbone.swin import SwinTransformer
from ulga_d2.config import merge_config

ALL_STAGES = ["stage2", "stage3", "stage4", "stage5"]
SWIN_T = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
SMALL = {"embed_dim": 16, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4], "window_size": 4}


def plain_swin(**sizes: object) -> SwinTransformer:
    return SwinTransformer(
        **sizes,
        mlp_ratio=4.0,
        drop_path_rate=0.0,
        interaction_layer=lambda _dim, _stage: nn.Identity(),
        out_features=ALL_STAGES,
        gradient_checkpointing=False,
    )


def our_name(name: str) -> str:
    """Return our name of a weight of detectron2's Swin."""
    name = name.replace("patch_embed.", "stem.")
    name = re.sub(r"^norm(\d)", lambda m: f"norms.stage{int(m[1]) + 2}", name)
    name = re.sub(r"^layers\.(\d)\.blocks", lambda m: f"stages.stage{int(m[1]) + 2}", name)
    return re.sub(r"^layers\.(\d)\.downsample", lambda m: f"downsamples.stage{int(m[1]) + 3}", name)


def pair(sizes: dict[str, object]) -> tuple[nn.Module, nn.Module]:
    """Return detectron2's Swin, every parameter of it random, and ours with the same weights."""
    torch.manual_seed(0)
    theirs = Detectron2Swin(**sizes, drop_path_rate=0.0, out_indices=(0, 1, 2, 3))
    for name, parameter in theirs.named_parameters():
        if parameter.ndim == 1 or "bias_table" in name:
            nn.init.normal_(parameter, std=0.3)
    ours = plain_swin(**sizes)
    state = {
        our_name(name): value
        for name, value in theirs.state_dict().items()
        if "relative_position_index" not in name
    }
    ours.load_state_dict(state, strict=True)
    return theirs, ours


@pytest.fixture(scope="module")
def swin_t_pair() -> tuple[nn.Module, nn.Module]:
    return pair(SWIN_T)


@pytest.mark.parametrize("shape", [(1, 224, 224), (2, 97, 131), (1, 200, 333), (1, 33, 65)])
def test_swin_t_equals_detectron2s_with_its_weights(swin_t_pair, shape):
    theirs, ours = swin_t_pair
    batch, height, width = shape
    image = torch.randn(batch, 3, height, width)
    with torch.no_grad():
        expected, found = theirs(image), ours(image)
    for stage in range(4):
        reference = expected[f"p{stage}"]
        difference = (found[f"stage{stage + 2}"] - reference).abs().max()
        assert difference <= 1e-5 * reference.abs().max()


def timms_name(name: str) -> str:
    """Return our name of a weight of timm's Swin, which halves the map where a stage begins."""
    name = name.replace("patch_embed.", "stem.")
    name = re.sub(r"^layers\.(\d)\.blocks", lambda m: f"stages.stage{int(m[1]) + 2}", name)
    return re.sub(r"^layers\.(\d)\.downsample", lambda m: f"downsamples.stage{int(m[1]) + 2}", name)


def test_swin_t_equals_timms_with_its_weights():
    """At 448 pixels, since timm shifts no window that spans its whole map."""
    torch.manual_seed(0)
    theirs = TimmSwin(img_size=448, num_classes=0, drop_path_rate=0.0).eval()
    for name, parameter in theirs.named_parameters():
        if parameter.ndim == 1 or "bias_table" in name:
            nn.init.normal_(parameter, std=0.3)
    ours = plain_swin(**SWIN_T).eval()
    state = {timms_name(name): value for name, value in theirs.named_parameters()}
    state["norms.stage5.weight"], state["norms.stage5.bias"] = (
        state.pop("norm.weight"),
        state.pop("norm.bias"),
    )
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected and all(name.startswith("norms.stage") for name in missing)
    image = torch.randn(1, 3, 448, 448)
    with torch.no_grad():
        expected = theirs.forward_features(image).permute(0, 3, 1, 2)
        difference = (ours(image)["stage5"] - expected).abs().max()
    assert difference <= 1e-5 * expected.abs().max()


def test_swins_gradients_equal_detectron2s():
    theirs, ours = (model.double() for model in pair(SMALL))
    image = torch.randn(2, 3, 97, 131, dtype=torch.double)
    for stage, (expected, found) in enumerate(
        zip(theirs(image).values(), ours(image).values(), strict=True)
    ):
        direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(stage))
        (expected * direction).sum().backward(retain_graph=True)
        (found * direction).sum().backward(retain_graph=True)
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        difference = (gradients[our_name(name)] - parameter.grad).abs().max()
        assert difference <= 1e-9 * parameter.grad.abs().max(), name


# The baseline, and what ACP and CAT add to it with concepts of d = C and of d = C / 4.
PARAMETERS = {
    "swin_nano": (2_282_926, 1_280_960, 547_040),
    "swin_micro": (6_012_396, 3_376_416, 1_426_512),
    "swin_mini": (12_252_284, 6_900_608, 2_898_368),
    "swin": (27_520_698, 15_382_848, 6_414_240),
    "swin_s": (48_838_602, 28_068_672, 11_724_960),
    "swin_b": (86_745_016, 49_639_168, 20_649_856),
}


def count(size: str, names: list[str], concept_ratio: float = 1.0, mlp_ratio: float = 4.0) -> int:
    """Count the parameters of a Swin with a norm on all four outputs, as published counts have."""
    cfg = get_cfg()
    merge_config(cfg, str(CONFIGS / "_base_" / f"{size}.yaml"), [])
    cfg.MODEL.FPN.IN_FEATURES = ALL_STAGES
    cfg.MODEL.ULGA.INTERACTIONS = names
    cfg.MODEL.ULGA.CAT.CONCEPT_RATIO = concept_ratio
    cfg.MODEL.ULGA.SWIN.MLP_RATIO = mlp_ratio
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in SwinTransformer(cfg).parameters())


@pytest.mark.parametrize("size", PARAMETERS)
def test_swin_variants_have_the_published_number_of_parameters(size):
    plain, full, lite = PARAMETERS[size]
    assert count(size, []) == plain
    assert count(size, ["acp", "cat"]) - plain == full
    assert count(size, ["acp", "cat"], concept_ratio=0.25) - plain == lite


@pytest.mark.parametrize("size", PARAMETERS)
@pytest.mark.parametrize(("concept_ratio", "mlp_ratio"), [(1.0, 7.5), (0.25, 5.45)])
def test_a_wider_mlp_matches_the_parameters_within_2_percent(size, concept_ratio, mlp_ratio):
    wider = count(size, [], mlp_ratio=mlp_ratio)
    assert wider == pytest.approx(count(size, ["acp", "cat"], concept_ratio), rel=0.02)


def test_the_matching_mlp_ratio_of_nano_is_the_one_the_formula_gives():
    """4 + the interactions' parameters over the sum of 2 C^2 + C of all blocks: docs/method.md."""
    plain, full, lite = PARAMETERS["swin_nano"]
    unit = sum(2 * (2 * dim**2 + dim) for dim in (32, 64, 128, 256))
    for added, concept_ratio, rounded in ((full, 1.0, 7.67), (lite, 0.25, 5.57)):
        ratio = 4 + added / unit
        assert ratio == pytest.approx(rounded, abs=0.005)
        wider = count("swin_nano", [], mlp_ratio=ratio)
        assert wider == pytest.approx(count("swin_nano", ["acp", "cat"], concept_ratio), rel=0.001)
