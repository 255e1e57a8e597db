"""Geometry of tiles: where a large image is cut, the same in training and inference."""

from __future__ import annotations

from itertools import product


def tile_grid(
    height: int, width: int, side: int, overlap: float
) -> list[tuple[int, int, int, int]]:
    """Return the tiles that cover an image, row by row.

    From one tile to the next is `max(1, round(side * (1 - overlap)))` pixels. The last tile of a
    row or column is moved inside the image instead of padded. An image no larger than `side` in a
    direction has one tile there, of the image's extent.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        side: of a tile, in pixels.
        overlap: share of `side` that neighboring tiles have in common, at least.

    Returns:
        (x0, y0, x1, y1) of each tile: whole pixels, half-open, inside the image.
    """
    stride = max(1, round(side * (1 - overlap)))
    rows, columns = (_extents(length, side, stride) for length in (height, width))
    return [(x0, y0, x1, y1) for (y0, y1), (x0, x1) in product(rows, columns)]


def _extents(length: int, side: int, stride: int) -> list[tuple[int, int]]:
    last = length - side
    if last <= 0:
        return [(0, length)]
    return [(start, start + side) for start in [*range(0, last, stride), last]]
