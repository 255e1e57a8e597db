"""Detections: selecting, converting to other libraries' forms, and drawing."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from ulga_d2.drawing import marks
from ulga_d2.drawing.detections import (
    MAX_COVER,
    contact_cell,
    contact_sheet,
    draw_detections,
    reduce_for_viewing,
)
from ulga_d2.drawing.grid import MARGIN, PANEL
from ulga_d2.drawing.marks import LINE_HEIGHT, class_color
from ulga_d2.errors import UserError
from ulga_d2.inference.detections import Category, Detections

SIZE = (100, 200)
BOXES = [[20.0, 30.0, 60.0, 80.0], [100.5, 10.0, 150.0, 40.25], [5.0, 5.0, 15.0, 15.0]]
CATEGORIES = (Category(3, "ring"), Category(7, "solid"))


def rectangle_mask(box: list[float]) -> dict:
    pixels = np.zeros(SIZE, np.uint8, order="F")
    x0, y0, x1, y1 = map(int, box)
    pixels[y0:y1, x0:x1] = 1
    mask = run_lengths.encode(pixels)
    return {"size": mask["size"], "counts": mask["counts"].decode()}


def make(*, masks: bool = False, **changes: object) -> Detections:
    values = {
        "boxes": np.array(BOXES, np.float32),
        "scores": np.array([0.9, 0.5, 0.25], np.float32),
        "class_ids": np.array([1, 0, 1]),
        "categories": CATEGORIES,
        "image_size": SIZE,
        "source": "a.png",
        "masks": [rectangle_mask(box) for box in BOXES] if masks else None,
    }
    return Detections(**{**values, **changes})


def many(count: int, size: tuple[int, int], sides: tuple[int, int], classes: int) -> Detections:
    rng = np.random.default_rng(0)
    height, width = size
    start = rng.uniform(0, np.array([width, height]) - sides[1], (count, 2))
    boxes = np.concatenate([start, start + rng.uniform(*sides, (count, 2))], axis=1)
    return Detections(
        boxes.astype(np.float32),
        np.sort(rng.uniform(0.3, 1, count))[::-1].astype(np.float32),
        rng.integers(0, classes, count),
        tuple(Category(number + 1, f"kind{number}") for number in range(classes)),
        size,
    )


@pytest.mark.parametrize(
    ("index", "chosen"),
    [
        (1, [1]),
        (-1, [2]),
        (slice(1, None), [1, 2]),
        ([2, 0], [2, 0]),
        ([], []),
        (np.array([True, False, True]), [0, 2]),
    ],
)
def test_every_field_is_selected_by_number_slice_list_and_mask(index, chosen):
    found = make(masks=True)
    part = found[index]
    assert len(part) == len(chosen) and part.image_size == SIZE and part.source == "a.png"
    np.testing.assert_array_equal(part.boxes, np.array(BOXES, np.float32)[chosen].reshape(-1, 4))
    np.testing.assert_array_equal(part.scores, found.scores[chosen])
    assert part.class_names == tuple(found.class_names[number] for number in chosen)
    assert part.masks == [found.masks[number] for number in chosen]


def test_a_number_out_of_range_is_refused():
    with pytest.raises(IndexError):
        make()[3]


def test_filter_keeps_scores_from_the_threshold_on_and_the_classes_asked_for():
    found = make()
    assert len(found) == 3 and found.class_names == ("solid", "ring", "solid")
    assert found.filter(score=0.5).scores.tolist() == found.scores[:2].tolist()
    assert found.filter(classes=["ring"]).class_names == ("ring",)
    assert found.filter(classes="solid").class_names == ("solid", "solid")
    assert len(found.filter(0.3, ["solid"])) == 1 and len(found.filter(classes=[])) == 0
    with pytest.raises(UserError, match=r"unknown classes \['cube'\].*ring.*solid"):
        found.filter(classes=["ring", "cube"])


@pytest.mark.parametrize("masks", [False, True])
def test_plain_data_survive_json(masks):
    found = make(masks=masks)
    content = json.loads(json.dumps(found.to_dict()))
    assert (content["source"], content["height"], content["width"]) == ("a.png", *SIZE)
    assert [item["box"] for item in content["detections"]] == BOXES
    assert [item["class_name"] for item in content["detections"]] == list(found.class_names)
    assert [item["class_id"] for item in content["detections"]] == [1, 0, 1]
    assert [item.get("mask") for item in content["detections"]] == (found.masks or [None] * 3)
    assert np.float32([item["score"] for item in content["detections"]]).tolist() == (
        found.scores.tolist()
    )


def test_coco_results_have_the_own_ids_of_the_dataset_and_sides():
    results = json.loads(json.dumps(make(masks=True).to_coco(42)))
    assert [item["category_id"] for item in results] == [7, 3, 7]
    assert {item["image_id"] for item in results} == {42}
    assert results[1]["bbox"] == [100.5, 10.0, 49.5, 30.25]
    assert run_lengths.area(results[0]["segmentation"]) == 40 * 50
    assert "segmentation" not in make().to_coco(42)[0]


def test_instances_are_those_of_detectron2():
    instances = make(masks=True).to_instances()
    assert instances.image_size == SIZE and len(instances) == 3
    assert instances.pred_boxes.tensor.tolist() == BOXES
    assert instances.pred_classes.tolist() == [1, 0, 1]
    assert instances.pred_masks.shape == (3, *SIZE)
    assert instances.pred_masks[0].nonzero().amin(dim=0).tolist() == [30, 20]
    assert instances.pred_masks.sum(dim=(1, 2)).tolist() == [2000, 50 * 30, 100]
    assert not make().to_instances().has("pred_masks")
    assert len(make(masks=True)[[]].to_instances().pred_masks) == 0


def test_supervision_gets_boxes_scores_classes_and_masks():
    pytest.importorskip("supervision")
    theirs = make(masks=True).to_supervision()
    assert theirs.xyxy.tolist() == BOXES and theirs.class_id.tolist() == [1, 0, 1]
    assert theirs.data["class_name"].tolist() == ["solid", "ring", "solid"]
    assert theirs.mask.sum(axis=(1, 2)).tolist() == [2000, 50 * 30, 100]


def test_a_drawn_image_has_its_size_its_boxes_and_is_else_unchanged():
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3)).astype(np.uint8)
    before = image.copy()
    picture = make(read_image=lambda: image)[:1].draw()
    assert picture.size == (SIZE[1], SIZE[0])
    pixels = np.asarray(picture)
    np.testing.assert_array_equal(image, before)
    lines = (pixels == class_color(1)).all(axis=2)
    for x in (20, 60):
        assert lines[35:75, x - 2 : x + 3].any(axis=1).all()
    for y in (30, 80):
        assert lines[y - 2 : y + 3, 25:55].any(axis=0).all()
    changed = (pixels != image).any(axis=2)
    # Lines run along the box, the label above it is wider than the box, and nothing else changes.
    changed[30 - LINE_HEIGHT - 4 : 34, 16:160] = False
    changed[26:84, 16:64] = False
    assert not changed.any()
    assert (pixels[36:75, 26:54] == image[36:75, 26:54]).all()


def test_draw_leaves_out_scores_below_the_threshold():
    image = np.zeros((*SIZE, 3), np.float32)
    picture = np.asarray(make(read_image=lambda: image).draw(score=0.6))
    assert (picture == class_color(1)).all(axis=2).any()
    assert not (picture == class_color(0)).all(axis=2).any()
    with pytest.raises(UserError, match=r"a\.png is not kept"):
        make().draw()


def test_a_mask_is_filled_so_that_the_image_shows_through():
    image = np.full((*SIZE, 3), 100, np.uint8)
    picture = draw_detections(image, make(masks=True)[:1])
    mixed = np.rint(0.65 * 100 + 0.35 * np.array(class_color(1)))
    np.testing.assert_allclose(picture[55, 40], mixed, atol=1)
    assert (picture[55, 90] == 100).all()


def test_boxes_scale_with_the_picture():
    found = make()[:1]
    picture = draw_detections(np.zeros((400, 800, 3), np.uint8), found)
    lines = (picture == class_color(1)).all(axis=2)
    assert lines[150:300, 76:85].any(axis=1).all() and lines[150:300, 236:245].any(axis=1).all()


def test_lines_and_letters_grow_with_the_image():
    def share(height: int, width: int) -> float:
        box = np.float32([[width / 4, height / 4, width / 2, height / 2]])
        found = make(boxes=box, scores=np.float32([0.5]), class_ids=np.array([0]))
        found = Detections(found.boxes, found.scores, found.class_ids, CATEGORIES, (height, width))
        white = np.full((height, width, 3), 255, np.uint8)
        return float((draw_detections(white, found) != 255).any(axis=2).mean())

    assert 0.5 < share(3000, 4000) / share(750, 1000) < 2
    assert share(150, 200) > share(750, 1000)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 5)])
def test_the_smallest_images_can_be_drawn_on(size):
    found = make(
        boxes=np.float32([[0, 0, size[1], size[0]]]),
        scores=np.float32([0.5]),
        class_ids=np.array([0]),
        image_size=size,
    )
    assert draw_detections(np.zeros((*size, 3), np.uint8), found).shape == (*size, 3)


@pytest.mark.parametrize(("sides", "classes"), [((40, 110), 1), ((10, 30), 3), ((200, 600), 3)])
def test_labels_of_many_detections_are_fast_and_do_not_hide_the_image(sides, classes, monkeypatch):
    found = many(300, (2000, 2000), sides, classes)
    written = []
    write = marks._write_label

    def watched(canvas: np.ndarray, text: str, place: tuple[int, ...], *rest: object) -> None:
        written.append((text, place))
        write(canvas, text, place, *rest)

    monkeypatch.setattr(marks, "_write_label", watched)
    image = np.full((2000, 2000, 3), 100, np.uint8)
    start = time.process_time()
    draw_detections(image, found)
    assert time.process_time() - start < 1.0  # 0.2 s on an idle core
    places = np.array([place for _, place in written])
    area = ((places[:, 2] - places[:, 0]) * (places[:, 3] - places[:, 1])).sum()
    assert 20 < len(written) and area <= MAX_COVER * 2000 * 2000
    covered = np.zeros((2000, 2000), np.uint8)
    for x0, y0, x1, y1 in places:
        covered[y0:y1, x0:x1] += 1
    assert covered.max() == 1
    score = f"{found.scores[0]:.2f}"
    assert written[0][0] == (score if classes == 1 else f"{found.class_names[0]} {score}")


def test_a_large_image_is_reduced_for_viewing_and_a_small_one_is_not():
    large = np.zeros((3000, 6000, 3), np.float32)
    assert reduce_for_viewing(large).shape == (1000, 2000, 3)
    assert reduce_for_viewing(large[:1], longest=500).shape == (1, 500, 3)
    small = np.zeros((20, 30, 3), np.uint8)
    assert reduce_for_viewing(small) is small


def test_a_contact_sheet_holds_every_cell():
    image = np.full((*SIZE, 3), 100, np.uint8)
    cells = [contact_cell(image, make(), "sub/a.png"), contact_cell(image, make()[[]], "b.png")]
    assert cells[0].shape == (PANEL + LINE_HEIGHT, PANEL, 3)
    assert (cells[0] == class_color(0)).all(axis=2).any()
    assert not (cells[1][LINE_HEIGHT:] == class_color(0)).all(axis=2).any()
    assert (cells[0][:LINE_HEIGHT] != cells[1][:LINE_HEIGHT]).any()
    sheet = contact_sheet(cells * 4)
    assert sheet.shape[1] >= 5 * PANEL and sheet.shape[0] >= 2 * PANEL
    column = sheet[:, MARGIN : MARGIN + PANEL]
    starts = range(len(sheet) - len(cells[0]) + 1)
    assert [y for y in starts if (column[y : y + len(cells[0])] == cells[0]).all()] == [MARGIN]
