"""Figures of what happens inside a detector, drawn from views that were made up."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.made_up_views import SIDE, made_up_view
from ulga_d2.analysis import sheet
from ulga_d2.analysis.compare_depths import Depths
from ulga_d2.analysis.depth_sheet import agreements_of, depths_as_dict, draw_depths
from ulga_d2.analysis.rows import rows_of
from ulga_d2.analysis.sheet import draw_views
from ulga_d2.analysis.shown import (
    feature_colors,
    largest_concepts,
    reach,
    spread,
    view_as_dict,
)
from ulga_d2.drawing.page import Page, fold


def test_spread_takes_the_middle_of_each_part():
    assert spread(range(8), 3) == [1, 4, 6]
    assert spread(range(9), 3) == [1, 4, 7]
    assert spread(range(2), 3) == [0, 1]
    assert spread([], 3) == []


def test_the_largest_concepts_come_first_and_shares_are_means():
    maps = np.array([0.1, 0.5, 0.15, 0.25])[:, None, None] * np.ones((4, 2, 3))
    assert largest_concepts(maps) == [(1, 0.5), (3, 0.25), (2, pytest.approx(0.15))]


def test_reach_of_a_glance_at_one_cell_is_the_distance_to_its_centre():
    attention = np.zeros((4, 8))
    attention[3, 7] = 1  # of a map over 64 x 128 pixels: cells of 16, so the centre is (120, 56)
    assert reach(attention, np.array([117.0, 52.0]), (64, 128)) == 5


def test_a_query_that_looks_at_padding_alone_reaches_nowhere_and_can_be_drawn():
    view = made_up_view()
    nothing = replace(view.blocks[1], attention=np.zeros((3, 16, 16)))
    view = replace(view, blocks=(nothing,))
    assert np.isnan(reach(nothing.attention[0], view.queries[0], (128, 128)))
    told = view_as_dict(view)["blocks"][0]["attention"]
    assert told == [{"largest": 0.0, "on_padding": 1.0, "reach": None}] * 3
    (panel,) = rows_of(view)["attention 0"].panels
    assert "100 % on padding" in panel.title
    assert draw_views([view], "made up").std() > 0


def test_colors_of_features_are_their_coordinates_in_the_turned_space_that_made_them():
    random = np.random.default_rng(0)
    made = random.normal(size=(400, 3)) * [9, 3, 1]
    turn = np.linalg.qr(random.normal(size=(12, 12)))[0][:3]
    colors = feature_colors((made @ turn + 5).reshape(20, 20, 12))
    rgb = colors.rgb.reshape(-1, 3)
    for number in range(3):
        inside = (rgb[:, number] > 0) & (rgb[:, number] < 1)
        correlation = np.corrcoef(rgb[inside, number], made[inside, number])[0, 1]
        assert abs(correlation) > 0.99
        assert 0.95 < inside.mean() < 0.99  # but for the 1 % at either end
    assert sum(colors.explained) == pytest.approx(1)
    assert list(colors.explained) == sorted(colors.explained, reverse=True)


def test_colors_do_not_depend_on_the_sign_or_scale_of_the_features():
    features = made_up_view().levels["p3"]
    np.testing.assert_allclose(
        feature_colors(features).rgb, feature_colors(3 * features + 1).rgb, atol=1e-9
    )


@pytest.mark.parametrize("features", [np.ones((3, 3, 4)), np.ones((1, 1, 2))])
def test_features_without_variance_are_grey(features):
    colors = feature_colors(features)
    assert (colors.rgb == 0.5).all() and not sum(colors.explained)


def test_rows_of_a_kind_are_there_only_where_the_view_has_them():
    def kinds(**changes: bool) -> set[str]:
        return {key.split()[0] for key in rows_of(made_up_view(**changes))}

    assert kinds() == {"attention", "concepts", "features", "fields"}
    assert kinds(cat=False) == {"attention", "features", "fields"}
    assert kinds(sampled=True) == {"attention", "concepts", "points", "features", "fields"}


def test_points_that_all_queries_share_are_drawn_once_and_others_a_row_a_query():
    view = made_up_view(sampled=True)
    assert [key for key in rows_of(view) if "points" in key] == ["points"]
    blocks = tuple(
        block
        if block.points is None
        else replace(block, points=block.points + np.eye(3)[:, :1, None])
        for block in view.blocks
    )
    apart = rows_of(replace(view, blocks=blocks))
    assert [key for key in apart if "points" in key] == [
        "points 0",
        "points 1",
        "points background",
    ]


def test_titles_name_the_block_and_the_numbers_of_the_json():
    view = made_up_view()
    known = view_as_dict(view)
    rows = rows_of(view)
    block = known["blocks"][2]  # the middle of five: the second of two, and of three
    far = block["attention"][0]["reach"]
    assert rows["attention 0"].panels[1].title.startswith("stages.2, stride 8\nmax ")
    assert rows["attention 0"].panels[1].title.endswith(f", {far:.0f} px away")
    assert rows["attention 0"].heading.startswith("attention of query 1 (meningioma ")
    assert rows["attention background"].heading == "attention of query 3 (background)"
    shown = [known["blocks"][place] for place in (1, 3)]
    for number, block in enumerate(shown):
        row = rows[f"concepts {number}"]
        assert block["name"] in row.heading and f"{block['concept_entropy']:.2f}" in row.heading
        first = block["concepts"][0]["number"] + 1
        assert row.panels[0].title.startswith(f"concept {first} of 6\nshare ")
    radius = known["receptive_fields"]["p4"]["0.9"]
    assert rows["fields"].panels[1].title.endswith(f"90% in {radius:.0f} px")


def test_the_json_survives_its_own_format_and_holds_what_the_view_says():
    view = made_up_view(sampled=True)
    known = json.loads(json.dumps(view_as_dict(view), allow_nan=False))
    assert known["detections"][0]["score"] == view.scores[0]
    assert len(known["queries"]) == 3
    assert known["blocks"][4]["offsets"] == {"mean": 1.5, "std": 0.5}
    assert np.shape(known["blocks"][4]["points"]) == (3, 16, 2)
    assert known["blocks"][0]["similarity"] == view.blocks[0].similarity
    assert [level["cells"] for level in known["levels"].values()] == [[16, 16], [8, 8], [4, 4]]


def test_two_detectors_stand_side_by_side_and_every_panel_shows_something():
    views = [made_up_view("baseline", cat=False), made_up_view("both", sampled=True, seed=1)]
    picture = draw_views(views, "an image")
    alone = draw_views(views[1:], "an image")
    assert picture.dtype == np.uint8
    assert picture.shape[0] == pytest.approx(alone.shape[0], abs=100)  # the caption has more lines
    assert 1.8 * alone.shape[1] < picture.shape[1] < 2 * alone.shape[1]
    assert edges_are_white(picture)
    for half, rows in enumerate(map(rows_of, views)):
        for row, key in enumerate(KEYS):
            for column in range(len(rows[key].panels) if key in rows else 0):
                inside = panel_of(picture, half, row, column)
                assert len(np.unique(inside.reshape(-1, 3), axis=0)) > 5, (half, key, column)
    assert len(np.unique(panel_of(picture, 0, 0, 0).reshape(-1, 3), axis=0)) == 1  # "no CAT" only


KEYS = ["concepts 0", "concepts 1", "attention 0", "attention 1", "attention background", "points"]
KEYS += ["features", "fields"]


def panel_of(picture: np.ndarray, half: int, row: int, column: int) -> np.ndarray:
    """Return what is within a panel's frame."""
    x = sheet.MARGIN + half * sheet.HALF + column * (sheet.PANEL + sheet.GAP)
    y = sheet.top_of(row) + sheet.HEAD
    return picture[y + 3 : y + sheet.PANEL - 3, x + 3 : x + sheet.PANEL - 3]


def edges_are_white(picture: np.ndarray, width: int = 8) -> bool:
    """Tell whether nothing comes near the border, where it would be cut."""
    inner = picture.copy()
    inner[width:-width, width:-width] = 255
    return bool((inner == 255).all())


def test_a_view_without_detections_is_drawn_beside_one_with_the_background_in_one_row():
    view, other = made_up_view(found=0), made_up_view()
    assert rows_of(view)["attention background"].heading == "attention of query 1 (background)"
    assert {key for key in rows_of(other) if key not in rows_of(view)} == {
        "attention 0",
        "attention 1",
    }
    assert edges_are_white(draw_views([view, other], "an image"))


def test_a_wide_image_keeps_its_shape_in_the_figure():
    view = made_up_view(cat=False)
    flat = replace(view, image=view.image[: SIDE // 2], blocks=(), fields=(), levels={})
    rows, columns = np.nonzero(draw_views([flat], "")[60:480, 20:460].max(axis=2) < 120)
    assert (np.ptp(columns) + 1) / (np.ptp(rows) + 1) == pytest.approx(2, rel=0.1)


def depths(entropy: np.ndarray, seed: int = 0) -> Depths:
    random = np.random.default_rng(seed)
    curves = {place: random.uniform(size=len(entropy)) for place in ("before", "after", "out")}
    features = tuple(random.normal(size=(64, 5)) for _ in entropy)
    names = tuple(f"stages.{n}" for n in range(len(entropy)))
    return Depths(names, curves, {"entropy": entropy, "rank": entropy / 2}, features)


def test_curves_and_matrices_over_depth_fill_a_page():
    plain, both = depths(np.full(6, np.nan)), depths(np.linspace(0, 1, 4), 1)
    found = agreements_of({"plain": plain, "both": both})
    assert [(one.rows, one.columns) for one in found] == [
        ("plain", "plain"),
        ("both", "both"),
        ("plain", "both"),
    ]
    assert found[2].matrix.shape == (6, 4)
    with_cat = draw_depths({"plain": plain, "both": both}, found, "2 images")
    alone = draw_depths({"plain": plain}, found[:1], "2 images")
    assert edges_are_white(with_cat) and edges_are_white(alone)
    assert (with_cat != 255).sum() > 1.5 * (alone != 255).sum()


def test_the_numbers_over_depth_are_plain_and_lack_what_is_not_there():
    plain, both = depths(np.full(6, np.nan)), depths(np.linspace(0, 1, 4), 1)
    found = agreements_of({"plain": plain, "both": both})
    known = depths_as_dict({"plain": plain, "both": both}, found)
    known = json.loads(json.dumps(known, allow_nan=False))
    left, right = known["detectors"]
    assert left["concepts"]["entropy"] == [None] * 6 and right["concepts"]["rank"][3] == 0.5
    assert right["similarity"]["out"] == both.similarity["out"].tolist()
    assert known["cka"][2]["matrix"] == found[2].matrix.tolist()
    assert np.diag(known["cka"][0]["matrix"]) == pytest.approx(1)


def test_a_page_counts_pixels_from_its_upper_left_corner():
    page = Page(100, 60)
    axes = page.axes(10, 20, 30, 15)
    axes.set(xticks=[], yticks=[], facecolor="black")
    dark = np.argwhere(page.pixels().max(axis=2) < 10)
    assert np.abs(dark.min(axis=0) - [20, 10]).max() <= 1
    assert np.abs(dark.max(axis=0) - [34, 39]).max() <= 1


def test_words_are_folded_at_blanks_and_keep_their_paragraphs():
    assert fold("aaaa bbbb cccc\n\nd", 58) == "aaaa bbbb\ncccc\n\nd"
