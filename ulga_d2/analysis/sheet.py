"""The figure of one image: what one detector, or two side by side, have made of it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..drawing.maps import OPAQUE, draw_image, draw_query
from ..drawing.marks import Mark, class_color, draw_marks
from ..drawing.page import LINE, Page, fold
from .rows import Row, query_in_words, rows_of
from .view import View

PANEL, GAP, MARGIN = 208, 10, 24
COLUMNS = 3
ROOM_FOR_BAR = 70
HALF = COLUMNS * PANEL + (COLUMNS - 1) * GAP + ROOM_FOR_BAR
TOP = 2 * PANEL + GAP  # side of the image with the detections
HEAD = 3 * LINE + 4  # of a row: its heading, and the titles of its panels
NAMES = {
    "concepts": "concept maps",
    "attention": "attention",
    "points": "sampled points",
    "features": "features",
    "fields": "effective receptive fields",
}
CAPTION = (
    "Attention: mean of the heads, where it is a map; each panel's colours end at its own "
    "maximum, which its title gives; px is the mean distance from the query to where it looks. "
    "Concepts: the three that give most to the tokens of a block. Features: the three main "
    "components as red, green and blue, with the share of the variance that each holds; the basis "
    "is one of each image, detector and level, and a component's 1st and 99th percentile are the "
    "ends of its colour, so colours cannot be compared between panels. Effective receptive field: "
    "mean |d centre cell / d pixel|, over its maximum; circles hold 50 % (solid) and 90 % (dashed) "
    "of it. Attention and gradients show where a detector looks, not why it decides."
)


def draw_views(views: Sequence[View], title: str) -> np.ndarray:
    """Draw one or two detectors' views of one image side by side.

    Returns:
        an RGB picture (H, W, 3).
    """
    halves = [rows_of(view) for view in views]
    keys = _in_order(halves)
    kinds = sorted({label for view in views for label in view.labels})
    width = 2 * MARGIN + len(views) * HALF
    caption = fold(CAPTION, width - 2 * MARGIN)
    foot = top_of(len(keys))
    page = Page(width, foot + (caption.count("\n") + 1) * LINE + MARGIN)
    page.write(MARGIN, MARGIN - LINE // 2, title, bold=True)
    for number, (view, rows) in enumerate(zip(views, halves, strict=True)):
        x = MARGIN + number * HALF
        _draw_top(page, x, MARGIN + LINE, view, kinds)
        for place, key in enumerate(keys):
            _draw_row(page, x, top_of(place), rows.get(key), key, view)
    page.write(MARGIN, foot, caption)
    return page.pixels()


def top_of(row: int) -> int:
    """Return how many pixels from the top a row of panels begins, with its heading."""
    return MARGIN + 2 * LINE + TOP + GAP + 2 * LINE + row * (HEAD + PANEL + GAP)


def _in_order(halves: Sequence[dict[str, Row]]) -> list[str]:
    """Return every row's key once: rows of a kind together, in the order of NAMES."""
    kinds = list(NAMES)
    keys = {key for rows in halves for key in rows}
    return sorted(keys, key=lambda key: (kinds.index(key.split(" ")[0]), key))


def _draw_top(page: Page, x: float, y: float, view: View, kinds: Sequence[str]) -> None:
    """Draw the image with its detections, in a colour a class, and the queries."""
    page.write(x, y, view.name, bold=True)
    axes = page.axes(x, y + LINE + 4, TOP, TOP)
    scale = TOP / max(view.image.shape[:2])
    image = np.clip(np.round(view.image), 0, 255).astype(np.uint8)
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    marks = [
        Mark(box * scale, f"{label} {score:.2f}", class_color(kinds.index(label)))
        for box, score, label in zip(view.boxes, view.scores, view.labels, strict=True)
    ]
    draw_image(axes, draw_marks(image, marks, dashed=False), view.image.shape[:2])
    for number, place in enumerate(view.queries):
        draw_query(axes, place, number)
    page.write(x + TOP + GAP, y + LINE + 4, _words(view))


def _words(view: View) -> str:
    height, width = view.image.shape[:2]
    lines = [f"{width} x {height} px, padded, as the detector saw it", ""]
    count = len(view.boxes)
    lines += [f"{count or 'no'} detection{'' if count == 1 else 's'}", ""]
    lines += [
        f"{query_in_words(view, number)} at ({place_x:.0f}, {place_y:.0f})"
        for number, (place_x, place_y) in enumerate(view.queries)
    ]
    return fold("\n".join(lines), PANEL + ROOM_FOR_BAR - GAP)


def _draw_row(page: Page, x: float, y: float, row: Row | None, key: str, view: View) -> None:
    """Draw a row, or say what this detector has not."""
    if row is None:
        width = COLUMNS * PANEL + (COLUMNS - 1) * GAP
        axes = page.axes(x, y + HEAD, width, PANEL)
        axes.set(xticks=[], yticks=[], facecolor="#f2f2f2")
        axes.text(0.5, 0.5, _lack(key, view), ha="center", va="center", transform=axes.transAxes)
        return
    page.write(x, y, row.heading, bold=True)
    for column, panel in enumerate(row.panels):
        left = x + column * (PANEL + GAP)
        page.write(left, y + LINE, panel.title)
        panel.draw(page.axes(left, y + HEAD, PANEL, PANEL))
    if row.scale is not None:
        place = x + COLUMNS * (PANEL + GAP)
        page.bar(place, y + HEAD, PANEL, row.scale, row.unit, OPAQUE)


def _lack(key: str, view: View) -> str:
    """Say why a row of the other detector has no like here."""
    kind, _, which = key.partition(" ")
    if kind == "concepts":
        return "no CAT in this detector"
    if which.isdecimal() and int(which) >= len(view.queries) - 1:
        return f"{NAMES[kind]}: no detection {int(which) + 1} to follow here"
    return f"no {NAMES[kind]} in this detector"
