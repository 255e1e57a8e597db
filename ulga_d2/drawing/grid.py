"""A contact sheet: panels of one size, set in rows under a header of words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from .marks import LINE_HEIGHT, Color, put_text, shorten, text_width

PANEL = 320
MARGIN = 10
BACKGROUND = 28


def fit(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale an RGB image in 0..255 into the middle of a square panel.

    Returns:
        the panel (PANEL, PANEL, 3), and the image's corner (x, y) and size (width, height) in it.
    """
    height, width = image.shape[:2]
    ratio = PANEL / max(height, width)
    size = np.maximum(np.round(np.array([width, height]) * ratio), 1).astype(int)
    if ratio < 1:  # as it is stored: a large image of 8 bits takes four times as much as floats
        pixels = cv2.resize(image, tuple(size.tolist()), interpolation=cv2.INTER_AREA)
    else:
        floats = image.astype(np.float32)
        pixels = cv2.resize(floats, tuple(size.tolist()), interpolation=cv2.INTER_CUBIC)
    panel = np.zeros((PANEL, PANEL, 3), np.uint8)
    x, y = corner = (PANEL - size) // 2
    panel[y : y + size[1], x : x + size[0]] = np.clip(np.round(pixels), 0, 255)
    return panel, corner, size


def blank(height: int, width: int) -> np.ndarray:
    """Return an empty piece of a sheet."""
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def grid(cells: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Set cells of one size in rows, with a margin below each and on both sides of each."""
    columns = max(1, min(columns, len(cells)))
    rows = math.ceil(len(cells) / columns)
    cell_height, cell_width = cells[0].shape[:2]
    step_x, step_y = cell_width + MARGIN, cell_height + MARGIN
    canvas = blank(rows * step_y, columns * step_x + MARGIN)
    for index, cell in enumerate(cells):
        x, y = MARGIN + index % columns * step_x, index // columns * step_y
        canvas[y : y + cell_height, x : x + cell_width] = cell
    return canvas


def header(paragraphs: Sequence[Sequence[tuple[str, Color]]], width: int) -> np.ndarray:
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
    canvas = blank(len(lines) * LINE_HEIGHT + 2 * MARGIN, width)
    for row, line in enumerate(lines):
        for x, words, color in line:
            put_text(canvas, words, x, MARGIN + row * LINE_HEIGHT, color)
    return canvas


def png(picture: np.ndarray, compression: int = 9) -> bytes:
    """Return an RGB picture as the bytes of a PNG file.

    Args:
        picture: (H, W, 3) RGB, uint8.
        compression: 0 (quick) to 9 (small).
    """
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, compression])[1].tobytes()
