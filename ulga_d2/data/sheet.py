"""Annotated images: one by one, or as a contact sheet."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as run_lengths

from ..drawing.choice import choose_images
from ..drawing.grid import PANEL, blank, fit, grid, header
from ..drawing.marks import (
    LINE_HEIGHT,
    MAX_COVER,
    WHITE,
    Mark,
    class_color,
    class_legend,
    draw_marks,
    draw_outline,
    needs_names,
    put_text,
    shorten,
    text_width,
)
from ..errors import UserError
from .image import read_image
from .intensity import FULL_RANGE, Intensity

COLUMNS = 4
SHOWN_NAME = "shown_name"  # key of a record: its caption, where that is not its file's name
# An image drawn alone has at least this longest side (pixels), so that its labels are legible.
MIN_SIDE = 512


def contact_sheet(
    title: str,
    records: Sequence[dict],
    class_names: Sequence[str],
    intensity: Intensity = FULL_RANGE,
) -> np.ndarray:
    """Draw each record's image with its boxes and masks, in rows under a title and a legend.

    Args:
        title: the first line.
        records: which images; at least one.
        class_names: by category_id.
        intensity: how stored values become grey levels.

    Returns:
        an RGB picture (H, W, 3).
    """
    shown = (item["category_id"] for record in records for item in record["annotations"])
    images = grid([_cell(record, class_names, intensity) for record in records], COLUMNS)
    words = header([[(title, WHITE)], class_legend(shown, class_names)], images.shape[1])
    return np.concatenate([words, images])


def sample_of(records: Sequence[dict], count: int, seed: int) -> list[dict]:
    """Choose images of all classes and without boxes; another seed, other images.

    The classes take turns, as in the picture of an evaluation; the seed shuffles before.
    """
    order = np.random.default_rng(seed).permutation(len(records))
    shuffled = [records[index] for index in order]
    return [shuffled[index] for index in choose_images(shuffled, count)]


def annotated(
    record: dict, class_names: Sequence[str], intensity: Intensity = FULL_RANGE
) -> np.ndarray:
    """Return one image, RGB, with its boxes and masks.

    Raises:
        UserError: the image cannot be read.
    """
    image = read_image(record["file_name"], intensity, record.get("frame"))
    scale = max(1.0, MIN_SIDE / max(image.shape[:2]))
    size = tuple(round(side * scale) for side in image.shape[1::-1])
    canvas = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    canvas = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return _draw(canvas, record, class_names, np.zeros(2), np.array(size))


def _cell(record: dict, class_names: Sequence[str], intensity: Intensity) -> np.ndarray:
    """Draw one image in a panel under a line with its name."""
    caption = blank(LINE_HEIGHT, PANEL)
    count = len(record["annotations"])
    objects = f"   {count or 'no'} object{'' if count == 1 else 's'}"
    name = shorten(
        os.path.basename(record.get(SHOWN_NAME, record["file_name"])), PANEL - text_width(objects)
    )
    put_text(caption, name + objects, 0, 0, WHITE)
    try:
        panel, corner, size = fit(read_image(record["file_name"], intensity, record.get("frame")))
    except UserError:
        panel = blank(PANEL, PANEL)
        put_text(panel, "cannot be decoded", 10, 10, WHITE)
    else:
        _draw(panel, record, class_names, corner, size)
    return np.concatenate([caption, panel])


def _draw(
    canvas: np.ndarray,
    record: dict,
    class_names: Sequence[str],
    corner: np.ndarray,
    size: np.ndarray,
) -> np.ndarray:
    """Draw masks and boxes, in place, on the image of `size` (width, height) at `corner`."""
    scale = size / np.array([record["width"], record["height"]])
    is_named = needs_names(len(class_names), len(record["annotations"]))
    marks = []
    for item in record["annotations"]:
        color = class_color(item["category_id"])
        name = class_names[item["category_id"]] if is_named else ""
        if "segmentation" in item:
            mask = np.ascontiguousarray(run_lengths.decode(item["segmentation"]))
            draw_outline(canvas, mask, color, corner, scale)
        box = (np.array(item["bbox"]).reshape(2, 2) * scale + corner).ravel()
        marks.append(Mark(box, (name + " (group)" * bool(item["iscrowd"])).strip(), color))
    return draw_marks(canvas, marks, dashed=False, max_cover=MAX_COVER)
