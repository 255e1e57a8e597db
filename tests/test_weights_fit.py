"""Public weights in a model: tables resized, everything else strict, all of it reported."""

from __future__ import annotations

import public_models as public
import pytest
import torch

from ulga_d2.errors import UserError
from ulga_d2.inference.model import build_seeded_model
from ulga_d2.weights.detect import recognise
from ulga_d2.weights.initialise import initialise
from ulga_d2.weights.load import FORMAT
from ulga_d2.weights.position import resize


def test_tables_of_another_window_and_grid_are_resized_and_reported(tmp_path):
    torch.manual_seed(0)
    state, _ = public.timm_swin()
    model = build_seeded_model(public.config("swin", MODEL__ULGA__SWIN__WINDOW_SIZE=7))
    report = initialise(model, recognise(state, "swin.pth"))
    assert len(report.resized) == sum(public.DEPTHS)
    assert set(report.resized.values()) >= {((49, 1), (169, 1)), ((49, 4), (169, 4))}
    state, _ = public.detectron2_vit(use_rel_pos=True, window_size=3, window_block_indexes=[0])
    cfg = public.config("vit", MODEL__ULGA__VIT__GRID_SIZE=12, MODEL__ULGA__VIT__REL_POS=True)
    report = initialise(build_seeded_model(cfg), recognise({"model": state}, "vit.pth"))
    names = {name.removeprefix("backbone.bottom_up."): to for name, to in report.resized.items()}
    assert names["position.pos_embed"] == ((1, 8, 8, 32), (1, 12, 12, 32))
    assert names["blocks.0.attn.rel_pos_h"] == ((5, 16), (23, 16))
    assert names["blocks.1.attn.rel_pos_w"] == ((15, 16), (23, 16))
    assert any("resized: 9 position tables" in line for line in report.lines())


ROW = torch.arange(9.0)[:, None]
BY_HEAD = torch.tensor([0.0, 50.0])


@pytest.mark.parametrize(
    ("name", "table", "shape"),
    [
        ("pos_embed", ROW.expand(9, 9)[None, ..., None] + BY_HEAD, (1, 17, 17, 2)),
        ("relative_position_bias_table", ROW.expand(9, 9).reshape(81, 1) + BY_HEAD, (289, 2)),
    ],
)
def test_a_resized_table_keeps_what_each_place_means(name, table, shape):
    """A table that grows with the row alone still does, and each head has its own."""
    middle = resize(f"attn.{name}", table, shape).reshape(17, 17, 2)[3:-3]
    row = ((torch.arange(17) + 0.5) * 9 / 17 - 0.5)[3:-3]
    torch.testing.assert_close(middle[..., 0], row[:, None].expand(-1, 17), atol=0.1, rtol=0)
    torch.testing.assert_close(middle[..., 1], middle[..., 0] + 50)


def test_what_is_no_position_table_is_never_resized():
    assert resize("blocks.0.attn.qkv.weight", torch.ones(4, 4), (8, 4)) is None
    assert resize("attn.relative_position_bias_table", torch.ones(49, 2), (81, 3)) is None


def refusal(state: dict, **changes: object) -> str:
    backbone = changes.pop("backbone", "swin")
    with pytest.raises(UserError) as caught:
        initialise(
            build_seeded_model(public.config(backbone, **changes)), recognise(state, "w.pth")
        )
    return str(caught.value)


def test_the_windows_of_a_vitdet_are_read_off_its_tables():
    state, _ = public.detectron2_vit(
        img_size=256, use_rel_pos=True, window_size=3, window_block_indexes=[0, 2]
    )
    found = recognise({"model": state}, "vit.pth")
    vit = "MODEL.ULGA.VIT"
    assert found.size_options() == (
        f"{vit}.EMBED_DIM 32 {vit}.DEPTH 4 {vit}.GRID_SIZE 16 {vit}.NUM_HEADS 2 "
        f"{vit}.REL_POS True {vit}.WINDOW_SIZE 3 {vit}.NUM_GLOBAL 2 {vit}.MLP_RATIO 4.0",
        "",
    )
    sizes = found.layout.sizes(found.tensors)
    cfg = public.config("vit", **{f"MODEL__ULGA__VIT__{key}": sizes[key] for key in sizes})
    report = initialise(build_seeded_model(cfg), found)
    # The position table is its pretraining's; detectron2 stretches it for every image.
    assert list(report.resized.values()) == [((1, 8, 8, 32), (1, 16, 16, 32))]


def test_what_does_not_match_is_refused_with_the_names_and_the_sizes_that_fit():
    state, _ = public.torchvision_swin()
    missing = {k: v for k, v in state.items() if k != "features.3.1.mlp.0.weight"}
    assert "not in the file: 1 (stages.stage3.1.mlp.fc1.weight)" in refusal(missing)
    strange = {**state, "features.3.1.attn.logit_scale": torch.ones(1)}
    assert "no place in the backbone: 1 (features.3.1.attn.logit_scale)" in refusal(strange)
    message = refusal(state, MODEL__ULGA__SWIN__DEPTHS=[1, 2, 2, 3])
    assert "not in the file: 13 (stages.stage5.2.norm1.weight, " in message
    assert "have no place in the backbone: 13 (features.1.1.norm1.weight, " in message
    assert 'MODEL.ULGA.SWIN.DEPTHS "[2, 2, 2, 2]"' in message
    message = refusal(state, MODEL__ULGA__SWIN__NUM_HEADS=[1, 2, 4, 4])
    assert "another shape: 2 (stages.stage4.0.attn.relative_position_bias_table: (49, 2) in" in (
        message
    )
    assert 'MODEL.ULGA.SWIN.NUM_HEADS "[1, 2, 2, 4]" MODEL.ULGA.SWIN.WINDOW_SIZE 4' in message


def test_another_kind_of_backbone_is_refused_with_the_builder_that_fits():
    state, _ = public.torchvision_vit()
    message = refusal(state)
    assert "w.pth is a ViT, torchvision's names" in message
    assert "MODEL.BACKBONE.NAME build_retinanet_ulga_vit_fpn_backbone" in message


@pytest.mark.parametrize("shape", [(1, 69, 32), (2, 65, 32), (65, 32)])
def test_a_position_table_of_no_square_map_is_refused_and_tells_no_size(shape):
    state, _ = public.timm_vit()
    message = refusal({**state, "pos_embed": torch.zeros(shape)}, backbone="vit")
    assert f"weights have another shape: 1 (position.pos_embed: {shape} in the file" in message
    assert "MODEL.ULGA.VIT.DEPTH 4" in message and "GRID_SIZE" not in message
    assert message.endswith("Not seen in the file, a guess after published ones: NUM_HEADS")


def test_relative_positions_that_the_model_has_not_are_refused_with_the_key():
    state, _ = public.detectron2_vit(use_rel_pos=True)
    message = refusal(state, backbone="vit")
    assert "blocks.0.attn.rel_pos_h" in message and "MODEL.ULGA.VIT.REL_POS True" in message


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"fc.weight": torch.ones(1)}, r"\(fc\.weight, \.\.\.\) are of no layout that is known"),
        ({"model": {}}, "no tensors"),
        ([torch.ones(1)], "a list and no weights by name"),
        ({"format": FORMAT, "model": {}}, "a checkpoint of this project and no public one; MODEL"),
    ],
)
def test_a_file_of_no_known_layout_is_refused(state, reason):
    with pytest.raises(UserError, match=reason):
        recognise(state, "w.pth")


def test_two_backbones_in_one_file_are_refused():
    state, _ = public.torchvision_vit()
    both = {
        f"{who}.{name}": value for who in ("student", "teacher") for name, value in state.items()
    }
    with pytest.raises(UserError, match=r"2 backbones, under 'student\.', 'teacher\.'; keep"):
        recognise(both, "w.pth")


def test_the_report_names_what_was_ignored_and_what_is_not_in_the_file():
    state, _ = public.microsoft_swin()
    state = {**{f"backbone.{k}": v for k, v in state.items()}, "neck.0.weight": torch.ones(1)}
    model = build_seeded_model(public.config("swin", MODEL__ULGA__INTERACTIONS=["acp"]))
    text = "\n".join(initialise(model, recognise({"state_dict": state}, "swin.pth")).lines())
    assert text.startswith("swin.pth (Swin, Microsoft's names): 117 weights of the backbone loaded")
    assert "ignored: tables that are computed anew: 9 (" in text
    assert "ignored: the classifier and its norm: 4 (backbone.norm.weight" in text
    assert "ignored: parts outside the backbone: 1 (neck.0.weight)" in text
    count = sum(".interaction." in name for name in model.state_dict())
    assert f"as initialised: interactions: {count} (backbone.bottom_up.stages.stage2.0." in text
    assert "as initialised: others: 44 (backbone.fpn_lateral2.weight, " in text
