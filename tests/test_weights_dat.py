"""DAT++ checkpoints: every name of the released code goes where it belongs, tables are resized."""

from __future__ import annotations

import pytest
import torch
from public_dat import DEPTHS, DIMS, GRID, GROUPS, HEADS, KERNELS, state_of
from torch import nn

from ulga_d2.backbone.dat import DAT
from ulga_d2.errors import UserError
from ulga_d2.weights.detect import recognise
from ulga_d2.weights.initialise import BACKBONE, initialise
from ulga_d2.weights.position import resize


def detector(grid_size: int = GRID, **changes: object) -> nn.Module:
    """Return a module that holds a DAT++ where a detector has its backbone."""
    backbone = DAT(**{
        "embed_dim": DIMS[0], "depths": DEPTHS, "num_heads": HEADS, "num_groups": GROUPS,
        "window_size": 7, "offset_kernel": KERNELS, "offset_stride": (8, 4, 2, 1),
        "offset_init": "zero", "ref_points": "released", "offset_input": "enhanced",
        "grid_size": grid_size, "mlp_ratio": 4.0, "drop_path_rate": 0.0,
        "interaction_layer": lambda _dim, _stage: nn.Identity(),
        "out_features": ["stage3", "stage4", "stage5"], "gradient_checkpointing": False, **changes,
    })  # fmt: skip
    return nn.ModuleDict({"backbone": nn.ModuleDict({"bottom_up": backbone})})


# In stage 2 (of 0 to 3): block 0 looks at neighbours, block 1 at points.
PLACES = {
    "patch_proj.4.norm.bias": "stem.norm2.bias",
    "down_projs.1.0.weight": "downsamples.stage4.conv.weight",
    "down_projs.1.1.norm.weight": "downsamples.stage4.norm.weight",
    "stages.2.local_perception_units.1.weight": "stages.stage4.2.depthwise.weight",
    "stages.2.layer_norms.0.norm.weight": "stages.stage4.1.norm1.weight",
    "stages.2.layer_norms.1.norm.weight": "stages.stage4.1.norm2.weight",
    "stages.2.layer_norms.2.norm.weight": "stages.stage4.3.norm1.weight",
    "stages.2.layer_norms.3.norm.weight": "stages.stage4.3.norm2.weight",
    "stages.2.attns.0.qkv.weight": "stages.stage4.1.attn.qkv.weight",
    "stages.2.attns.0.proj.bias": "stages.stage4.1.attn.proj.bias",
    "stages.2.attns.0.rpb": "stages.stage4.1.attn.relative_position_bias_table",
    "stages.2.attns.1.proj_q.weight": "stages.stage4.3.attn.q.weight",
    "stages.2.attns.1.proj_k.weight": "stages.stage4.3.attn.k.weight",
    "stages.2.attns.1.proj_v.weight": "stages.stage4.3.attn.v.weight",
    "stages.2.attns.1.proj_out.weight": "stages.stage4.3.attn.proj.weight",
    "stages.2.attns.1.conv_offset.0.weight": "stages.stage4.3.attn.offsets.depthwise.weight",
    "stages.2.attns.1.conv_offset.1.norm.weight": "stages.stage4.3.attn.offsets.norm.weight",
    "stages.2.attns.1.conv_offset.3.weight": "stages.stage4.3.attn.offsets.pointwise.weight",
    "stages.2.attns.1.rpe_table": "stages.stage4.3.attn.relative_position_bias_table",
    "stages.2.mlps.1.linear1.0.weight": "stages.stage4.3.mlp.fc1.weight",
    "stages.2.mlps.1.linear2.0.weight": "stages.stage4.3.mlp.fc2.weight",
    "stages.2.mlps.1.dwc.weight": "stages.stage4.3.mlp.local.depthwise.weight",
}


def test_every_weight_of_a_classifier_finds_its_place():
    state, model = state_of(), detector()
    report = initialise(model, recognise({"model": state}, "dat_t.pth"))
    assert report.layout == "DAT++, LeapLabTHU's names" and not report.resized
    assert len(report.loaded) == len(state) - 4
    own = model.state_dict()
    for theirs, ours in PLACES.items():
        assert torch.equal(own[BACKBONE + ours].flatten(), state[theirs].flatten()), theirs
    sums = sorted(float(value.sum()) for name, value in state.items() if "cls_" not in name)
    assert sums == sorted(float(own[name].sum()) for name in report.loaded)
    assert {name.split(".")[-3] for name in report.absent} == {"norms"}


def test_a_detectors_file_gives_the_norms_of_its_maps_too():
    state = {f"backbone.{k}": v for k, v in state_of(detection=True).items()}
    state["bbox_head.retina_cls.weight"] = torch.ones(1)
    model = detector()
    public = recognise({"meta": {"epoch": 12}, "state_dict": state}, "rtn.pth")
    report = initialise(model, public)
    assert report.absent == () and "for detection" in report.layout
    found = model.state_dict()[f"{BACKBONE}norms.stage4.bias"]
    assert torch.equal(found, state["backbone.norms.2.norm.bias"])
    report = initialise(detector(out_features=["stage4", "stage5"]), public)
    assert report.ignored["norms of maps that this model does not return"] == [
        "backbone.norms.1.norm.weight",
        "backbone.norms.1.norm.bias",
    ]


def test_the_sizes_of_a_file_are_told_and_its_tables_are_resized():
    public = recognise(state_of(), "dat_t.pth")
    assert public.size_options() == (
        'MODEL.ULGA.DAT.EMBED_DIM 8 MODEL.ULGA.DAT.DEPTHS "[2, 4, 2, 2]" '
        'MODEL.ULGA.DAT.NUM_HEADS "[1, 2, 4, 4]" MODEL.ULGA.DAT.NUM_GROUPS "[1, 2, 4, 4]" '
        'MODEL.ULGA.DAT.WINDOW_SIZE 7 MODEL.ULGA.DAT.OFFSET_KERNEL "[9, 7, 5, 3]" '
        "MODEL.ULGA.DAT.GRID_SIZE 16 MODEL.ULGA.DAT.MLP_RATIO 4.0 "
        'MODEL.ULGA.DAT.OFFSET_STRIDE "[8, 4, 2, 1]" MODEL.ULGA.DAT.REF_POINTS released',
        "OFFSET_STRIDE, REF_POINTS",
    )
    report = initialise(detector(grid_size=24), public)
    assert len(report.resized) == 6
    name = f"{BACKBONE}stages.stage3.3.attn.relative_position_bias_table"
    assert report.resized[name.removeprefix(BACKBONE)] == ((2, 15, 15), (2, 23, 23))
    report = initialise(detector(window_size=9), public)  # of blocks 0 and 2 before the last stage
    assert set(report.resized.values()) == {((h, 13, 13), (h, 17, 17)) for h in HEADS[:3]}
    assert len(report.resized) == 4


def test_a_resized_table_of_displacements_keeps_its_ends():
    table = torch.linspace(-1, 1, 15)[None, :, None] + torch.zeros(2, 15, 15)
    resized = resize("attn.relative_position_bias_table", table, (2, 23, 23))
    expected = torch.linspace(-1, 1, 23)[None, :, None].expand(2, 23, 23)
    torch.testing.assert_close(resized, expected)


def test_a_dat_of_other_parts_is_refused():
    state = state_of()
    del state["stages.1.attns.1.rpe_table"]
    state["stages.1.attns.1.rpe_table.0.weight"] = torch.ones(32, 2)
    with pytest.raises(UserError, match=r"no place in the backbone: 1 \(stages\.1\.attns\.1\.rpe"):
        initialise(detector(), recognise(state, "dat.pth"))
