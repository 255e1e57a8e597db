"""Annotated images show boxes and masks where they are, and damaged files as such."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from data_files import write_image
from detectron2.structures import BoxMode
from pycocotools import mask as run_lengths

from ulga_d2.data import sheet
from ulga_d2.data.sheet import annotated, contact_sheet, sample_of
from ulga_d2.drawing import marks as marks_of_drawing
from ulga_d2.drawing.marks import (
    MAX_COVER,
    MOST_NAMED,
    MOST_TRIED,
    WHITE,
    Mark,
    class_color,
    class_legend,
    draw_marks,
)


def record_of(path: Path, category: int | None, *, with_mask: bool = False) -> dict:
    """Return a 40 x 20 image with a box at (8, 4) to (24, 12), its mask the same rectangle."""
    if not path.exists():
        write_image(path)
    mask = np.zeros((20, 40), np.uint8, order="F")
    mask[4:12, 8:24] = 1
    item = {
        "bbox": [8.0, 4.0, 24.0, 12.0],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": category,
        "iscrowd": 0,
    }
    if with_mask:
        item["segmentation"] = run_lengths.encode(mask)
    annotations = [] if category is None else [item]
    return {"file_name": str(path), "height": 20, "width": 40, "annotations": annotations}


def coloured(picture: np.ndarray, category: int) -> np.ndarray:
    """Return (N, 2): x and y of the pixels in the colour of a class."""
    rows, columns = np.nonzero((picture == class_color(category)).all(axis=2))
    return np.stack([columns, rows], axis=1)


def test_a_small_image_is_enlarged_and_its_box_with_it(tmp_path):
    picture = annotated(record_of(tmp_path / "a.png", 1), ("ring", "solid"))
    assert picture.shape == (256, 512, 3)
    points = coloured(picture[:, :320], 1)
    scale = 512 / 40
    for edge in (8 * scale, 24 * scale):
        assert np.abs(points[:, 0] - edge).min() <= 1


def test_a_mask_is_outlined(tmp_path):
    plain = annotated(record_of(tmp_path / "a.png", 0), ("ring",))
    masked = annotated(record_of(tmp_path / "a.png", 0, with_mask=True), ("ring",))
    inside = np.zeros(plain.shape[:2], bool)
    inside[45:160, 95:315] = True
    changed = (plain != masked).any(axis=2)
    assert changed[inside].any()
    assert not changed[200:].any() and not changed[:, 400:].any()


def test_a_sheet_says_what_cannot_be_decoded(tmp_path):
    good, bad = record_of(tmp_path / "a.png", 0), record_of(tmp_path / "b.png", 0)
    Path(bad["file_name"]).write_bytes(b"no image")
    sheet = contact_sheet("title", [good, bad], ("ring",))
    assert sheet.shape[1] == 2 * 330 + 10
    assert len(coloured(sheet[80:, :335], 0)) and not len(coloured(sheet[80:, 335:], 0))


def test_a_sample_has_every_class_and_images_without_boxes_and_heeds_its_seed(tmp_path):
    records = [record_of(tmp_path / "a.png", category) for category in (0, 1, None)]
    many = [dict(record, number=number) for number in range(30) for record in records]
    for seed in (0, 1):
        chosen = sample_of(many, 6, seed)
        classes = [[item["category_id"] for item in record["annotations"]] for record in chosen]
        assert sorted(map(str, classes)) == ["[0]", "[0]", "[1]", "[1]", "[]", "[]"]
        assert chosen == sample_of(many, 6, seed)
    numbers = [[record["number"] for record in sample_of(many, 6, seed)] for seed in (0, 1)]
    assert numbers[0] != numbers[1]


@pytest.mark.parametrize(("classes", "boxes", "named"), [(1, 2, 0), (2, 20, 20), (2, 40, 0)])
def test_labels_are_left_out_where_the_legend_tells_the_class(
    tmp_path, monkeypatch, classes, boxes, named
):
    drawn = []
    monkeypatch.setattr(sheet, "draw_marks", lambda _, marks, **__: drawn.extend(marks))
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
    annotations = [
        {"bbox": [n, n, n + 9, n + 9], "category_id": n % classes, "iscrowd": 0}
        for n in range(boxes)
    ]
    record = {"file_name": str(path), "width": 64, "height": 64, "annotations": annotations}
    sheet.contact_sheet("title", [record], ("cell", "other", "third")[:classes])
    assert (len(drawn), sum(bool(mark.label) for mark in drawn)) == (boxes, named)


def test_labels_of_a_sheet_cover_no_other_label_and_little_of_the_image():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 290, (100, 2))
    marks = [Mark(np.array([*xy, *(xy + 20)]), "a class of many", WHITE) for xy in corners]
    canvas = np.full((320, 320, 3), 200, np.uint8)
    boxes = draw_marks(canvas.copy(), [mark._replace(label="") for mark in marks], dashed=False)
    labelled = draw_marks(canvas.copy(), marks, dashed=False, max_cover=MAX_COVER)
    assert 0.02 < (boxes != labelled).any(axis=2).mean() <= MAX_COVER


def test_the_labels_of_a_crowded_sheet_are_tried_for_the_first_boxes_alone(monkeypatch):
    tried = []
    place = marks_of_drawing._best_place
    monkeypatch.setattr(
        marks_of_drawing, "_best_place", lambda *given: tried.append(given) or place(*given)
    )
    marks = [Mark(np.array([1.0, 2.0, 30.0, 40.0]), f"c{n}", WHITE) for n in range(5000)]
    canvas = np.zeros((320, 320, 3), np.uint8)
    draw_marks(canvas, marks, dashed=False, max_cover=MAX_COVER)
    assert len(tried) == MOST_TRIED


def test_a_legend_of_thousands_of_classes_names_the_first_and_counts_the_rest():
    names = [f"c{n}" for n in range(20_000)]
    legend = class_legend(range(20_000), names)
    assert [words for words, _ in legend][:3] == ["classes:", "c0", "c1"]
    assert legend[-1][0] == f"and {20_000 - MOST_NAMED:,} more" and len(legend) == MOST_NAMED + 2
    assert [words for words, _ in class_legend([2, 0, 2], names)] == ["classes:", "c0", "c2"]
