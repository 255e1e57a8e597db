"""Boxes, outlines and text drawn with OpenCV on RGB images so that they stay legible.

`scale` multiplies the size of letters, `line` is the width of lines in pixels: both are 1 on small
pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ..errors import printable

Color = tuple[int, int, int]
Point = tuple[int, int]
Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1

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
LABEL_PAD = 3  # pixels of ground on both sides of a label's text
DASH, GAP = 6, 4
MANY = 20  # boxes on a picture from which labels leave room for it
MAX_COVER = 0.15  # largest share of a picture under labels then
MOST_NAMED = 100  # classes of a legend
MOST_TRIED = 200  # labels that are tried then: later ones rarely find room


def class_color(category_id: int) -> Color:
    """Return the RGB colour of a class; colours repeat after seven classes."""
    return PALETTE[category_id % len(PALETTE)]


def class_legend(shown: Iterable[int], class_names: Sequence[str]) -> list[tuple[str, Color]]:
    """Return the phrases of a legend: the names of classes in their colors, of very many the first.

    Args:
        shown: category_ids on the picture.
        class_names: by category_id.
    """
    indices = sorted(set(shown))
    phrases = [(class_names[index], class_color(index)) for index in indices[:MOST_NAMED]]
    left = len(indices) - len(phrases)
    return [("classes:", WHITE), *phrases, *([(f"and {left:,} more", WHITE)] if left else [])]


def needs_names(classes: int, boxes: int) -> bool:
    """Tell whether labels must name classes, beside a legend of their colors.

    They need not where there is one class, or on a picture of many boxes whose classes all have
    colors of their own.
    """
    return classes > len(PALETTE) or (classes > 1 and boxes <= MANY)


def text_width(text: str, scale: float = 1.0) -> int:
    """Return the width of a line of text in pixels."""
    return cv2.getTextSize(printable(text), FONT, FONT_SCALE * scale, _thickness(scale))[0][0]


def shorten(text: str, width: int, scale: float = 1.0) -> str:
    """Cut letters out of the middle of a text until it fits into `width` pixels."""
    if text_width(text, scale) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        short = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
        if text_width(short, scale) <= width:
            return short
    return ""


def put_text(
    canvas: np.ndarray, text: str, x: int, y: int, color: Color, scale: float = 1.0
) -> None:
    """Write a line of text, in place; its box of LINE_HEIGHT * scale has the corner (x, y)."""
    origin = (x, y + round((LINE_HEIGHT - 5) * scale))
    size, thickness = FONT_SCALE * scale, _thickness(scale)
    cv2.putText(canvas, printable(text), origin, FONT, size, color, thickness, cv2.LINE_AA)


def _thickness(scale: float) -> int:
    return max(1, round(FONT_THICKNESS * scale))


class Mark(NamedTuple):
    """A box (x0, y0, x1, y1) in pixels of a canvas, what is written beside it, and its colour."""

    box: np.ndarray
    label: str
    color: Color


def draw_marks(
    canvas: np.ndarray,
    marks: Sequence[Mark],
    *,
    dashed: bool,
    scale: float = 1.0,
    line: int = 1,
    max_cover: float | None = None,
) -> np.ndarray:
    """Draw boxes, the first on top, then their labels, in place; return the canvas.

    Args:
        canvas: (H, W, 3) RGB, uint8.
        marks: the boxes with their labels, which may be empty.
        dashed: draw the sides of the boxes with gaps.
        scale: of the labels' letters.
        line: width of the boxes' lines in pixels.
        max_cover: None writes every label, if need be far from its box. A number is the largest
            share of the canvas that labels may cover. Then labels stand at an edge of their boxes,
            and a label is left out where it would cover another one; from the first that would
            exceed that share on, and of all but the first `MOST_TRIED`, there are none.
    """
    for mark in reversed(marks):
        draw_box(canvas, mark.box, mark.color, dashed=dashed, line=line)
    boxes = np.array([mark.box for mark in marks], float).reshape(-1, 4)
    labels: list[Rectangle] = []
    labeled = [mark for mark in marks if mark.label]
    room = canvas.shape[0] * canvas.shape[1] * (1.0 if max_cover is None else max_cover)
    for mark in labeled if max_cover is None else labeled[:MOST_TRIED]:
        text = shorten(mark.label, canvas.shape[1] - 2 * round(LABEL_PAD * scale), scale)
        places = _label_places(canvas, text, mark.box, scale, only_near=max_cover is not None)
        place, is_free = _best_place(places, mark.box, boxes, labels, scale)
        area = (place[2] - place[0]) * (place[3] - place[1])
        if max_cover is not None and area > room:
            break
        if max_cover is not None and not is_free:
            continue
        room -= area
        labels.append(place)
        _write_label(canvas, text, place, mark.color, scale)
    return canvas


def draw_box(
    canvas: np.ndarray, box: np.ndarray, color: Color, *, dashed: bool, line: int = 1
) -> None:
    """Draw a box (x0, y0, x1, y1), in place, on a dark line that sets it off from bright tissue."""
    x0, y0, x1, y1 = _inside(canvas, box)
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    sides = list(zip(corners, corners[1:] + corners[:1], strict=True))
    if dashed:
        sides = [dash for start, end in sides for dash in _dashes(start, end)]
    _lines(canvas, sides, color, line)


def draw_outline(
    canvas: np.ndarray,
    mask: np.ndarray,
    color: Color,
    corner: np.ndarray,
    ratio: np.ndarray,
    line: int = 1,
) -> None:
    """Draw the outline of a mask, in place.

    Args:
        canvas: (H, W, 3) RGB, uint8.
        mask: (h, w) uint8, 0 outside the object.
        color: of the line.
        corner: (x, y) on the canvas where the mask begins.
        ratio: (x, y) pixels of the canvas a pixel of the mask.
        line: its width in pixels.
    """
    for outline in cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
        points = np.rint((outline + 0.5) * ratio + corner).astype(np.int32)
        cv2.polylines(canvas, [points], True, color, line, cv2.LINE_AA)


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


def _lines(
    canvas: np.ndarray, lines: list[tuple[Point, Point]], color: Color, width: int = 1
) -> None:
    edge = max(1, width // 3)
    for line_color, thickness in ((BLACK, width + 2 * edge), (color, width)):
        for start, end in lines:
            cv2.line(canvas, start, end, line_color, thickness)


def _label_places(
    canvas: np.ndarray, text: str, box: np.ndarray, scale: float, *, only_near: bool
) -> np.ndarray:
    """Return places for a label on the canvas, (P, 4) XYXY.

    They begin at the box's left side or end at its right side. They lie above the box, below it,
    and either along its inner edges (`only_near`) or at any other height.
    """
    height, width = canvas.shape[:2]
    label_width = text_width(text, scale) + 2 * round(LABEL_PAD * scale)
    label_height = round(LINE_HEIGHT * scale)
    x0, y0, x1, y1 = box
    sides = [int(np.clip(x, 0, max(0, width - label_width))) for x in (x0, x1 - label_width)]
    rows = [round(y0) - label_height - 1, round(y1) + 2]
    if only_near:
        rows += [round(y0) + 2, round(y1) - label_height - 1]
    else:
        rows += range(0, height, round(6 * scale))
    rows = [y for y in rows if 0 <= y <= height - label_height] or [0]
    y, x = np.repeat(rows, 2), np.tile(sides, len(rows))
    return np.stack([x, y, x + label_width, y + label_height], axis=1)


def _best_place(
    places: np.ndarray,
    box: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[Rectangle],
    scale: float,
) -> tuple[Rectangle, bool]:
    """Choose a label's place: never on a label while there is room, rarely on a box.

    Returns:
        the place, and whether it is on no other label.
    """
    above, below = round(box[1]) - (places[:, 3] - places[:, 1]) - 1, round(box[3]) + 2
    distance = np.minimum(abs(places[:, 1] - above), abs(places[:, 1] - below)) / scale
    on_labels = _overlaps(places, np.array(labels, float).reshape(-1, 4)).sum(axis=1)
    cost = distance + 40 * _overlaps(places, boxes).any(axis=1) + 1000 * on_labels
    best = int(cost.argmin())
    return tuple(places[best].tolist()), not on_labels[best]


def _overlaps(places: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return (P, N): whether rectangles (P, 4) and (N, 4) share more than an edge."""
    a, b = places[:, None], others[None]
    apart = (a[..., :2] >= b[..., 2:]) | (b[..., :2] >= a[..., 2:])
    return ~apart.any(axis=2)


def _write_label(
    canvas: np.ndarray, text: str, place: Rectangle, color: Color, scale: float
) -> None:
    x0, y0, x1, y1 = place
    patch = canvas[y0:y1, x0:x1]
    patch[:] = patch // 4
    put_text(canvas, text, x0 + round(LABEL_PAD * scale), y0, color, scale)
