"""Every backbone in every variant: shapes, gradients, names, and what its builder refuses."""

from __future__ import annotations

import pytest
import torch
from conftest import CONFIGS
from detectron2.modeling import BACKBONE_REGISTRY, build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from ulga_d2 import get_cfg
from ulga_d2.backbone.swin import SwinTransformer
from ulga_d2.config import merge_config
from ulga_d2.errors import UserError
from ulga_d2.layers import deformable_attention
from ulga_d2.layers.block import Block

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


TINY = {
    "swin": ("MODEL.ULGA.SWIN.EMBED_DIM", "16", "MODEL.ULGA.SWIN.NUM_HEADS", "[1,1,2,2]"),
    "vit": (
        "MODEL.ULGA.VIT.EMBED_DIM", "16", "MODEL.ULGA.VIT.NUM_HEADS", "2",
        "MODEL.ULGA.VIT.DEPTH", "2", "MODEL.ULGA.VIT.GRID_SIZE", "4",
        "MODEL.ULGA.VIT.WINDOW_SIZE", "3", "MODEL.ULGA.VIT.NUM_GLOBAL", "1",
        "MODEL.ULGA.VIT.REL_POS", "True",
    ),
    "dat": (
        "MODEL.ULGA.DAT.EMBED_DIM", "16", "MODEL.ULGA.DAT.NUM_HEADS", "[1,2,2,4]",
        "MODEL.ULGA.DAT.NUM_GROUPS", "[1,1,2,2]", "MODEL.ULGA.DAT.DEPTHS", "[1,2,1,1]",
        "MODEL.ULGA.DAT.GRID_SIZE", "8", "MODEL.ULGA.DAT.OFFSET_INIT", "default",
    ),
}  # fmt: skip
every_backbone = pytest.mark.parametrize("kind", TINY)
every_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


def config(names: list[str], *opts: str, kind: str = "swin"):
    cfg = get_cfg()
    leaf = CONFIGS / f"brain_tumor_{kind}_ulga_nano.yaml"
    merge_config(cfg, str(leaf), ["MODEL.DEVICE", "cpu", *opts])
    cfg.MODEL.ULGA.INTERACTIONS = names
    return cfg


def tiny(names: list[str], *opts: str, kind: str = "swin"):
    small = ("MODEL.FPN.OUT_CHANNELS", "32", "MODEL.RETINANET.NUM_CONVS", "1")
    return config(names, *TINY[kind], *small, *opts, kind=kind)


def backbone(cfg) -> nn.Module:
    torch.manual_seed(0)
    return BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg, None)


@every_backbone
@every_variant
def test_every_parameter_of_backbone_and_neck_gets_gradient(kind, variant):
    all_on = ("MODEL.RETINANET.IN_FEATURES", "['p3','p4','p5','p6','p7']",
              f"MODEL.ULGA.{kind.upper()}.DROP_PATH_RATE", "0.0")  # fmt: skip
    model = backbone(tiny(*variant, *all_on, kind=kind)).train()
    features = model(torch.randn(2, 3, 64, 64))
    sum((value * torch.randn_like(value)).sum() for value in features.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@every_backbone
def test_a_wider_mlp_may_have_a_fractional_ratio(kind):
    key = f"MODEL.ULGA.{kind.upper()}.MLP_RATIO"
    model = backbone(tiny([], key, "5.45", kind=kind)).eval()
    shapes = {w.shape for name, w in model.named_parameters() if name.endswith("fc1.weight")}
    assert shapes and all(width == int(5.45 * dim) for width, dim in shapes)
    assert all(value.isfinite().all() for value in model(torch.randn(1, 3, 64, 64)).values())


@every_backbone
@every_variant
def test_the_baselines_keys_are_within_those_of_every_variant(kind, variant):
    baseline = set(backbone(tiny([], kind=kind)).state_dict())
    assert not any("interaction" in key for key in baseline)
    assert baseline <= set(backbone(tiny(*variant, kind=kind)).state_dict())


@every_backbone
@every_variant
def test_a_zero_initialised_variant_starts_as_the_baseline(kind, variant):
    plain = backbone(tiny([], kind=kind)).eval()
    model = backbone(tiny(*variant, "MODEL.ULGA.FUSE.ZERO_INIT", "True", kind=kind)).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    image = torch.randn(1, 3, 64, 96)
    expected = plain(image)
    assert all(torch.equal(value, expected[name]) for name, value in model(image).items())


@every_backbone
@every_variant
def test_bfloat16_autocast_trains_with_finite_numbers(kind, variant):
    model = backbone(tiny(*variant, kind=kind)).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = model(torch.randn(2, 3, 96, 64))
    sum(value.float().square().mean() for value in features.values()).backward()
    assert all(torch.isfinite(value).all() for value in features.values())
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


# A variant is compiled alike in every backbone, and compiling takes seconds.
@pytest.mark.parametrize(
    ("kind", "name"), [("swin", name) for name in VARIANTS] + [("vit", "ulga"), ("dat", "ulga")]
)
def test_a_compiled_backbone_is_one_graph_with_the_same_numbers(kind, name):
    model = backbone(tiny(*VARIANTS[name], kind=kind)).eval()
    image = torch.randn(1, 3, 64, 96)
    torch.compiler.reset()
    compiled = torch.compile(model.bottom_up, fullgraph=True, backend="eager")
    with torch.no_grad():
        expected = model.bottom_up(image)
        assert all(torch.equal(v, expected[stage]) for stage, v in compiled(image).items())


@every_backbone
def test_an_exported_backbone_takes_batches_of_any_size(kind, monkeypatch):
    # Few logits a step, so that steps of DAT++ would differ between batches.
    monkeypatch.setattr(deformable_attention, "CPU_STEP", 2**12)
    model = backbone(tiny(["acp", "cat"], kind=kind)).bottom_up.eval()
    sizes = ({0: torch.export.Dim("batch")},)
    with torch.inference_mode():
        example = (torch.randn(2, 3, 50, 70),)
        exported = torch.export.export(model, example, dynamic_shapes=sizes, strict=False).module()
        for batch in (1, 2, 5):
            image = torch.randn(batch, 3, 50, 70)
            expected = model(image)
            found = exported(image)
            assert found.keys() == expected.keys()
            for stage, value in found.items():
                assert (value - expected[stage]).abs().max() <= 1e-5, stage


@every_backbone
def test_a_two_stage_detector_of_detectron2_takes_every_backbone(kind):
    """The promise of the neck: any of detectron2's heads works on p2 or p3 and up."""
    cfg = tiny(["acp", "cat"], kind=kind)
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_HEADS.NUM_CLASSES = "StandardROIHeads", 2
    cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM, cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE = 16, "ROIAlignV2"
    cfg.INPUT.SQUARE_SIZE = 64
    model = build_model(cfg)
    truth = Instances((64, 64), gt_boxes=Boxes(torch.tensor([[8.0, 8.0, 40.0, 40.0]])))
    truth.gt_classes = torch.tensor([1])
    image = torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8)
    with EventStorage():
        losses = model([{"image": image, "instances": truth}])
    sum(losses.values()).backward()
    assert {"loss_rpn_cls", "loss_box_reg"} <= losses.keys()
    assert all(p.grad.abs().sum() > 0 for p in model.backbone.bottom_up.stem.parameters())


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


@every_backbone
def test_batch_mates_do_not_change_an_images_features(kind):
    """Every batch is padded to the fixed square, so a larger mate adds no padding either.

    In double, where what rounding leaves is far below any influence of a mate.
    """
    cfg = tiny(["acp", "cat"], "INPUT.SQUARE_SIZE", "96", "MODEL.RETINANET.NUM_CLASSES", "2",
               kind=kind)  # fmt: skip
    model = build_model(cfg).double().eval()
    image = torch.randint(0, 255, (3, 64, 80), dtype=torch.uint8)
    mates = [torch.randint(0, 255, (3, *size), dtype=torch.uint8) for size in [(64, 80), (96, 90)]]
    alone = image_in_batch(model, [image])
    for together in (
        image_in_batch(model, [image, mates[0]]),
        image_in_batch(model, [image, *mates]),
    ):
        for name, value in alone.items():
            assert (together[name] - value).abs().max() <= 1e-12 * value.abs().max()


@every_backbone
def test_gradient_checkpointing_changes_memory_and_no_gradient(kind):
    grads, calls = [], []
    image = torch.randn(2, 3, 64, 64)
    for on in ("False", "True"):
        cfg = tiny(["acp", "cat"], "MODEL.ULGA.GRADIENT_CHECKPOINTING", on,
                   f"MODEL.ULGA.{kind.upper()}.DROP_PATH_RATE", "0.3", kind=kind)  # fmt: skip
        model = backbone(cfg).train()
        seen: list[int] = []
        for block in (module for module in model.modules() if isinstance(module, Block)):
            block.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        torch.manual_seed(1)
        sum(value.square().sum() for value in model(image).values()).backward()
        grads.append([parameter.grad for parameter in model.parameters()])
        calls.append(len(seen))
    assert calls[1] == 2 * calls[0]
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
def test_an_impossible_swin_or_pyramid_is_refused_with_the_key(opts, message):
    with pytest.raises(UserError, match=message):
        backbone(config([], *opts))


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.ULGA.VIT.NUM_HEADS", "3"], r"VIT\.NUM_HEADS is 3; give a divisor of .* \(128\)"),
        (["MODEL.ULGA.VIT.DEPTH", "0"], r"VIT\.DEPTH is 0; give 1 or more"),
        (["MODEL.ULGA.VIT.WINDOW_SIZE", "-1"], r"VIT\.WINDOW_SIZE is -1; give 0 or more"),
        (["MODEL.ULGA.VIT.NUM_GLOBAL", "9"], r"VIT\.NUM_GLOBAL is 9; give 1 to DEPTH \(6\)"),
        (["MODEL.ULGA.STAGES", "['stage3']"], r"STAGES is \['stage3'\]; give a list with stage4"),
        (["MODEL.FPN.IN_FEATURES", "['stage2','stage3','stage4','stage5']"], r"up to stage5, such"),
    ],
)
def test_an_impossible_vit_is_refused_with_the_key(opts, message):
    with pytest.raises(UserError, match=message):
        backbone(config(["acp"], *opts, kind="vit"))
