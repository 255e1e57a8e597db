"""The backbones: equal to their references, of the published size, sound in every variant."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import CONFIGS
from detectron2.modeling import build_model
from detectron2.modeling.backbone.swin import SwinTransformer as Detectron2Swin
from torch import Tensor, nn

from ulga_d2 import get_cfg
from ulga_d2.backbone.build import build_retinanet_ulga_swin_fpn_backbone
from ulga_d2.backbone.swin import SwinTransformer
from ulga_d2.config import merge_config
from ulga_d2.errors import UserError

ALL_STAGES = ["stage2", "stage3", "stage4", "stage5"]
VARIANTS = {
    "baseline": [],
    "acp": ["acp"],
    "cat": ["cat"],
    "ulga": ["acp", "cat"],
    "depthwise": ["depthwise"],
    "fuse": ["fuse"],
}
SWIN_T = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}


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


@pytest.fixture(scope="module")
def swin_t_pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    theirs = Detectron2Swin(**SWIN_T, drop_path_rate=0.0, out_indices=(0, 1, 2, 3)).eval()
    for parameter in theirs.parameters():  # no term idle: biases, norms and tables too
        if parameter.ndim == 1 or parameter.shape[0] == 169:
            nn.init.normal_(parameter, std=0.3)
    ours = plain_swin(**SWIN_T).eval()
    state = {
        our_name(name): value
        for name, value in theirs.state_dict().items()
        if "relative_position_index" not in name
    }
    ours.load_state_dict(state, strict=True)
    return theirs, ours


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


@pytest.mark.parametrize(
    ("leaf", "opts", "millions", "with_interaction", "with_narrow_concepts"),
    [
        ("brain_tumor_swin_ulga_nano", [], 2.28, 1.28, 0.55),
        ("brain_tumor_swin_ulga", [], 27.52, 15.38, 6.41),
        (
            "brain_tumor_swin_ulga",
            ["MODEL.ULGA.SWIN.EMBED_DIM", "48", "MODEL.ULGA.SWIN.DEPTHS", "[2,2,4,2]",
             "MODEL.ULGA.SWIN.NUM_HEADS", "[2,4,6,12]"],
            6.01, 3.38, 1.43,
        ),
        (
            "brain_tumor_swin_ulga",
            ["MODEL.ULGA.SWIN.EMBED_DIM", "64", "MODEL.ULGA.SWIN.NUM_HEADS", "[2,4,8,16]"],
            12.25, 6.90, 2.90,
        ),
        (
            "brain_tumor_swin_ulga",
            ["MODEL.ULGA.SWIN.DEPTHS", "[2,2,18,2]"],
            48.84, 28.07, None,
        ),
        (
            "brain_tumor_swin_ulga",
            ["MODEL.ULGA.SWIN.EMBED_DIM", "128", "MODEL.ULGA.SWIN.DEPTHS", "[2,2,18,2]",
             "MODEL.ULGA.SWIN.NUM_HEADS", "[4,8,16,32]"],
            86.74, 49.64, None,
        ),
    ],
    ids=["nano", "T", "micro", "mini", "S", "B"],
)  # fmt: skip
def test_swin_variants_have_the_published_number_of_parameters(
    leaf, opts, millions, with_interaction, with_narrow_concepts
):
    def count(names: list[str], ratio: float = 1.0) -> float:
        cfg = config(names, *opts, leaf=leaf)
        cfg.MODEL.FPN.IN_FEATURES = ALL_STAGES
        cfg.MODEL.ULGA.CAT.CONCEPT_RATIO = ratio
        with torch.device("meta"):
            model = SwinTransformer(cfg)
        # The published count has a norm on all four outputs.
        return sum(p.numel() for p in model.parameters()) / 1e6

    baseline = count([])
    assert baseline == pytest.approx(millions, abs=0.006)
    assert count(["acp", "cat"]) - baseline == pytest.approx(with_interaction, abs=0.006)
    if with_narrow_concepts is not None:
        narrow = count(["acp", "cat"], 0.25) - baseline
        assert narrow == pytest.approx(with_narrow_concepts, abs=0.006)


def test_a_wider_mlp_matches_the_parameters_of_the_full_model_within_2_percent():
    full = sum(p.numel() for p in backbone(config(["acp", "cat"])).parameters())
    cfg = config([], "MODEL.ULGA.SWIN.MLP_RATIO", "7.5")
    wider = sum(p.numel() for p in backbone(cfg).parameters())
    assert wider == pytest.approx(full, rel=0.02)


@pytest.mark.parametrize("names", VARIANTS.values(), ids=VARIANTS)
def test_every_parameter_of_backbone_and_neck_gets_gradient(names):
    model = backbone(tiny(names)).train()
    features = model(torch.randn(2, 3, 64, 64))
    sum((value * torch.randn_like(value)).sum() for value in features.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("names", VARIANTS.values(), ids=VARIANTS)
def test_the_baselines_keys_are_within_those_of_every_variant(names):
    baseline = set(backbone(tiny([])).state_dict())
    assert not any("interaction" in key for key in baseline)
    assert baseline <= set(backbone(tiny(names)).state_dict())


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
        (["MODEL.ULGA.SWIN.NUM_HEADS", "[1,2,3,8]"], r"NUM_HEADS\[2\] is 3, which does not divide"),
        (["MODEL.ULGA.SWIN.DEPTHS", "[2,2]"], r"DEPTHS is \[2, 2\]; give four numbers"),
        (["MODEL.FPN.IN_FEATURES", "['res3']"], r"IN_FEATURES is \['res3'\]; choose from stage2"),
    ],
)
def test_an_impossible_backbone_is_refused_with_the_key(opts, message):
    with pytest.raises(UserError, match=message):
        backbone(config([], *opts))
