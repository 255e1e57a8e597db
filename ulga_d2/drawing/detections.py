"""Detections drawn on their image, and a contact sheet of such images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import cv2
import numpy as np
from pycocotools import mask as run_lengths

from .grid import MARGIN, PANEL, blank, fit, grid
from .marks import (
    LINE_HEIGHT,
    MANY,
    MAX_COVER,
    WHITE,
    Color,
    Mark,
    class_color,
    draw_marks,
    draw_outline,
    put_text,
    shorten,
    text_width,
)

SIDE_PER_SCALE = 1000  # longest side (pixels) up to which letters keep their usual size
SIDE_PER_LINE = 400  # longest side (pixels) for each pixel of a line, at least 2, is wide
FILL = 0.35  # opacity of a mask's colour
VIEWING_SIDE = 2000
COLUMNS = 5
MAX_CELLS = 100


class DrawnDetections(Protocol):
    """What is drawn of N detections; `ulga_d2.inference.detections.Detections` describes it."""

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    categories: Sequence[Any]
    image_size: tuple[int, int]
    masks: list[dict[str, Any]] | None

    @property
    def class_names(self) -> Sequence[str]:
        """The class name of each detection."""


def draw_detections(image: np.ndarray, detections: DrawnDetections) -> np.ndarray:
    """Draw boxes, labels such as "glioma 0.87", and masks on an image.

    Lines and letters grow with the image. Labels must not hide it:

    * a detector of one class labels more than 20 detections with their scores alone;
    * a label stands at an edge of its box and covers no other label, or it is left out;
    * labels are written by descending score until they cover 15 % of the picture.

    Boxes and masks are always drawn, the highest score on top.

    Args:
        image: (H, W, 3) RGB, uint8 or float in 0..255: the image that was searched, in its size or
            any other; boxes and masks are scaled with it.
        detections: by descending score, in pixels of `detections.image_size`.

    Returns:
        a picture (H, W, 3) RGB, uint8, of the size of `image`.
    """
    canvas = np.array(
        image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255), np.uint8, order="C"
    )
    height, width = canvas.shape[:2]
    ratio = np.array([width, height]) / detections.image_size[::-1]
    scale = max(1.0, max(width, height) / SIDE_PER_SCALE)
    line = max(2, round(max(width, height) / SIDE_PER_LINE))
    colors = [class_color(int(number)) for number in detections.class_ids]
    _draw_masks(canvas, detections, colors, ratio, line)
    boxes = detections.boxes * np.tile(ratio, 2)
    marks = list(map(Mark, boxes, _labels(detections), colors))
    return draw_marks(canvas, marks, dashed=False, scale=scale, line=line, max_cover=MAX_COVER)


def reduce_for_viewing(image: np.ndarray, longest: int = VIEWING_SIDE) -> np.ndarray:
    """Reduce an image (H, W, 3) whose longest side exceeds `longest` pixels to that side."""
    height, width = image.shape[:2]
    ratio = longest / max(height, width)
    if ratio >= 1:
        return image
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def contact_cell(image: np.ndarray, detections: DrawnDetections, name: str) -> np.ndarray:
    """Draw an image with its detections as a cell of a contact sheet.

    Args:
        image: (H, W, 3) RGB, uint8 or float in 0..255, of any size.
        detections: of the image.
        name: of the image, for the caption "a.png: 3 detections".

    Returns:
        a cell (PANEL + LINE_HEIGHT, PANEL, 3), uint8.
    """
    panel, (x, y), (width, height) = fit(image)
    inside = panel[y : y + height, x : x + width]
    inside[:] = draw_detections(inside, detections)
    count = len(detections.scores)
    words = f": {count or 'no'} detection{'' if count == 1 else 's'}"
    caption = blank(LINE_HEIGHT, PANEL)
    put_text(caption, shorten(name, PANEL - text_width(words)) + words, 0, 0, WHITE)
    return np.concatenate([caption, panel])


def contact_sheet(cells: Sequence[np.ndarray]) -> np.ndarray:
    """Set cells in rows of COLUMNS, in their order.

    Args:
        cells: at least one cell of `contact_cell`, at most MAX_CELLS for a picture that viewers
            open; each takes 0.3 MB of memory.

    Returns:
        a picture (H, W, 3) RGB, uint8.
    """
    sheet = grid(cells, COLUMNS)
    return np.concatenate([blank(MARGIN, sheet.shape[1]), sheet])


def _labels(detections: DrawnDetections) -> list[str]:
    scores = [f"{score:.2f}" for score in detections.scores]
    if len(detections.categories) == 1 and len(scores) > MANY:
        return scores
    return [f"{name} {score}" for name, score in zip(detections.class_names, scores, strict=True)]


def _draw_masks(
    canvas: np.ndarray,
    detections: DrawnDetections,
    colors: Sequence[Color],
    ratio: np.ndarray,
    line: int,
) -> None:
    """Fill the masks and draw their outlines, in place, the first on top."""
    height, width = canvas.shape[:2]
    for mask, color in reversed(list(zip(detections.masks or [], colors, strict=False))):
        pixels = np.ascontiguousarray(run_lengths.decode(mask))
        shown = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST) > 0
        canvas[shown] = np.rint((1 - FILL) * canvas[shown] + FILL * np.array(color))
        draw_outline(canvas, pixels, color, np.zeros(2), ratio, line)
