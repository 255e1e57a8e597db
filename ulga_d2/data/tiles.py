"""Tiles of large images: where an image is cut, and which tiles a training reads."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from ..errors import UserError
from .record import MIN_CLIPPED_SIDE

# A share of a box's area that falls short of a limit by less than this is rounding.
ROUNDING_OF_SHARE = 1e-9


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


def enough_visible(boxes: np.ndarray, visible: np.ndarray, least_share: float) -> np.ndarray:
    """Tell which boxes remain targets after they were clipped.

    A box that was not clipped remains. Of a clipped one, `least_share` of its area must be left,
    and `MIN_CLIPPED_SIDE` pixels of each side.

    Args:
        boxes: (N, 4) XYXY, before.
        visible: (N, 4), after.
        least_share: of the area, 0 to 1.

    Returns:
        (N,) bool.
    """
    side = visible[:, 2:] - visible[:, :2]
    share = side.prod(axis=1) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    clipped = np.abs(visible - boxes).max(axis=1, initial=0) > 0
    return ~clipped | ((side.min(axis=1) >= MIN_CLIPPED_SIDE) & (share >= least_share))


@dataclass(frozen=True)
class TrainingTiles:
    """All tiles of a training set, numbered by image and then row by row.

    Attributes:
        records: the images' records.
        owners: (N,) the index of each tile's record.
        extents: (N, 4) x0, y0, x1, y1 of each tile in its image.
        with_targets: numbers of the tiles that show enough of a box to be a target.
        empty: numbers of all other tiles.
        never_visible: number of boxes that are a target in no tile.
        empty_per_epoch: how many of the empty tiles an epoch draws.
    """

    records: list[dict]
    owners: np.ndarray
    extents: np.ndarray
    with_targets: np.ndarray
    empty: np.ndarray
    never_visible: int
    empty_per_epoch: int

    @property
    def epoch_length(self) -> int:
        """Number of tiles in an epoch."""
        return len(self.with_targets) + self.empty_per_epoch

    def record(self, number: int) -> dict:
        """Return a tile's record: its image's, with `tile` (x0, y0, x1, y1)."""
        return {
            **self.records[self.owners[number]],
            "tile": tuple(map(int, self.extents[number])),
        }


def cut_into_tiles(
    records: list[dict], *, side: int, overlap: float, min_visible: float, empty_share: float
) -> TrainingTiles:
    """Return the tiles of a training set.

    Args:
        records: of the images.
        side: of a tile, in pixels.
        overlap: see `tile_grid`.
        min_visible: least visible share of a target's area.
        empty_share: number of empty tiles in an epoch, as a share of those with targets; there
            are never more than exist.

    Raises:
        UserError: no tile shows enough of a box.
    """
    owners: list[int] = []
    extents: list[tuple[int, int, int, int]] = []
    has_target: list[bool] = []
    never_visible = 0
    for index, record in enumerate(records):
        grid = tile_grid(record["height"], record["width"], side, overlap)
        targets = [item["bbox"] for item in record["annotations"] if not item["iscrowd"]]
        visible = _visible_in(grid, np.array(targets, np.float64).reshape(-1, 4), min_visible)
        never_visible += int((~visible.any(axis=0)).sum())
        owners += [index] * len(grid)
        extents += grid
        has_target += visible.any(axis=1).tolist()
    with_targets = np.flatnonzero(has_target)
    if not len(with_targets):
        raise UserError(
            f"none of the {len(extents)} tiles of INPUT.TILE.SIDE {side} shows {min_visible:g} of "
            "the area of a box; raise INPUT.TILE.SIDE or lower INPUT.TILE.MIN_VISIBLE"
        )
    empty = np.flatnonzero(~np.array(has_target))
    return TrainingTiles(
        records,
        np.array(owners),
        np.array(extents),
        with_targets,
        empty,
        never_visible,
        min(round(empty_share * len(with_targets)), len(empty)),
    )


def _visible_in(
    grid: list[tuple[int, int, int, int]], boxes: np.ndarray, min_visible: float
) -> np.ndarray:
    """Return (T, N) bool: which boxes are targets in which tile."""
    least = min_visible - ROUNDING_OF_SHARE
    rows = [
        enough_visible(boxes, np.clip(boxes, (x0, y0, x0, y0), (x1, y1, x1, y1)), least)
        for x0, y0, x1, y1 in grid
    ]
    return np.array(rows)
