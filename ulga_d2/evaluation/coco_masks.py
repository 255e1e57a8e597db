"""Turn masks as COCO files write them into compressed run lengths of a known size."""

from __future__ import annotations

from pycocotools import mask as run_lengths

# pycocotools reads run lengths without looking and walks along each edge of a polygon, so both are
# checked before it sees them.
_DIGITS = 5
_MAX_DIGITS = 7


def compress_mask(segmentation: list | dict, size: tuple[int, int]) -> dict[str, object]:
    """Return a mask as COCO's compressed run lengths ("size", "counts").

    Args:
        segmentation: a list of polygons [x0, y0, x1, y1, ...], or run lengths, compressed or not.
        size: (height, width) of the image.

    Raises:
        ValueError: why there is no such mask: its parts are not what they should be, it has another
            size, lies far outside the image, or covers no pixel.
    """
    if isinstance(segmentation, list):
        for polygon in segmentation:
            _check_polygon(polygon, size)
        parts = run_lengths.frPyObjects([list(map(float, part)) for part in segmentation], *size)
        mask = run_lengths.merge(parts)
    else:
        counts = _counts(segmentation, size)
        mask = run_lengths.frPyObjects({"size": list(size), "counts": counts}, *size)
    if not run_lengths.area(mask):
        raise ValueError("it covers no pixel")
    return {"size": list(size), "counts": mask["counts"].decode("ascii")}


def check_run_lengths(segmentation: object, size: tuple[int, int]) -> dict[str, object]:
    """Return the mask of a result as COCO's compressed run lengths, which may cover no pixel.

    Args:
        segmentation: run lengths, compressed or not.
        size: (height, width) of the image.

    Raises:
        ValueError: it is no mask of that size, and why.
    """
    if isinstance(segmentation, list):
        raise ValueError("it is a list of polygons; masks of results are run lengths")
    counts = _counts(segmentation, size)
    mask = run_lengths.frPyObjects({"size": list(size), "counts": counts}, *size)
    return {"size": list(size), "counts": mask["counts"].decode("ascii")}


def mask_box(
    segmentation: list | dict, mask: dict[str, object]
) -> tuple[float, float, float, float]:
    """Return the box (left, top, right, bottom) around a mask.

    Args:
        segmentation: as `compress_mask` took it; polygons are exact to fractions of a pixel.
        mask: what it returned.
    """
    if isinstance(segmentation, list):
        xs, ys = ([value for part in segmentation for value in part[axis::2]] for axis in (0, 1))
        return float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))
    x, y, width, height = (float(value) for value in run_lengths.toBbox(mask))
    return x, y, x + width, y + height


def _check_polygon(polygon: object, size: tuple[int, int]) -> None:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError("a polygon is no list of three or more points x, y")
    for position, value in enumerate(polygon):
        if not _is_number(value) or value != value:
            raise ValueError(f"{str(value)[:20]!r} in a polygon is no number")
        side = size[1 - position % 2]
        if not -side <= value <= 2 * side:
            raise ValueError("a polygon lies far outside the image")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _counts(segmentation: object, size: tuple[int, int]) -> list[int]:
    """Return run lengths that add up to the image."""
    if not isinstance(segmentation, dict):
        raise ValueError("it is neither a list of polygons nor run lengths")
    if segmentation.get("size") != list(size):
        raise ValueError(
            f"it has another size than the image: {str(segmentation.get('size'))[:40]}"
        )
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = _decompress(counts)
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError("its run lengths are no whole numbers from 0 up")
    if sum(counts) != size[0] * size[1]:
        raise ValueError("its run lengths do not add up to the image")
    return counts


def _decompress(text: str) -> list[int]:
    """Return the lengths in COCO's text: 5 bits a character, differences from the third on."""
    counts: list[int] = []
    value = digits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or digits == _MAX_DIGITS:
            raise ValueError("its compressed run lengths are damaged")
        value |= (code & 31) << (_DIGITS * digits)
        digits += 1
        if code & 32:
            continue
        if code & 16:
            value -= 1 << (_DIGITS * digits)
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = digits = 0
    if digits:
        raise ValueError("its compressed run lengths are cut off")
    return counts
