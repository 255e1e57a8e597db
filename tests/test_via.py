"""The VIA reader: shapes, classes, both versions, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from annotation_files import POLYGON, RECT, via_file, via_region
from data_files import boxes_of, write_image
from pycocotools import mask as run_lengths

from ulga_d2.data.brain_tumor import describe, find_layout, load_brain_tumor
from ulga_d2.data.formats.via import read_via
from ulga_d2.data.record import EMPTIED, LoadedSplit
from ulga_d2.errors import UserError

SIDE = 100
CIRCLE = {"name": "circle", "cx": 50, "cy": 40, "r": 20}
ELLIPSE = {"name": "ellipse", "cx": 50, "cy": 40, "rx": 30, "ry": 10, "theta": math.pi / 6}


def write(root: Path, value: object, file: str = "via.json") -> Path:
    for name in ("a.png", "b.png"):
        write_image(root / name, SIDE, SIDE)
    (root / file).write_text(value if isinstance(value, str) else json.dumps(value))
    return root / file


def read(root: Path, value: object, **options: object) -> LoadedSplit:
    return read_via(write(root, value), root, **options)


def pixels_in_ellipse(shape: dict) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    x, y = x - shape["cx"], y - shape["cy"]
    cos, sin = math.cos(shape.get("theta", 0)), math.sin(shape.get("theta", 0))
    along, across = x * cos + y * sin, y * cos - x * sin
    radii = shape.get("rx", shape.get("r")), shape.get("ry", shape.get("r"))
    return (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1


@pytest.mark.parametrize("shape", [CIRCLE, ELLIPSE, {**ELLIPSE, "theta": 2.0}])
def test_an_ellipse_gives_the_box_and_the_mask_of_its_pixels(tmp_path, shape):
    loaded = read(tmp_path, via_file(via_region(shape)), class_names=("tumor",))
    (annotation,) = loaded.records[0]["annotations"]
    expected = pixels_in_ellipse(shape)
    mask = run_lengths.decode(annotation["segmentation"])
    assert (mask != expected).sum() < 0.03 * expected.sum()
    rows, columns = np.nonzero(expected)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(annotation["bbox"], box, atol=0.8)


def test_polygons_give_masks_and_rectangles_boxes_alone(tmp_path):
    loaded = read(tmp_path, via_file(via_region(POLYGON), via_region(RECT)), class_names=("tumor",))
    assert boxes_of(loaded.records[0]) == [[10, 20, 30, 50], [4, 2, 12, 12]]
    polygon, rectangle = loaded.records[0]["annotations"]
    assert run_lengths.area(polygon["segmentation"]) == 600
    assert "segmentation" not in rectangle


@pytest.mark.parametrize(
    "value",
    [
        via_file(via_region(RECT, kind="ring")) | via_file(name="b.png"),
        {"_via_settings": {}, "_via_img_metadata": via_file(via_region(RECT, kind="ring"))},
        {"a": {"filename": "a.png", "regions": {"0": via_region(RECT, kind="ring")}}},
    ],
)
def test_versions_and_projects_are_read_alike(tmp_path, value):
    loaded = read(tmp_path, value)
    assert loaded.class_names == ("ring",)
    assert boxes_of(loaded.records[0]) == [[4, 2, 12, 12]]
    assert all(not record["annotations"] for record in loaded.records[1:])


def test_the_attribute_of_the_class_is_named_where_there_are_several(tmp_path):
    value = via_file(via_region(RECT, kind="ring", quality="good"))
    with pytest.raises(UserError, match=r"attributes kind, quality; say under `class_attribute`"):
        read(tmp_path, value)
    assert read(tmp_path, value, class_attribute="kind").class_names == ("ring",)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", r"via\.json, line 1: not valid JSON"),
        ("[" * 100_000, r"not valid JSON"),
        ([], r"no annotations of VIA 1 or 2"),
        ({"a": {"filename": "a.png"}}, r"no annotations of VIA 1 or 2"),
        ({"project": {}, "file": {}, "view": {}}, r"no annotations of VIA 1 or 2"),
        (via_file(3), r"via\.json, a\.png, region 0: has no shape_attributes"),
        (
            via_file(via_region({"name": "star"})),
            r"'star' is no shape that VIA draws; correct or delete",
        ),
        (via_file(via_region({"name": ["x"]})), r"is no shape that VIA draws"),
        (via_file(via_region({**RECT, "x": "four"})), r"the x of a rect is 'four'"),
        (via_file(via_region({**RECT, "x": True})), r"the x of a rect is 'True'"),
        (via_file(via_region({**CIRCLE, "r": math.inf})), r"the r of a circle is 'inf'"),
        (
            via_file(via_region({**POLYGON, "all_points_x": [1, math.nan, 3, 4]})),
            r"are not lists of numbers",
        ),
        (via_file(via_region({**RECT, "x": 10**30})), r"the x of a rect is"),
        (via_file(via_region({**POLYGON, "all_points_x": [1, 2]})), r"2 x and 4 y; it takes three"),
        (via_file(via_region({**POLYGON, "all_points_x": 3})), r"are not lists of numbers"),
        (
            via_file(via_region(RECT), via_region(RECT, kind="dot")),
            r"unknown classes 'dot' \(1 boxes\)",
        ),
        (via_file(via_region(RECT, kind={"dot": True})), r"region 0: its kind is no text"),
        (
            via_file() | {"x": {"filename": "a.png", "regions": []}},
            r"a\.png: stands twice; merge its two entries",
        ),
        (via_file(name="c.png"), r"missing or unreadable"),
    ],
)
def test_faulty_files_stop_with_the_region_and_the_cure(tmp_path, value, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, value, class_names=("tumor",))


def test_a_region_without_class_is_never_guessed(tmp_path):
    with pytest.raises(UserError, match="region 1: does not say its class"):
        read(tmp_path, via_file(via_region(RECT, kind="ring"), via_region(POLYGON)))
    with pytest.raises(UserError, match="no region says its class; give `class_names`"):
        read(tmp_path, via_file(via_region(RECT)))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"name": "point", "cx": 1, "cy": 2}, "points and lines, which have no area, dropped"),
        ({**CIRCLE, "r": 0}, "boxes without area dropped"),
        ({**ELLIPSE, "rx": -3}, "boxes without area dropped"),
        ({**RECT, "width": 0}, "boxes without area dropped"),
    ],
)
def test_single_bad_shapes_are_dropped_and_counted(tmp_path, shape, reason):
    loaded = read(tmp_path, via_file(via_region(shape)), class_names=("tumor",))
    assert loaded.records == []
    assert loaded.report.reasons[reason] == loaded.report.reasons[EMPTIED] == 1
    assert loaded.report.found_boxes == loaded.report.dropped_boxes == 1


@pytest.mark.parametrize("folders", [("train", "val"), ("TRAIN", "VAL")])
def test_br35h_is_a_brain_tumour_set_of_one_class(tmp_path, folders):
    for folder, name in zip(
        folders, ("annotations_train.json", "annotations_val.json"), strict=True
    ):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, via_file(via_region(CIRCLE)), name)
    assert describe(find_layout(tmp_path)) == "VIA, 2 train / 2 val images"
    loaded = load_brain_tumor(tmp_path, "val")
    assert loaded.class_names == ("tumor",)
    assert boxes_of(loaded.records[0]) == [[30, 20, 70, 60]]
    (tmp_path / folders[0] / "via_region_data.json").write_text("{}")
    with pytest.raises(UserError, match="would both be the annotations of train; move one away"):
        find_layout(tmp_path)
