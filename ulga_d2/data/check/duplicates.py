"""Find the same picture twice, pixel by pixel or nearly.

Method: the fingerprint is the difference hash known from image search tools (dHash); the second
look at thumbnails, and both limits, are ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from .scan import THUMBNAIL, Scan

# Fingerprints of near duplicates differ in at most this many of 64 bits ...
MAX_BITS = 4
# ... and their thumbnails correlate at least so.
MIN_CORRELATION = 0.995
# Pairs of fingerprints compared at once (32 MB), and pairs of thumbnails (64 MB).
BLOCK = 1 << 22
PAIRS = 1 << 13


def exact_duplicates(scans: Sequence[Scan]) -> list[list[int]]:
    """Return the groups of indices, two or more each, whose images have the same pixels."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, scan in enumerate(scans):
        if scan.digest:
            groups[scan.digest].append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_duplicates(first: Sequence[Scan], second: Sequence[Scan]) -> list[tuple[int, int]]:
    """Return (index in `first`, index in `second`) of images that are nearly the same.

    Pairs with the same pixels are left out, and so are images without any contrast. Of several
    partners in `second`, an image of `first` gets the first.
    """
    one, other = _comparable(first), _comparable(second)
    partners: dict[int, int] = {}
    if not one or not other:
        return []
    left, right = _thumbnails(first, one), _thumbnails(second, other)
    for rows, columns in _candidates(_fingerprints(first, one), _fingerprints(second, other)):
        alike = _correlations(left[rows], right[columns]) >= MIN_CORRELATION
        for row, column in zip(rows[alike].tolist(), columns[alike].tolist(), strict=True):
            i, j = one[row], other[column]
            if first[i].digest != second[j].digest:
                partners.setdefault(i, j)
    return sorted(partners.items())


def _comparable(scans: Sequence[Scan]) -> list[int]:
    """Return the first index of each distinct image that has something to compare."""
    chosen = {
        scan.digest: index
        for index, scan in reversed(list(enumerate(scans)))
        if any(scan.thumbnail)
    }
    return sorted(chosen.values())


def _fingerprints(scans: Sequence[Scan], chosen: list[int]) -> np.ndarray:
    return np.array([scans[index].fingerprint for index in chosen], np.uint64)


def _thumbnails(scans: Sequence[Scan], chosen: list[int]) -> np.ndarray:
    joined = b"".join(scans[index].thumbnail for index in chosen)
    return np.frombuffer(joined, np.uint8).reshape(len(chosen), THUMBNAIL**2)


def _candidates(left: np.ndarray, right: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows and columns of like fingerprints; every pair is looked at, in blocks."""
    height = max(1, BLOCK // len(right))
    for start in range(0, len(left), height):
        bits = np.bitwise_count(left[start : start + height, None] ^ right[None])
        rows, columns = np.nonzero(bits <= MAX_BITS)
        for at in range(0, len(rows), PAIRS):
            yield rows[at : at + PAIRS] + start, columns[at : at + PAIRS]


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the correlation of each row of `a` with the same row of `b`."""
    x, y = (
        rows.astype(np.float32) - rows.mean(axis=1, keepdims=True, dtype=np.float32)
        for rows in (a, b)
    )
    return (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))
