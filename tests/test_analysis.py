"""What a model costs, against fvcore's count and against sums done by hand."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from conftest import CONFIGS
from detectron2.modeling import build_model
from fvcore.nn import FlopCountAnalysis
from torch import nn

from ulga_d2 import get_cfg
from ulga_d2.analysis.complexity import Network, cost_by_part, kept_bytes, part_of
from ulga_d2.cli.main import main
from ulga_d2.config import merge_config

LEAF = "brain_tumor_{}_{}_nano.yaml"
PRODUCTS = ("linear", "matmul", "conv", "addmm", "bmm", "baddbmm", "einsum", "attention")


def two_products(inputs: list, outputs: list) -> Counter:
    """Count the multiply-adds of fused attention, which fvcore does not know."""
    (batch, heads, queries, width), (keys, _) = (
        inputs[0].type().sizes(),
        inputs[1].type().sizes()[2:],
    )
    return Counter(attention=2 * batch * heads * queries * keys * width)


def product_onto(inputs: list, outputs: list) -> Counter:
    """Count the multiply-adds of a batched product added to a tensor."""
    (batch, rows, inner), columns = inputs[1].type().sizes(), inputs[2].type().sizes()[2]
    return Counter(baddbmm=batch * rows * inner * columns)


def detector(backbone: str, variant: str) -> nn.Module:
    cfg = get_cfg()
    merge_config(
        cfg, str(CONFIGS / LEAF.format(backbone, variant)), ["MODEL.RETINANET.NUM_CLASSES", "2"]
    )
    cfg.MODEL.DEVICE = "cpu"
    return build_model(cfg).eval()


@pytest.mark.parametrize("variant", ["baseline", "ulga"])
def test_parts_add_up_to_the_whole_and_to_fvcores_count(variant):
    model, image = detector("swin", variant), torch.randn(1, 3, 64, 64)
    costs = cost_by_part(model, image.shape)
    assert sum(cost.parameters for cost in costs.values()) == sum(
        parameter.numel() for parameter in model.parameters()
    )
    peer = FlopCountAnalysis(Network(model), image)
    peer.set_op_handle("aten::scaled_dot_product_attention", two_products)
    peer.set_op_handle("aten::baddbmm", product_onto)
    by_operator = peer.unsupported_ops_warnings(False).tracer_warnings("none").by_operator()
    multiply_adds = sum(by_operator[name] for name in PRODUCTS)
    assert sum(cost.flops for cost in costs.values()) == 2 * multiply_adds


def test_only_the_full_model_has_interaction_parts():
    for variant, has_parts in (("baseline", False), ("ulga", True)):
        costs = cost_by_part(detector("swin", variant), (1, 3, 64, 64))
        for part in ("ACP", "CAT", "fusion"):
            assert (costs[part].parameters > 0) is has_parts
            assert (costs[part].flops > 0) is has_parts


def test_attention_of_a_vit_costs_its_linears_and_its_two_products():
    costs = cost_by_part(detector("vit", "baseline"), (1, 3, 64, 64))
    dim, tokens, depth = 128, 16, 6
    linears, products = 4 * dim * dim * tokens, 2 * tokens * tokens * dim
    assert costs["attention"].flops == 2 * depth * (linears + products)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("backbone.bottom_up.stages.stage2.0.interaction.acp.convs.0.weight", "ACP"),
        ("backbone.bottom_up.blocks.3.interaction.fuse.weight", "fusion"),
        ("backbone.bottom_up.norms.stage3.bias", "rest of the backbone"),
        ("backbone.fpn_lateral3.weight", "FPN"),
        ("head.cls_score.bias", "head"),
    ],
)
def test_a_name_belongs_to_one_part(name, part):
    assert part_of(name) == part


def test_kept_bytes_are_those_of_the_tensors_that_the_backward_pass_needs():
    first, second = nn.Linear(8, 4), nn.Linear(4, 6)
    x = torch.randn(2, 8)
    assert kept_bytes(first, x) == 4 * 2 * 8  # the input, for the weight's gradient
    assert kept_bytes(nn.Sequential(first, nn.ReLU()), x) == 4 * 2 * (8 + 4)
    assert kept_bytes(nn.Sequential(first, second), x) == 4 * 2 * (8 + 4)  # and no weight


def test_the_command_sets_configs_side_by_side(capsys):
    leaves = [str(CONFIGS / LEAF.format("swin", variant)) for variant in ("baseline", "ulga")]
    assert main(["analyze", *leaves, "--size", "64", "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    fusion = next(line for line in lines if "M parameters, fusion" in line)
    baseline, ulga = (float(cell) for cell in fusion.split("|")[2:4])
    assert baseline == 0.0 < ulga
    assert any("ms forward and backward" in line for line in lines)


def test_a_config_that_is_given_twice_has_two_columns(capsys):
    leaf = str(CONFIGS / LEAF.format("swin", "baseline"))
    assert main(["analyze", leaf, leaf, "--size", "64", "--rounds", "0"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.count(leaf) == 2
    first, second = next(row for row in rows if "M parameters  " in row).split("|")[2:4]
    assert float(first) == float(second) > 0


TWO_STAGES = [
    *("--set", "MODEL.META_ARCHITECTURE", "GeneralizedRCNN"),
    *("--set", "MODEL.RPN.IN_FEATURES", "['p3','p4','p5']"),
    *("--set", "MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
    *("--set", "MODEL.ROI_HEADS.IN_FEATURES", "['p3']"),
    *("--set", "MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead"),
    *("--set", "MODEL.ROI_BOX_HEAD.NUM_FC", "1"),
]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "100"], "--size is 100; give a multiple of 32"),
        (["--batch", "0"], "--batch is 0; give 1 or more"),
        (["--rounds", "-1"], "--rounds is -1; give 0 or more"),
        (["--num-classes", "0"], "--num-classes is 0; give 1 or more"),
        (["--set", "MODEL.ULGA.INTERACTION", "[]"], "did you mean MODEL.ULGA.INTERACTIONS"),
        (["--set", "MODEL.META_ARCHITECTURE", "GeneralizedRCNN"], "MODEL.RPN.IN_FEATURES (res4)"),
        (TWO_STAGES, "is a GeneralizedRCNN; only RetinaNet is analyzed"),
    ],
)
def test_wrong_arguments_are_refused_with_the_cure(words, message, capsys):
    assert main(["analyze", str(CONFIGS / LEAF.format("dat", "ulga")), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_config_that_is_not_there_is_named(capsys):
    assert main(["analyze", "configs/none.yaml"]) == 2
    assert "configs/none.yaml does not exist" in capsys.readouterr().err
