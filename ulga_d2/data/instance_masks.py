"""Find the objects in mask images: one colour or number an object, or one connected part each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypedDict

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from .image_file import missing_end, open_image_file, undecodable
from .image_header import open_with_pillow, own_pixel_limit, read_header

# Grey values up to this are numbers of objects; a mask of shades reaches further.
MAX_NUMBER = 63
# A pixel this dark or darker (in every channel) is background with the noise of a lossy copy.
BLACK = 32
# Colours no farther apart (in any channel) are one colour with such noise.
TOLERANCE = 24
# Fewer pixels than this are a speck.
MIN_PIXELS = 10
# Side of a square that an object fills somewhere and an edge nowhere: a blend of two colours, which
# lossy copies smear over a few pixels.
CLEAN_WIDTH, NOISY_WIDTH = 3, 5
# Of an object mask without instances, a part below this share of the image is a speck.
MIN_PART = 1e-4
_MAX_GROUPS = 255


class MaskObject(TypedDict):
    """One object: its box (XYXY, half-open, pixels) and COCO's compressed run lengths."""

    bbox: list[int]
    counts: str


class MaskObjects(TypedDict):
    """The objects of a mask and the mask's size (height, width); JSON can hold it."""

    size: list[int]
    objects: list[MaskObject]


def instances_in(path: str) -> MaskObjects:
    """Return the objects of an instance mask: one a palette index, a grey number, or a colour.

    A clean mask is taken to the pixel. In a lossy or smoothed copy, colours that differ by little
    are one, the blends along edges go to the nearest colour, black included, and specks go.

    Raises:
        UserError: the file is missing, damaged, or no image.
    """
    labels, is_clean = _labels(_read(path))
    masks = (labels == number for number in range(1, labels.max(initial=0) + 1))
    return _result(labels.shape, masks if is_clean else map(_without_specks, masks))


def parts_in(path: str) -> MaskObjects:
    """Return the connected parts of an object mask; those that touch come out as one.

    Raises:
        UserError: see `instances_in`.
    """
    pixels = _read(path)
    values = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    mask = values > (0 if values.max(initial=0) <= MAX_NUMBER else 127)
    least = max(MIN_PIXELS, MIN_PART * mask.size)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    kept = (n for n in range(1, count) if stats[n, cv2.CC_STAT_AREA] >= least)
    return _result(mask.shape, (labels == number for number in kept))


def _read(path: str) -> np.ndarray:
    """Return (H, W) palette indices or grey values, or (H, W, 3) colours, all as stored."""
    with open_image_file(path) as file:
        reason = missing_end(file.read())
        if reason:
            raise undecodable(path, reason)
        file.seek(0)
        read_header(file, path)
        image = open_with_pillow(file, path)
        try:
            with own_pixel_limit:
                return _as_stored(image)
        except Exception as error:  # damaged data raise anything
            raise undecodable(path, error) from None


def _as_stored(image: Image.Image) -> np.ndarray:
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode == "P":
        indices = np.asarray(image)
        # More indices than a mask has objects: a picture that was squeezed into a palette.
        is_index_mask = len(np.unique(indices)) <= MAX_NUMBER
        return _black_is_zero(indices, image) if is_index_mask else np.asarray(image.convert("RGB"))
    if image.mode.startswith("I"):
        return np.minimum(np.asarray(image), 255).astype(np.uint8)
    return np.asarray(image.convert("RGB"))


def _black_is_zero(indices: np.ndarray, image: Image.Image) -> np.ndarray:
    """Return indices as numbers of objects, 0 where the palette says black."""
    palette = np.zeros((256, 3), np.uint8)
    colors = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette[: len(colors)] = colors
    used = np.unique(indices)
    visible = used[palette[used].any(axis=1)]
    if not visible.size:
        visible = used[used > 0]  # a palette that says nothing
    numbers = np.zeros(256, np.uint8)
    numbers[visible] = np.arange(1, len(visible) + 1)
    return numbers[indices]


def _labels(pixels: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the number of the object at each pixel (0 = none), and whether there is no noise."""
    if pixels.ndim == 3 and not (pixels != pixels[:, :, :1]).any():
        pixels = pixels[:, :, 0]
    if pixels.ndim == 2:
        if pixels.max(initial=0) <= MAX_NUMBER:
            return pixels.astype(np.int32), True
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return _labels_of_colors(pixels)


def _labels_of_colors(pixels: np.ndarray) -> tuple[np.ndarray, bool]:
    labels = np.zeros(pixels.shape[:2], np.int32)
    colored = pixels.any(axis=2)
    packed = pixels[colored].astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    codes, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
    labels[colored] = places + 1
    if _is_clean(labels, counts):
        return labels, True
    colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)
    centers = []
    for near in _groups(colors, counts):
        mask = np.concatenate([[False], near])[labels]
        if _is_wide(mask, NOISY_WIDTH):
            centers.append(int(np.where(near, counts, 0).argmax()))
    targets = np.concatenate([np.zeros((1, 3), np.int32), colors[centers]])
    nearest = np.abs(colors[:, None] - targets).max(axis=2).argmin(axis=1)
    nearest[colors.max(axis=1) <= BLACK] = 0
    labels[colored] = nearest[places]
    return labels, False


def _is_clean(labels: np.ndarray, counts: np.ndarray) -> bool:
    """Return whether every colour stands for an object; blends are many, and thin lines."""
    if len(counts) > MAX_NUMBER:
        return False
    wide = sum(_is_wide(labels == number, CLEAN_WIDTH) for number in range(1, len(counts) + 1))
    return wide >= len(counts) - wide


def _groups(colors: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray]:
    """Yield which colours are like the most frequent one, then like the next, without black."""
    left = np.where(colors.max(axis=1) > BLACK, counts, 0)
    for _ in range(_MAX_GROUPS):
        if not left.any():
            return
        near = np.abs(colors - colors[left.argmax()]).max(axis=1) <= TOLERANCE
        near &= left > 0
        yield near
        left[near] = 0


def _is_wide(mask: np.ndarray, width: int) -> bool:
    """Return whether the mask somewhere fills a square."""
    square = np.ones((width, width), np.uint8)
    return bool(cv2.erode(mask.astype(np.uint8), square).any())


def _without_specks(mask: np.ndarray) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    kept = stats[:, cv2.CC_STAT_AREA] >= MIN_PIXELS
    kept[0] = False
    return kept[labels]


def _result(size: tuple[int, ...], masks: Iterable[np.ndarray]) -> MaskObjects:
    objects: list[MaskObject] = []
    for mask in masks:
        if np.count_nonzero(mask) < MIN_PIXELS:
            continue
        left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
        lengths = run_lengths.encode(np.asfortranarray(mask, np.uint8))["counts"]
        box = [left, top, left + width, top + height]
        objects.append({"bbox": box, "counts": lengths.decode("ascii")})
    return {"size": list(size), "objects": objects}
