"""Prove from the boxes of a file that its numbers have another unit or meaning than expected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

XYXY = tuple[float, float, float, float]

# A box of fractions lies within the first pixel; in images of fewer pixels a side this says little.
_LEAST_SIDE = 8
_ROUNDING = 1e-3
# So many such boxes are no accident if they are most of all, or if at least the lesser share of all
# is spread over 0..1 without touching the edge: slivers at the origin are not.
_LEAST_BOXES, _LEAST_SHARE, _MOST = 3, 0.01, 0.5
# Percent are proven by many boxes all over 0..100 in images that are far larger.
_PERCENT_BOXES, _PERCENT_SIDE, _SPREAD = 10, 300, 0.25
# Sides that are corners run past the edge in most boxes; centers do in a good part of them.
_CORNER_SHARE, _CENTER_SHARE, _CENTER_BOXES = 0.5, 0.3, 10

MAYBE_PERCENT = "boxes that all lie within 0..100 of far larger images: percent, not pixels?"
MAYBE_CENTERS = "boxes past the right or bottom edge, and all would fit around x, y: centers?"


def wrong_unit(
    boxes: Sequence[XYXY], sizes: Sequence[tuple[int, int]], *, gives_sides: bool = False
) -> tuple[int, str] | None:
    """Return what boxes that are read as pixels prove to be instead.

    Args:
        boxes: left, top, right, bottom as read, in pixels.
        sizes: (height, width) of each box's image.
        gives_sides: the file gives x, y, width, height, not two corners.

    Returns:
        the number of a box that shows it, and the fault with its fix; None where nothing is proven.
    """
    usable, array, limits = _usable(boxes, sizes)
    checks = [_fractions, _percent]
    if gives_sides:
        checks += [_corners, _centers]
    for check in checks:
        found = check(array, limits) if len(usable) else None
        if found:
            return int(usable[found[0]]), found[1]
    return None


def doubtful_unit(
    boxes: Sequence[XYXY], sizes: Sequence[tuple[int, int]], *, gives_sides: bool = False
) -> tuple[str, list[int]]:
    """Return what boxes may be instead of pixels, though nothing proves it (see `wrong_unit`).

    Returns:
        the doubt in words, and the numbers of the boxes that raise it; none without a doubt.
    """
    usable, array, limits = _usable(boxes, sizes)
    if _within_percent(array, limits):
        return MAYBE_PERCENT, usable.tolist()
    return MAYBE_CENTERS, usable[_past_as_corners(array, limits)].tolist() if gives_sides else []


def _usable(
    boxes: Sequence[XYXY], sizes: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers of the boxes that have an area, these boxes, and the image's x, y end."""
    array = np.asarray(boxes, np.float64).reshape(-1, 4)
    limits = np.asarray(sizes, np.float64).reshape(-1, 2)[:, ::-1]
    sides = array[:, 2:] - array[:, :2]
    usable = np.flatnonzero(np.isfinite(array).all(axis=1) & (sides > 0).all(axis=1))
    return usable, array[usable], limits[usable]


def starts_at_one(boxes: Sequence[XYXY], sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Return the boxes that end one pixel past the edge, where all numbers seem to count from 1.

    Args:
        boxes: left, top, right, bottom as read, in pixels.
        sizes: (height, width) of each box's image.

    Returns:
        their numbers; none if a box starts before 1 or ends farther out.
    """
    array = np.asarray(boxes, np.float64).reshape(-1, 4)
    limits = np.asarray(sizes, np.float64).reshape(-1, 2)[:, ::-1]
    if len(array) < _PERCENT_BOXES or not (array >= 1).all() or (array[:, 2:] > limits + 1).any():
        return []
    past = np.flatnonzero((array[:, 2:] == limits + 1).any(axis=1))
    return past.tolist() if len(past) >= _LEAST_BOXES else []


def _fractions(array: np.ndarray, limits: np.ndarray) -> tuple[int, str] | None:
    sides = array[:, 2:] - array[:, :2]
    is_inside = (array[:, :2] >= -_ROUNDING).all(axis=1) & (limits >= _LEAST_SIDE).all(axis=1)
    is_inside &= (array[:, :2] <= 1 + _ROUNDING).all(axis=1) & (sides <= 1 + _ROUNDING).all(axis=1)
    is_proof = is_inside & (array != np.rint(array)).any(axis=1)
    count = int(is_proof.sum())
    scattered = array[is_proof & (array[:, :2] > 0).all(axis=1)]
    is_mixed = count >= max(_LEAST_BOXES, _MOST * len(array))
    if len(scattered) >= max(_LEAST_BOXES, _LEAST_SHARE * len(array)):
        is_mixed |= _is_spread(scattered, 1)
    if not count or not (is_inside.all() or is_mixed):
        return None
    return int(np.argmax(is_proof)), (
        f"{_share(count, len(array))} within 0..1, so the numbers are fractions of the image's "
        "size, not pixels; multiply them by its width and height, or export the boxes in pixels"
    )


def _is_spread(array: np.ndarray, end: float) -> bool:
    """Tell whether boxes begin in the first quarter of 0..end and end in the last, on both axes."""
    first, last = array[:, :2].min(axis=0), array[:, 2:].max(axis=0)
    return bool((first < _SPREAD * end).all() and (last > (1 - _SPREAD) * end).all())


def _within_percent(array: np.ndarray, limits: np.ndarray) -> bool:
    """Tell whether many boxes lie within 0..100, and reach to its ends, in far larger images."""
    if len(array) < _PERCENT_BOXES or limits.min() < _PERCENT_SIDE:
        return False
    is_inside = array[:, :2].min() >= -_ROUNDING and array[:, 2:].max() <= 100 + _ROUNDING
    return bool(is_inside) and _is_spread(array, 100)


def _percent(array: np.ndarray, limits: np.ndarray) -> tuple[int, str] | None:
    if not _within_percent(array, limits):
        return None
    # Boxes that share one region may be those of one thing, such as a mark in a corner.
    low, high = array[:, :2], array[:, 2:]
    if not ((low.max(axis=0) > 50).all() and (high.min(axis=0) < 50).all()):
        return None
    return 0, (
        f"{_share(len(array), len(array))} within 0..100 though every image has "
        f"{_PERCENT_SIDE} pixels a side or more, so the numbers are percent of the image's size, "
        "not pixels; export the boxes in pixels"
    )


def _corners(array: np.ndarray, limits: np.ndarray) -> tuple[int, str] | None:
    is_past = (array[:, 2:] > limits + 1).any(axis=1)
    last = array[:, 2:] - array[:, :2]  # what the file gives as width and height
    is_corner = (last > array[:, :2]).all(axis=1) & (last <= limits + 1).all(axis=1)
    count = int(is_past.sum())
    if count < _LEAST_BOXES or count < _CORNER_SHARE * len(array) or not is_corner.all():
        return None
    return int(np.argmax(is_past)), (
        f"{_share(count, len(array))} partly past the right or bottom edge, and as corners all "
        "would fit, so the numbers are x1, y1, x2, y2, not x, y, width, height; convert them"
    )


def _past_as_corners(array: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return which boxes end past the edge, where all boxes would fit around x, y; else none."""
    is_past = (array[:, 2:] > limits + 1).any(axis=1)
    half = (array[:, 2:] - array[:, :2]) / 2
    fits = (array[:, :2] - half >= -1).all(axis=1) & (array[:, :2] + half <= limits + 1).all(axis=1)
    return is_past if len(array) >= _CENTER_BOXES and fits.all() else np.zeros_like(is_past)


def _centers(array: np.ndarray, limits: np.ndarray) -> tuple[int, str] | None:
    is_past = _past_as_corners(array, limits)
    count = int(is_past.sum())
    if count < max(_CENTER_BOXES, _CENTER_SHARE * len(array)):
        return None
    return int(np.argmax(is_past)), (
        f"{_share(count, len(array))} partly past the right or bottom edge, and around x, y all "
        "would fit, so x, y are the center of a box, not its corner; subtract half its size"
    )


def _share(count: int, total: int) -> str:
    return f"all {total:,} boxes lie" if count == total else f"{count:,} of {total:,} boxes lie"
