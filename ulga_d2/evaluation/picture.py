"""A picture of truth and detections side by side on a few images of a set."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from .atomic import write_atomically
from .boxes import Prediction, Record, xywh_box
from .drawing import (
    LINE_HEIGHT,
    WHITE,
    Color,
    Mark,
    class_color,
    draw_corners,
    draw_marks,
    put_text,
    shorten,
    text_width,
)

PANEL = 320
MARGIN = 10
GUTTER = 2
CELL_WIDTH = 2 * PANEL + GUTTER
BACKGROUND = 28
MAX_COLUMNS = 3
MAX_DETECTIONS_SHOWN = 8
WITHOUT_BOXES = math.inf


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
    grid = _grid(cells)
    title = _title(chosen, found, len(records), score_threshold)
    legend = [(name, class_color(index)) for index, name in enumerate(class_names)]
    header = _header([title, [("classes:", WHITE), *legend]], grid.shape[1])
    picture = cv2.cvtColor(np.concatenate([header, grid]), cv2.COLOR_RGB2BGR)
    png = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    write_atomically(path, png.tobytes())


def choose_images(records: Sequence[Record], max_images: int) -> list[int]:
    """Choose images by their ground truth alone, the same ones on every call.

    Images are grouped by the class they hold (of several, the rarest in the set), those without
    boxes apart; the groups take turns until `max_images` places are given out, and each fills its
    places at equal steps through the set.

    Returns:
        indices into `records`, group by group, images without boxes last.
    """
    frequency = Counter(box["category_id"] for record in records for box in record["annotations"])
    groups: dict[float, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        classes = {box["category_id"] for box in record["annotations"]}
        rarest = min(classes, key=lambda c: (frequency[c], c), default=WITHOUT_BOXES)
        groups[rarest].append(index)
    # Turn by turn: the first image of every group, then the second of every group, ...
    turns = sorted((turn, group) for group in groups for turn in range(len(groups[group])))
    places = Counter(group for _, group in turns[:max_images])
    return [
        groups[group][int((place + 0.5) * len(groups[group]) / places[group])]
        for group in sorted(places)
        for place in range(places[group])
    ]


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
    panel, corner, size = _fit(image)
    scale = size / np.array([record["width"], record["height"]])
    truth = [
        _mark(xywh_box(box), class_names, box["category_id"], corner, scale)
        for box in record["annotations"]
    ]
    shown = [
        _mark(p["bbox"], class_names, p["category_id"], corner, scale, f" {p['score']:.2f}")
        for p in found[:MAX_DETECTIONS_SHOWN]
    ]
    left = draw_marks(panel.copy(), truth, dashed=False)
    right = panel.copy()
    for mark in truth:
        draw_corners(right, mark.box, WHITE)
    draw_marks(right, shown, dashed=True)
    divider = np.full((PANEL, GUTTER, 3), BACKGROUND, np.uint8)
    caption = np.full((LINE_HEIGHT, CELL_WIDTH, 3), BACKGROUND, np.uint8)
    objects = f"   {_count(len(truth), 'object')}"
    name = shorten(os.path.basename(record["file_name"]), PANEL - text_width(objects))
    put_text(caption, name + objects, 0, 0, WHITE)
    put_text(caption, _summary(len(found), score_threshold), PANEL + GUTTER, 0, WHITE)
    return np.concatenate([caption, np.concatenate([left, divider, right], axis=1)])


def _mark(
    xywh: Sequence[float],
    class_names: Sequence[str],
    category: int,
    corner: np.ndarray,
    scale: np.ndarray,
    score: str = "",
) -> Mark:
    start, side = np.array(xywh[:2]), np.array(xywh[2:])
    box = np.concatenate([start * scale + corner, (start + side) * scale + corner])
    return Mark(box, class_names[category] + score, class_color(category))


def _fit(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale an image into the middle of a square panel.

    Returns:
        the panel (PANEL, PANEL, 3), and the image's corner (x, y) and size (width, height) in it.
    """
    height, width = image.shape[:2]
    ratio = PANEL / max(height, width)
    size = np.maximum(np.round(np.array([width, height]) * ratio), 1).astype(int)
    interpolation = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
    pixels = cv2.resize(image.astype(np.float32), tuple(size.tolist()), interpolation=interpolation)
    panel = np.zeros((PANEL, PANEL, 3), np.uint8)
    x, y = corner = (PANEL - size) // 2
    panel[y : y + size[1], x : x + size[0]] = np.clip(np.round(pixels), 0, 255)
    return panel, corner, size


def _summary(num_found: int, score_threshold: float) -> str:
    if num_found == 0:
        return f"no detection with score >= {score_threshold:g}"
    best = f", the best {MAX_DETECTIONS_SHOWN} shown" if num_found > MAX_DETECTIONS_SHOWN else ""
    return _count(num_found, "detection") + best


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _grid(cells: Sequence[np.ndarray]) -> np.ndarray:
    """Set cells in rows, with a margin below each and on both sides of each."""
    columns = max(1, min(MAX_COLUMNS, len(cells)))
    rows = math.ceil(len(cells) / columns)
    step_x, step_y = CELL_WIDTH + MARGIN, LINE_HEIGHT + PANEL + MARGIN
    canvas = np.full((rows * step_y, columns * step_x + MARGIN, 3), BACKGROUND, np.uint8)
    for index, cell in enumerate(cells):
        x, y = MARGIN + index % columns * step_x, index // columns * step_y
        canvas[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
    return canvas


def _header(paragraphs: Sequence[Sequence[tuple[str, Color]]], width: int) -> np.ndarray:
    """Set phrases, each in its colour, in lines of at most `width` pixels; a paragraph a line."""
    lines: list[list[tuple[int, str, Color]]] = []
    for phrases in paragraphs:
        x = width
        for words, color in phrases:
            words = shorten(words, width - 2 * MARGIN)
            if x + text_width(words) > width - MARGIN:
                lines.append([])
                x = MARGIN
            lines[-1].append((x, words, color))
            x += text_width(words) + 2 * MARGIN
    canvas = np.full((len(lines) * LINE_HEIGHT + 2 * MARGIN, width, 3), BACKGROUND, np.uint8)
    for row, line in enumerate(lines):
        for x, words, color in line:
            put_text(canvas, words, x, MARGIN + row * LINE_HEIGHT, color)
    return canvas
