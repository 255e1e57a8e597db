"""A picture of truth and detections side by side on a few images of a set."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..drawing.choice import choose_images
from ..drawing.grid import PANEL, blank, fit, grid, header, png
from ..drawing.marks import (
    LINE_HEIGHT,
    MANY,
    MAX_COVER,
    WHITE,
    Color,
    Mark,
    class_color,
    class_legend,
    draw_corners,
    draw_marks,
    needs_names,
    put_text,
    shorten,
    text_width,
)
from .atomic import write_atomically
from .boxes import Prediction, Record, xywh_box

GUTTER = 2
CELL_WIDTH = 2 * PANEL + GUTTER
MAX_COLUMNS = 3
MAX_DETECTIONS_SHOWN = 8


def draw_predictions(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    class_names: Sequence[str],
    path: str,
    *,
    read_image: Callable[[str], np.ndarray],
    max_images: int = 12,
    score_threshold: float = 0.3,
) -> None:
    """Write a PNG grid of truth (left, solid) and detections (right, dashed) on chosen images.

    The images are chosen by `choose_images` from the ground truth alone: no result, good or bad,
    has a say in it. On the right, white corners repeat where the truth is.

    Args:
        records: ground truth of the whole set; read are image_id, file_name, height, width and
            annotations.
        predictions: COCO's result list on that set.
        class_names: by category_id.
        path: the PNG to write.
        read_image: from file_name to RGB pixels (H, W, 3) in 0..255.
        max_images: images in the grid.
        score_threshold: detections below it are left out.
    """
    chosen = [records[index] for index in choose_images(records, max_images)]
    found = _confident(predictions, chosen, score_threshold)
    cells = []
    for record in chosen:
        image = read_image(record["file_name"])
        cells.append(_cell(record, found[record["image_id"]], class_names, image, score_threshold))
    images = grid(cells, MAX_COLUMNS)
    title = _title(chosen, found, len(records), score_threshold)
    drawn = {box["category_id"] for record in chosen for box in record["annotations"]}
    drawn |= {p["category_id"] for of_image in found.values() for p in of_image}
    words = header([title, class_legend(drawn, class_names)], images.shape[1])
    write_atomically(path, png(np.concatenate([words, images])))


def _confident(
    predictions: Sequence[Prediction], chosen: Sequence[Record], score_threshold: float
) -> dict[int | str, list[Prediction]]:
    """Return, by image, the detections to draw, best first."""
    found: dict[int | str, list[Prediction]] = {record["image_id"]: [] for record in chosen}
    for prediction in sorted(predictions, key=lambda prediction: -prediction["score"]):
        if prediction["image_id"] in found and prediction["score"] >= score_threshold:
            found[prediction["image_id"]].append(prediction)
    return found


def _title(
    chosen: Sequence[Record],
    found: Mapping[int | str, Sequence[Prediction]],
    num_images: int,
    score_threshold: float,
) -> list[tuple[str, Color]]:
    objects = _count(sum(len(record["annotations"]) for record in chosen), "object")
    detections = _count(sum(map(len, found.values())), "detection")
    phrases = [
        f"{len(chosen)} of {num_images} images, chosen without looking at the results",
        f"left: {objects} (solid)",
        f"right: {detections} (dashed) with score >= {score_threshold:g}",
        "white corners: where the truth is",
    ]
    return [(phrase, WHITE) for phrase in phrases]


def _cell(
    record: Record,
    found: Sequence[Prediction],
    class_names: Sequence[str],
    image: np.ndarray,
    score_threshold: float,
) -> np.ndarray:
    """Draw one image twice, with the truth and with its detections, under a line of words."""
    panel, corner, size = fit(image)
    scale = size / np.array([record["width"], record["height"]])
    objects, best = record["annotations"], found[:MAX_DETECTIONS_SHOWN]
    # The legend tells classes where labels do not.
    names = class_names if needs_names(len(class_names), len(objects)) else [""] * len(class_names)
    truth = [
        _mark(xywh_box(box), names[box["category_id"]], box["category_id"], corner, scale)
        for box in objects
    ]
    names = class_names if needs_names(len(class_names), len(best)) else [""] * len(class_names)
    shown = [
        _mark(
            p["bbox"],
            f"{names[p['category_id']]} {p['score']:.2f}".strip(),
            p["category_id"],
            corner,
            scale,
        )
        for p in best
    ]
    max_cover = MAX_COVER if len(truth) > MANY else None
    left = draw_marks(panel.copy(), truth, dashed=False, max_cover=max_cover)
    right = panel.copy()
    for mark in truth:
        draw_corners(right, mark.box, WHITE)
    draw_marks(right, shown, dashed=True)
    divider = blank(PANEL, GUTTER)
    caption = blank(LINE_HEIGHT, CELL_WIDTH)
    count = f"   {_count(len(truth), 'object')}"
    name = shorten(os.path.basename(record["file_name"]), PANEL - text_width(count))
    put_text(caption, name + count, 0, 0, WHITE)
    put_text(caption, _summary(len(found), score_threshold), PANEL + GUTTER, 0, WHITE)
    return np.concatenate([caption, np.concatenate([left, divider, right], axis=1)])


def _mark(
    xywh: Sequence[float], label: str, category: int, corner: np.ndarray, scale: np.ndarray
) -> Mark:
    start, side = np.array(xywh[:2]), np.array(xywh[2:])
    box = np.concatenate([start * scale + corner, (start + side) * scale + corner])
    return Mark(box, label, class_color(category))


def _summary(num_found: int, score_threshold: float) -> str:
    if num_found == 0:
        return f"no detection with score >= {score_threshold:g}"
    best = f", the best {MAX_DETECTIONS_SHOWN} shown" if num_found > MAX_DETECTIONS_SHOWN else ""
    return _count(num_found, "detection") + best


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
