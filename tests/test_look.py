"""What is seen inside detectors: against the modules' own outputs, for all three backbones."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.conftest import CONFIGS
from tests.tiny_detectors import CLASSES, options
from ulga_d2.analysis.compare_depths import depths_of
from ulga_d2.analysis.look import look
from ulga_d2.analysis.record import attention_rows, recorded, sampled_points
from ulga_d2.analysis.similarity import mean_cosine
from ulga_d2.analysis.view import View
from ulga_d2.config import default_category_ids, resolve_classes
from ulga_d2.engine.launch import read_config
from ulga_d2.inference.model import build_seeded_model
from ulga_d2.layers.attention import GlobalAttention, WindowAttention
from ulga_d2.layers.deformable_attention import DeformableAttention, sample
from ulga_d2.layers.neighborhood_attention import NeighborhoodAttention
from ulga_d2.layers.windows import window_geometry

KINDS = [f"{name}_{variant}" for name in ("swin", "vit", "dat") for variant in ("baseline", "ulga")]
ALL = ["MODEL.RETINANET.SCORE_THRESH_TEST", "0.0"]  # untrained detectors are sure of nothing
ATTENTIONS = {
    "windows": WindowAttention(16, num_heads=2, window_size=4, shift_size=0),
    "shifted": WindowAttention(16, num_heads=2, window_size=4, shift_size=2),
    "whole": GlobalAttention(16, num_heads=4, window_size=0, rel_pos_size=0),
    "whole, biased": GlobalAttention(16, num_heads=4, window_size=0, rel_pos_size=5),
    "in windows": GlobalAttention(16, num_heads=4, window_size=4, rel_pos_size=4),
    "neighbours": NeighborhoodAttention(16, num_heads=2, window_size=5),
}


def detector_of(kind: str, *more: str) -> nn.Module:
    config = str(Path(CONFIGS) / f"brain_tumor_{kind}_nano.yaml")
    args = argparse.Namespace(config_file=config, opts=[*options(), *ALL, *more], eval_only=True)
    cfg = read_config(args)
    resolve_classes(cfg, CLASSES, default_category_ids(len(CLASSES)))
    return build_seeded_model(cfg).eval()


def image_of(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)) * 255


def view_of(kind: str, height: int = 48, width: int = 64, score: float = 0.0) -> View:
    image = image_of(height, width)
    return look(detector_of(kind), image, name=kind, class_names=CLASSES, score=score)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (3, 4)])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_rows_of_attention_times_values_are_what_the_attention_returns(name, size):
    torch.manual_seed(0)
    attn, x = ATTENTIONS[name], torch.randn(1, *size, 16)
    for weight in attn.parameters():
        nn.init.normal_(weight, std=0.5)
    with torch.no_grad():  # one value in all channels and heads, 0 where a map is padded
        attn.qkv.weight[32:] = torch.randn(16)
        attn.qkv.bias[32:] = 0
        values = attn.qkv(x)[0, ..., -1]
    cells = torch.tensor([[0, 0], [size[0] - 1, size[1] - 1], [size[0] // 2, 1]])
    rows = attention_rows(attn, x, cells)
    assert rows.shape == (3, *size) and (rows >= 0).all() and (rows.sum(dim=(1, 2)) < 1.0001).all()
    returned = {}
    hook = attn.proj.register_forward_pre_hook(lambda _m, inputs: returned.update(it=inputs[0][0]))
    attn(x)
    hook.remove()
    wanted = returned["it"][cells[:, 0], cells[:, 1]].mean(dim=-1)  # of channels, so of heads
    assert torch.allclose((rows * values).sum(dim=(1, 2)), wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["windows", "shifted"])
def test_rows_are_the_softmax_and_miss_one_by_what_goes_to_padding(name, monkeypatch):
    torch.manual_seed(0)
    attn, x, seen = ATTENTIONS[name], torch.randn(1, 7, 10, 16), {}
    attend = F.scaled_dot_product_attention

    def spy(query, key, value, attn_mask=None, **more):
        seen["logits"] = query @ key.transpose(-1, -2) * more.get("scale", key.shape[-1] ** -0.5)
        seen["logits"] = seen["logits"] + (0 if attn_mask is None else attn_mask)
        return attend(query, key, value, attn_mask=attn_mask, **more)

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(F, "scaled_dot_product_attention", spy)
        attn(x)
    shares = seen["logits"].softmax(dim=-1).reshape(-1, 2, 16, 16).mean(dim=1)  # (windows, L, L)
    geometry = window_geometry(7, 10, 4, attn.shift_size, x.device)
    in_window = geometry.tokens.view(-1, 16)
    on_padding = []
    for token in range(70):
        window, slot = divmod(int(geometry.slots[token]), 16)
        wanted = torch.zeros(71).index_add_(0, in_window[window], shares[window, slot])
        (row,) = attention_rows(attn, x, torch.tensor([divmod(token, 10)]))
        assert torch.allclose(row.flatten(), wanted[:70], atol=1e-5)
        assert float(row.sum() + wanted[70]) == pytest.approx(1, abs=1e-5)
        on_padding.append(float(wanted[70]))
    assert max(on_padding) > 0.01


def test_attention_without_padding_sums_to_one_and_stays_in_its_window():
    attn = ATTENTIONS["windows"]
    (row,) = attention_rows(attn, torch.randn(1, 8, 8, 16), torch.tensor([[1, 6]]))
    assert row[:4, 4:].sum() == pytest.approx(1, abs=1e-5)
    assert row.sum() == pytest.approx(1, abs=1e-5)


def test_points_are_where_the_attention_reads_the_map():
    torch.manual_seed(0)
    attn = DeformableAttention(
        16, num_heads=2, num_groups=1, kernel_size=3, stride=2, grid_size=4, offset_init="default",
        ref_points="centred", interaction=nn.Identity()
    )  # fmt: skip
    x = torch.randn(1, 6, 9, 16)
    places, lengths = sampled_points(attn, x)
    assert places.shape == (3 * 5, 2) and lengths.shape == (3 * 5,)
    # A map of its own coordinates, read at the points, gives the places.
    row, column = torch.meshgrid(torch.arange(6.0) + 0.5, torch.arange(9.0) + 0.5, indexing="ij")
    read = sample(torch.stack([column, row], dim=-1)[None], attn.points(attn.q(x)))
    assert torch.allclose(read[0], places, atol=1e-4)


def test_offsets_are_told_in_tokens():
    attn = DeformableAttention(
        8, num_heads=1, num_groups=1, kernel_size=3, stride=1, grid_size=4, offset_init="zero",
        ref_points="centred", interaction=nn.Identity()
    )  # fmt: skip
    x = torch.randn(1, 5, 5, 8)
    before, lengths = sampled_points(attn, x)
    assert not lengths.any()
    # A quarter of the map down, whatever the query: one token of five.
    attn.offsets.register_forward_hook(lambda _m, _i, out: out + torch.tensor([0.5, 0.0]))
    after, lengths = sampled_points(attn, x)
    assert torch.allclose(lengths, torch.ones(25))
    moved = (after - before)[before[:, 1] < 4]
    assert torch.allclose(moved, torch.tensor([0.0, 1.0]).expand_as(moved), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_of_a_detector_has_what_its_kind_has(kind):
    view = view_of(kind)
    assert view.image.shape == (64, 64, 3)
    assert len(view.boxes) == len(view.scores) == len(view.labels) == 5
    assert len(view.queries) == 3 and set(view.labels) <= set(CLASSES)
    assert sorted(view.levels) == ["p3", "p4", "p5"]
    for number, level in enumerate(("p3", "p4", "p5")):
        assert view.levels[level].shape[:2] == (64 >> (3 + number), 64 >> (3 + number))
        assert view.fields[number].level == level
        assert view.fields[number].density.shape == (64, 64)
    for block in view.blocks:
        cells = 64 // block.stride, 64 // block.stride
        assert set(block.similarity) == {"before", "after", "out"}
        assert (block.attention is None) != (block.points is None)
        if block.attention is not None:
            assert block.attention.shape == (3, *cells)
        has_cat = "ulga" in kind
        assert (block.concept_maps is not None) == has_cat
        assert (block.similarity["before"] == block.similarity["after"]) == (not has_cat)
        if has_cat:
            assert block.concept_maps.shape == (4, *cells)
            assert np.allclose(block.concept_maps.sum(axis=0), 1, atol=1e-5)
            assert 0 < block.concept_entropy <= 1
    assert any(block.points is not None for block in view.blocks) == kind.startswith("dat")


def test_an_image_that_no_stride_divides_is_seen_with_its_padding():
    view = view_of("swin_ulga", 50, 37)
    assert view.image.shape == (64, 64, 3)
    image = image_of(50, 37).permute(1, 2, 0).numpy()
    assert np.allclose(view.image[:50, :37], image, atol=1e-3)
    assert np.allclose(view.image[50:, 37:], [123.675, 116.28, 103.53], atol=1e-3)


def test_without_detections_the_one_query_is_of_the_background():
    view = view_of("swin_baseline", score=1.0)
    assert len(view.boxes) == 0 and view.queries.shape == (1, 2)


def test_the_background_is_asked_for_away_from_the_detections():
    view = view_of("swin_baseline", score=0.0)
    x, y = view.queries[-1]
    left, top, right, bottom = view.boxes.T
    inside = (left < x) & (x < right) & (top < y) & (y < bottom)
    middle = (0.25 * 64 <= x <= 0.75 * 64) and (0.25 * 64 <= y <= 0.75 * 64)
    assert middle and not inside.any()


@pytest.mark.parametrize("kind", ["swin_ulga", "dat_baseline"])
def test_looking_leaves_no_hook_and_changes_no_output(kind):
    detector, image = detector_of(kind), image_of(64, 64)
    with torch.no_grad():
        before = detector([{"image": image}])[0]["instances"].scores
    look(detector, image, name="", class_names=CLASSES, score=0.0)
    with torch.no_grad():
        after = detector([{"image": image}])[0]["instances"].scores
    assert torch.equal(before, after)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in detector.modules())
    assert all(weight.grad is None for weight in detector.parameters())


def test_hooks_are_taken_off_after_an_error():
    backbone = detector_of("swin_ulga").backbone.bottom_up
    with pytest.raises(RuntimeError), recorded(backbone):
        backbone(torch.zeros(1, 5, 64, 64))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.modules())


@pytest.mark.parametrize("offset_input", ["enhanced", "plain"])
def test_the_interaction_inside_a_deformable_attention_is_seen_too(offset_input):
    detector = detector_of("dat_ulga", "MODEL.ULGA.DAT.OFFSET_INPUT", offset_input)
    depths = depths_of(detector, [image_of(64, 64)])
    assert (depths.similarity["before"] != depths.similarity["after"]).all()


def test_depths_are_means_over_images_and_features_lie_on_one_grid():
    detector, images = detector_of("swin_ulga"), [image_of(64, 64), image_of(40, 64) / 2]
    both, each = depths_of(detector, images), [depths_of(detector, [one]) for one in images]
    for place in ("before", "after", "out"):
        wanted = np.mean([one.similarity[place] for one in each], axis=0)
        assert np.allclose(both.similarity[place], wanted)
    assert both.names == tuple(f"stages.stage{n}.0" for n in (2, 3, 4, 5))
    assert [feature.shape for feature in both.features] == [(128, 16 * 2**n) for n in range(4)]
    view = look(detector, images[0], name="", class_names=CLASSES, score=0.0)
    known = [block.similarity["out"] for block in view.blocks]
    assert np.allclose(each[0].similarity["out"], known)
    plain = depths_of(detector_of("swin_baseline"), images[:1])
    for kind in ("entropy", "rank"):
        assert (both.concepts[kind] > 0).all() and (both.concepts[kind] <= 1).all()
        assert np.isnan(plain.concepts[kind]).all()


def test_similarity_is_that_of_the_tokens_that_pass():
    detector, image = detector_of("vit_ulga"), image_of(64, 64)
    with torch.no_grad(), recorded(detector.backbone.bottom_up) as blocks:
        detector.backbone(detector.preprocess_image([{"image": image}]).tensor)
        x = blocks[0].tokens["before"]
        wanted = blocks[0].block.interaction(x)
    assert torch.allclose(blocks[0].tokens["after"], wanted, atol=1e-6)
    view = look(detector, image, name="", class_names=CLASSES, score=0.0)
    assert view.blocks[0].similarity["after"] == pytest.approx(mean_cosine(wanted[0]), abs=1e-6)
