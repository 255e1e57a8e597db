"""ViT: equal to detectron2's and timm's with their weights, of the published size."""

from __future__ import annotations

from functools import partial

import pytest
import timm
import torch
from conftest import CONFIGS
from detectron2.modeling.backbone.vit import ViT as Detectron2ViT
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import nn

from ulga_d2 import get_cfg
from ulga_d2.backbone.vit import ViT, global_blocks
from ulga_d2.config import merge_config
from ulga_d2.layers.attention import relative

SIZES = {"embed_dim": 32, "depth": 4, "num_heads": 2, "mlp_ratio": 4.0}


def plain_vit(**changes: object) -> ViT:
    arguments = {
        **SIZES, "window_size": 0, "num_global": 2, "rel_pos": False, "grid_size": 8,
        "drop_path_rate": 0.0, "interaction_layer": lambda _dim, _stage: nn.Identity(),
        "out_features": ["stage3", "stage4", "stage5"], "gradient_checkpointing": False,
    }  # fmt: skip
    return ViT(**{**arguments, **changes}).eval()


def with_random_vectors(model: nn.Module) -> nn.Module:
    """Fill what starts at zero or one, so that a comparison sees it."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or "rel_pos" in name or "pos_embed" in name:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def give_weights(theirs: nn.Module, ours: ViT, grid_size: int) -> None:
    state = {}
    for name, value in theirs.state_dict().items():
        name = name.replace("patch_embed.", "stem.")
        if name == "pos_embed":
            name, value = "position.pos_embed", value.reshape(1, grid_size, grid_size, -1)
        if not name.startswith(("neck", "head", "fc_norm")):
            state[name] = value
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith(("norm.", "to_stage3.")) for name in missing)


def largest_difference(value: torch.Tensor, expected: torch.Tensor) -> float:
    assert value.shape == expected.shape
    return float((value - expected).abs().max() / expected.abs().max())


def detectron2_pair(*, rel_pos: bool, window_size: int) -> tuple[nn.Module, ViT]:
    """Return detectron2's ViT, with windows in every second block, and ours with its weights."""
    torch.manual_seed(0)
    theirs = Detectron2ViT(
        img_size=128, **SIZES, pretrain_img_size=128, pretrain_use_cls_token=False,
        norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=rel_pos,
        window_size=window_size, window_block_indexes=[0, 2] if window_size else [],
    )  # fmt: skip
    ours = plain_vit(window_size=window_size, rel_pos=rel_pos)
    give_weights(with_random_vectors(theirs), ours, 8)
    return theirs, ours


@pytest.mark.parametrize("rel_pos", [False, True])
@pytest.mark.parametrize("window_size", [0, 3])
@pytest.mark.parametrize("size", [(128, 128), (96, 160), (16, 112)])
def test_vit_equals_detectron2s_with_its_weights(rel_pos, window_size, size):
    theirs, ours = detectron2_pair(rel_pos=rel_pos, window_size=window_size)
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = theirs(image)["last_feat"].permute(0, 2, 3, 1)
        assert largest_difference(ours.tokens(image), expected) <= 1e-5


def test_vit_equals_timms_with_its_weights():
    torch.manual_seed(0)
    theirs = with_random_vectors(
        timm.models.vision_transformer.VisionTransformer(
            img_size=128, **SIZES, class_token=False, global_pool="avg", fc_norm=False
        )
    )
    ours = plain_vit()
    give_weights(theirs, ours, 8)
    image = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        expected = theirs.forward_features(image).transpose(1, 2).reshape(2, -1, 8, 8)
        assert largest_difference(ours(image)["stage4"], expected) <= 1e-5


def test_vit_equals_timms_windowed_form_with_relative_positions():
    torch.manual_seed(0)
    theirs = with_random_vectors(
        VisionTransformerSAM(
            img_size=128,
            **SIZES,
            window_size=3,
            use_rel_pos=True,
            neck_chans=0,
            global_attn_indexes=(1, 3),
            num_classes=0,
        )  # fmt: skip
    )
    theirs.neck = nn.Identity()  # a norm
    ours = plain_vit(window_size=3, rel_pos=True)
    give_weights(theirs, ours, 8)
    image = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        expected = theirs.forward_features(image)
        assert largest_difference(ours.tokens(image).permute(0, 3, 1, 2), expected) <= 1e-5


def test_gradients_equal_detectron2s():
    theirs, ours = detectron2_pair(rel_pos=True, window_size=3)
    image, direction = torch.randn(2, 3, 128, 128), torch.randn(2, 8, 8, 32)
    (theirs(image)["last_feat"].permute(0, 2, 3, 1) * direction).sum().backward()
    (ours.tokens(image) * direction).sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.blocks.named_parameters():
        assert largest_difference(parameter.grad, expected[f"blocks.{name}"].grad) <= 1e-4, name


# In millions at 512 pixels: the baseline, and what ACP and CAT add with concepts of C and C / 4.
PARAMETERS = {
    "vit_nano": (1.42, 0.74, 0.32),
    "vit_mini": (3.01, 1.62, 0.69),
    "vit_ti": (5.68, 3.25, 1.38),
    "vit": (21.98, 12.69, 5.31),
    "vit_b": (86.43, 50.14, 20.80),
}


def count(size: str, names: list[str], concept_ratio: float = 1.0) -> float:
    cfg = get_cfg()
    merge_config(cfg, str(CONFIGS / "_base_" / f"{size}.yaml"), [])
    cfg.MODEL.FPN.IN_FEATURES = ["stage4", "stage5"]
    cfg.MODEL.ULGA.VIT.GRID_SIZE = 32
    cfg.MODEL.ULGA.INTERACTIONS = names
    cfg.MODEL.ULGA.CAT.CONCEPT_RATIO = concept_ratio
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in ViT(cfg).parameters()) / 1e6


@pytest.mark.parametrize("size", PARAMETERS)
def test_vit_variants_have_the_published_number_of_parameters(size):
    plain, full, lite = PARAMETERS[size]
    assert count(size, []) == pytest.approx(plain, abs=0.006)
    added = [count(size, ["acp", "cat"], ratio) - count(size, []) for ratio in (1.0, 0.25)]
    assert added == pytest.approx([full, lite], abs=0.006)


def test_global_blocks_are_spread_evenly_and_end_the_stack():
    assert global_blocks(12, 4) == {2, 5, 8, 11}
    assert global_blocks(6, 4) == {0, 2, 3, 5}
    assert global_blocks(5, 5) == {0, 1, 2, 3, 4}


def test_relative_rows_are_the_tables_by_distance_of_query_and_key():
    table = torch.arange(9.0)[:, None]
    rows = relative(table, 5)[..., 0]
    assert rows[2, 2] == 4 and rows[4, 0] == 8 and rows[0, 4] == 0


@pytest.mark.parametrize("size", [(1, 1), (16, 200), (33, 70), (256, 256)])
def test_maps_of_any_image_have_related_sizes(size):
    height, width = (-(-side // 16) for side in size)
    with torch.no_grad():
        maps = plain_vit(window_size=3, rel_pos=True)(torch.randn(1, 3, *size))
    assert maps["stage3"].shape[-2:] == (2 * height, 2 * width)
    assert maps["stage4"].shape[-2:] == (height, width)
    assert maps["stage5"].shape[-2:] == (-(-height // 2), -(-width // 2))


def test_the_default_keys_build_vit_s():
    cfg = get_cfg()
    cfg.MODEL.FPN.IN_FEATURES = ["stage3", "stage4", "stage5"]
    with torch.device("meta"):
        model = ViT(cfg)
    assert model.position.pos_embed.shape == (1, 32, 32, 384)
