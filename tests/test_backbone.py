"""Every backbone in every variant: shapes, gradients, names, and what its builder refuses."""

from __future__ import annotations

import pytest
import torch
from conftest import CONFIGS
from detectron2.modeling import build_model
from torch import Tensor, nn

from ulga_d2 import get_cfg
from ulga_d2.backbone.build import build_retinanet_ulga_swin_fpn_backbone
from ulga_d2.backbone.swin import SwinTransformer
from ulga_d2.config import merge_config
from ulga_d2.errors import UserError

VARIANTS = {
    "baseline": ([],),
    "acp": (["acp"],),
    "cat": (["cat"],),
    "ulga": (["acp", "cat"],),
    "lite": (["acp", "cat"], "MODEL.ULGA.CAT.CONCEPT_RATIO", "0.25"),
    "sum": (["acp", "cat"], "MODEL.ULGA.FUSE.MODE", "sum"),
    "depthwise": (["depthwise"],),
    "fuse": (["fuse"],),
}


def config(names: list[str], *opts: str, leaf: str = "brain_tumor_swin_ulga_nano"):
    cfg = get_cfg()
    merge_config(cfg, str(CONFIGS / f"{leaf}.yaml"), ["MODEL.DEVICE", "cpu", *opts])
    cfg.MODEL.ULGA.INTERACTIONS = names
    return cfg


def tiny(names: list[str], *opts: str):
    return config(
        names, "MODEL.ULGA.SWIN.EMBED_DIM", "16", "MODEL.ULGA.SWIN.NUM_HEADS", "[1,1,2,2]",
        "MODEL.FPN.OUT_CHANNELS", "32", "MODEL.RETINANET.NUM_CONVS", "1", *opts,
    )  # fmt: skip


def backbone(cfg) -> nn.Module:
    torch.manual_seed(0)
    return build_retinanet_ulga_swin_fpn_backbone(cfg, None)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_parameter_of_backbone_and_neck_gets_gradient(variant):
    all_on = ("MODEL.RETINANET.IN_FEATURES", "['p3','p4','p5','p6','p7']",
              "MODEL.ULGA.SWIN.DROP_PATH_RATE", "0.0")  # fmt: skip
    model = backbone(tiny(*variant, *all_on)).train()
    features = model(torch.randn(2, 3, 64, 64))
    sum((value * torch.randn_like(value)).sum() for value in features.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_the_baselines_keys_are_within_those_of_every_variant(variant):
    baseline = set(backbone(tiny([])).state_dict())
    assert not any("interaction" in key for key in baseline)
    assert baseline <= set(backbone(tiny(*variant)).state_dict())


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_zero_initialised_variant_starts_as_the_baseline(variant):
    plain = backbone(tiny([])).eval()
    model = backbone(tiny(*variant, "MODEL.ULGA.FUSE.ZERO_INIT", "True")).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    image = torch.randn(1, 3, 64, 96)
    expected = plain(image)
    assert all(torch.equal(value, expected[name]) for name, value in model(image).items())


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_bfloat16_autocast_trains_with_finite_numbers(variant):
    model = backbone(tiny(*variant)).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = model(torch.randn(2, 3, 96, 64))
    sum(value.float().square().mean() for value in features.values()).backward()
    assert all(torch.isfinite(value).all() for value in features.values())
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("size", [(64, 64), (33, 70), (1, 1), (8, 200)])
def test_stage_names_tell_the_strides_of_any_image(size):
    model = SwinTransformer(tiny(["acp", "cat"]))
    features = model(torch.randn(1, 3, *size))
    for name, shape in model.output_shape().items():
        stride = 2 ** int(name[-1])
        assert shape.stride == stride
        expected = (shape.channels, *(-(-side // stride) for side in size))
        assert tuple(features[name].shape[1:]) == expected


def image_in_batch(model: nn.Module, images: list[Tensor]) -> dict[str, Tensor]:
    inputs = [{"image": image} for image in images]
    with torch.no_grad():
        batch = model.preprocess_image(inputs)
        return {name: value[0] for name, value in model.backbone.bottom_up(batch.tensor).items()}


def test_batch_mates_do_not_change_an_images_features():
    """Every batch is padded to the fixed square, so a larger mate adds no padding either."""
    cfg = tiny(["acp", "cat"], "INPUT.SQUARE_SIZE", "96", "MODEL.RETINANET.NUM_CLASSES", "2")
    model = build_model(cfg).eval()
    image = torch.randint(0, 255, (3, 64, 80), dtype=torch.uint8)
    mates = [torch.randint(0, 255, (3, *size), dtype=torch.uint8) for size in [(64, 80), (96, 90)]]
    alone = image_in_batch(model, [image])
    for together in (
        image_in_batch(model, [image, mates[0]]),
        image_in_batch(model, [image, *mates]),
    ):
        for name, value in alone.items():
            assert (together[name] - value).abs().max() <= 1e-6 * value.abs().max()


def test_gradient_checkpointing_changes_memory_and_no_gradient():
    grads = []
    image = torch.randn(2, 3, 64, 64)
    for on in ("False", "True"):
        cfg = tiny(["acp", "cat"], "MODEL.ULGA.GRADIENT_CHECKPOINTING", on,
                   "MODEL.ULGA.SWIN.DROP_PATH_RATE", "0.3")  # fmt: skip
        model = backbone(cfg).train()
        torch.manual_seed(1)
        sum(value.square().sum() for value in model(image).values()).backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


def test_the_top_levels_are_built_only_if_the_detector_reads_them():
    small = backbone(tiny([]))
    assert set(small.output_shape()) == {"p3", "p4", "p5"}
    large = backbone(tiny([], "MODEL.RETINANET.IN_FEATURES", "['p3','p4','p5','p6','p7']"))
    assert set(large.output_shape()) == {"p3", "p4", "p5", "p6", "p7"}


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.ULGA.SWIN.NUM_HEADS", "[1,2,3,8]"], r"NUM_HEADS\[2\] is 3, .* nearest .* is 2"),
        (["MODEL.ULGA.SWIN.DEPTHS", "[2,2]"], r"DEPTHS is \[2, 2\]; give four numbers"),
        (["MODEL.FPN.IN_FEATURES", "['res3']"], r"IN_FEATURES is \['res3'\]; give stages in"),
        (["MODEL.FPN.IN_FEATURES", "['stage3','stage5']"], r"IN_FEATURES .* up to stage5, such as"),
        (["MODEL.RETINANET.IN_FEATURES", "['p2','p3']"], r"give \['p3', 'p4', 'p5'\] or"),
        (["MODEL.FPN.OUT_CHANNELS", "100"], r"OUT_CHANNELS is 100; give a multiple of 32"),
        (["MODEL.ULGA.SWIN.WINDOW_SIZE", "0"], r"WINDOW_SIZE is 0; give 1 or more"),
        (["MODEL.ULGA.SWIN.MLP_RATIO", "0.0"], r"MLP_RATIO is 0\.0; give more"),
        (["MODEL.ULGA.SWIN.DROP_PATH_RATE", "1.0"], r"DROP_PATH_RATE is 1\.0; give 0 or more"),
    ],
)
def test_an_impossible_backbone_is_refused_with_the_key(opts, message):
    with pytest.raises(UserError, match=message):
        backbone(config([], *opts))
