"""Boxes and words drawn with OpenCV on small RGB images so that they stay legible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

Color = tuple[int, int, int]
Point = tuple[int, int]
Rectangle = tuple[float, float, float, float]  # x0, y0, x1, y1

WHITE, BLACK = (255, 255, 255), (0, 0, 0)

# Okabe and Ito's palette, told apart with any common colour blindness (jfly.uni-koeln.de/color);
# without its black, those that read best on a dark image first.
PALETTE = [
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (240, 228, 66),
    (0, 158, 115),
    (213, 94, 0),
    (0, 114, 178),
]

FONT, FONT_SCALE, FONT_THICKNESS = cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1
LINE_HEIGHT = 18
DASH, GAP = 6, 4


def class_color(category_id: int) -> Color:
    """Return the RGB colour of a class; colours repeat after seven classes."""
    return PALETTE[category_id % len(PALETTE)]


def text_width(text: str) -> int:
    """Return the width of a line of text in pixels."""
    return cv2.getTextSize(text, FONT, FONT_SCALE, FONT_THICKNESS)[0][0]


def shorten(text: str, width: int) -> str:
    """Cut letters out of the middle of a text until it fits into `width` pixels."""
    if text_width(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        short = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
        if text_width(short) <= width:
            return short
    return ""


def put_text(canvas: np.ndarray, text: str, x: int, y: int, color: Color) -> None:
    """Write a line of text, in place, whose box of LINE_HEIGHT starts at the corner (x, y)."""
    origin = (x, y + LINE_HEIGHT - 5)
    cv2.putText(canvas, text, origin, FONT, FONT_SCALE, color, FONT_THICKNESS, cv2.LINE_AA)


class Mark(NamedTuple):
    """A box (x0, y0, x1, y1) in pixels of a canvas, what is written beside it, and its colour."""

    box: np.ndarray
    label: str
    color: Color


def draw_marks(canvas: np.ndarray, marks: Sequence[Mark], *, dashed: bool) -> np.ndarray:
    """Draw boxes, the first on top, then their labels, in place; return the canvas."""
    for mark in reversed(marks):
        draw_box(canvas, mark.box, mark.color, dashed=dashed)
    boxes = [tuple(mark.box.tolist()) for mark in marks]
    labels: list[Rectangle] = []
    for mark in marks:
        labels.append(_draw_label(canvas, mark, boxes, labels))
    return canvas


def draw_box(canvas: np.ndarray, box: np.ndarray, color: Color, *, dashed: bool) -> None:
    """Draw a box (x0, y0, x1, y1), in place, on a dark line that sets it off from bright tissue."""
    x0, y0, x1, y1 = _inside(canvas, box)
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    sides = list(zip(corners, corners[1:] + corners[:1], strict=True))
    if dashed:
        sides = [dash for start, end in sides for dash in _dashes(start, end)]
    _lines(canvas, sides, color)


def draw_corners(canvas: np.ndarray, box: np.ndarray, color: Color) -> None:
    """Mark the four corners of a box (x0, y0, x1, y1), in place, and leave its sides open."""
    x0, y0, x1, y1 = _inside(canvas, box)
    dx, dy = (min(8, max(2, side // 4)) for side in (x1 - x0, y1 - y0))
    arms = []
    for x, inward_x in ((x0, dx), (x1, -dx)):
        for y, inward_y in ((y0, dy), (y1, -dy)):
            arms += [((x, y), (x + inward_x, y)), ((x, y), (x, y + inward_y))]
    _lines(canvas, arms, color)


def _inside(canvas: np.ndarray, box: np.ndarray) -> list[int]:
    height, width = canvas.shape[:2]
    limits = np.array([width, height, width, height]) - 2
    return np.clip(np.round(box), 1, limits).astype(int).tolist()


def _dashes(start: Point, end: Point) -> list[tuple[Point, Point]]:
    a, b = np.array(start), np.array(end)
    length = np.abs(b - a).max()
    direction = np.sign(b - a)
    return [
        (
            tuple((a + direction * at).tolist()),
            tuple((a + direction * min(at + DASH, length)).tolist()),
        )
        for at in range(0, max(1, length), DASH + GAP)
    ]


def _lines(canvas: np.ndarray, lines: list[tuple[Point, Point]], color: Color) -> None:
    for line_color, thickness in ((BLACK, 3), (color, 1)):
        for start, end in lines:
            cv2.line(canvas, start, end, line_color, thickness)


def _draw_label(
    canvas: np.ndarray, mark: Mark, boxes: Sequence[Rectangle], labels: Sequence[Rectangle]
) -> Rectangle:
    """Write a label near its box: never on a label while there is room, rarely on a box."""
    height, width = canvas.shape[:2]
    text = shorten(mark.label, width - 6)
    label_width = text_width(text) + 6
    x0, y0, x1, y1 = mark.box
    above, below = round(y0) - LINE_HEIGHT - 1, round(y1) + 2
    left, right = (int(np.clip(x, 0, width - label_width)) for x in (x0, x1 - label_width))

    def cost(place: Rectangle) -> float:
        distance = min(abs(place[1] - above), abs(place[1] - below))
        on_labels = sum(_overlap(place, label) for label in labels)
        return distance + 40 * any(_overlap(place, box) for box in boxes) + 1000 * on_labels

    rows = [y for y in (above, below, *range(0, height, 6)) if 0 <= y <= height - LINE_HEIGHT]
    place = min(
        ((x, y, x + label_width, y + LINE_HEIGHT) for y in rows for x in (left, right)), key=cost
    )
    patch = canvas[place[1] : place[3], place[0] : place[2]]
    patch[:] = patch // 4
    put_text(canvas, text, place[0] + 3, place[1], mark.color)
    return place


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
