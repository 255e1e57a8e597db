"""Weigh the boxes: how finely they are written, and which anchors can find them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..tiles import tile_grid

# A box without an anchor of this IoU is no clear target; below the second it is background to every
# anchor but its best (RetinaNet's own thresholds).
POSITIVE, NEGATIVE = 0.5, 0.4
# Labels count as rounded if this share of the boxes lies on the grid ...
ROUNDED_SHARE = 0.95
# ... of at least so many ...
MIN_BOXES = 20
# ... and the grid is coarser than this (pixels): finer, it costs nothing.
MIN_STEP = 1.0
DECIMALS = (1, 2, 3)


@dataclass(frozen=True)
class Anchors:
    """The anchors of a detector and the size of what it sees.

    Attributes:
        sizes: per pyramid level, the anchors' sizes (square root of the area, pixels of the input).
        aspect_ratios: per level, height over width.
        strides: per level, pixels from one anchor to the next.
        offset: where the first anchor stands, in strides.
        square_size: the longest side of an image, or of a tile, is scaled to this.
        tiles: side in pixels and overlap of the tiles (see `tile_grid`); None for whole images.
    """

    sizes: tuple[tuple[float, ...], ...]
    aspect_ratios: tuple[tuple[float, ...], ...]
    strides: tuple[int, ...]
    offset: float
    square_size: int
    tiles: tuple[int, float] | None = None

    def shapes(self) -> list[tuple[float, float, int]]:
        """Return (width, height, stride) of each anchor."""
        return [
            (size / math.sqrt(ratio), size * math.sqrt(ratio), stride)
            for sizes, ratios, stride in zip(
                self.sizes, self.aspect_ratios, self.strides, strict=True
            )
            for size in sizes
            for ratio in ratios
        ]


@dataclass(frozen=True)
class Rounding:
    """Coordinates that are written with few decimals of the image's size.

    Attributes:
        decimals: how many.
        median_iou, low_iou: the IoU with the written box that a perfect detector reaches, in the
            median and for the worst twentieth of the boxes.
    """

    decimals: int
    median_iou: float
    low_iou: float


def box_table(records: Sequence[dict], tiles: tuple[int, float] | None = None) -> np.ndarray:
    """Return (N, 6): x0, y0, x1, y1 in pixels, and width and height of the box's image.

    Boxes around groups are left out: they are no targets. With `tiles` (side and overlap), a row
    is the part of the box in the tile that shows most of it, in that tile, with the tile's size.
    """
    rows = [
        [*item["bbox"], record["width"], record["height"]]
        if tiles is None
        else _in_best_tile(record, item["bbox"], *tiles)
        for record, item in _targets(records)
    ]
    return np.array(rows, np.float64).reshape(-1, 6)


def _in_best_tile(record: dict, box: Sequence[float], side: int, overlap: float) -> list[float]:
    grid = np.array(tile_grid(record["height"], record["width"], side, overlap))
    visible = np.clip(box, np.tile(grid[:, :2], 2), np.tile(grid[:, 2:], 2))
    best = (visible[:, 2:] - visible[:, :2]).prod(axis=1).argmax()
    x0, y0, x1, y1 = grid[best]
    return [*(visible[best] - [x0, y0, x0, y0]), x1 - x0, y1 - y0]


def box_owners(records: Sequence[dict]) -> list[str]:
    """Return the image file of each row of `box_table`."""
    return [record["file_name"] for record, _ in _targets(records)]


def _targets(records: Sequence[dict]) -> Iterator[tuple[dict, dict]]:
    for record in records:
        yield from ((record, item) for item in record["annotations"] if not item["iscrowd"])


def scaled_sizes(table: np.ndarray, square_size: int) -> np.ndarray:
    """Return (N, 2): width and height of the boxes when the longest side is `square_size`."""
    scale = square_size / table[:, 4:].max(axis=1, keepdims=True)
    return (table[:, 2:4] - table[:, :2]) * scale


def is_normalized(table: np.ndarray) -> bool:
    """Tell whether all boxes lie in the first pixel, as shares of the image's sides would."""
    return len(table) > 0 and bool(table[:, :4].max() <= 1)


def best_anchor_iou(table: np.ndarray, anchors: Anchors) -> np.ndarray:
    """Return, for each box, the IoU of its best anchor on the grid of the padded input."""
    scale = anchors.square_size / table[:, 4:].max(axis=1, keepdims=True)
    corners = table[:, :4] * scale
    low, high = corners[:, :2], corners[:, 2:]
    centre, side = (low + high) / 2, high - low
    best = np.zeros(len(table))
    for width, height, stride in anchors.shapes():
        last = math.ceil(anchors.square_size / stride) - 1
        # Of anchors of one shape the nearest overlaps most.
        place = np.clip(np.rint(centre / stride - anchors.offset), 0, last)
        anchor = np.array([width, height])
        start = (place + anchors.offset) * stride - anchor / 2
        overlap = np.minimum(high, start + anchor) - np.maximum(low, start)
        common = np.clip(overlap, 0, None).prod(axis=1)
        union = side.prod(axis=1) + anchor.prod() - common
        best = np.maximum(best, common / union)
    return best


def find_rounding(table: np.ndarray) -> Rounding | None:
    """Return how coarsely centre and size are rounded, or None where it costs less than a pixel."""
    if len(table) < MIN_BOXES:
        return None
    shares = _centre_and_size(table)
    for decimals in DECIMALS:
        step = 10.0**-decimals
        if np.median(table[:, 4:]) * step <= MIN_STEP:
            return None
        off_grid = np.abs(shares / step - np.rint(shares / step)).max(axis=1)
        if (off_grid < 1e-3).mean() >= ROUNDED_SHARE:
            return _cost(shares, step, decimals)
    return None


def _centre_and_size(table: np.ndarray) -> np.ndarray:
    """Return (N, 4): YOLO's cx, cy, width, height, as shares of the image."""
    low, high = table[:, :2] / table[:, 4:], table[:, 2:4] / table[:, 4:]
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def _cost(shares: np.ndarray, step: float, decimals: int) -> Rounding:
    """Draw boxes that would have been rounded to these, and compare."""
    generator = np.random.default_rng(0)
    true = shares + generator.uniform(-step / 2, step / 2, shares.shape)
    true[:, 2:] = np.maximum(true[:, 2:], step / 100)
    low, high = (
        [boxes[:, :2] + sign * boxes[:, 2:] / 2 for boxes in (true, shares)] for sign in (-1, 1)
    )
    common = np.clip(np.minimum(*high) - np.maximum(*low), 0, None).prod(axis=1)
    areas = true[:, 2:].prod(axis=1) + shares[:, 2:].prod(axis=1)
    ious = common / (areas - common)
    return Rounding(decimals, float(np.median(ious)), float(np.quantile(ious, 0.05)))
