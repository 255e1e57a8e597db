"""The gallery of a report: images where the detector did worst and best, with all their boxes."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .hits import ImageHits

ReadImage = Callable[[str], np.ndarray]
PER_GROUP = 8
MAX_BOXES = 25  # detections drawn on an image, the best
SIDES = (512, 384, 256, 160)  # longest side of a picture, in pixels: the largest that fits
BUDGET = 3_000_000  # bytes of all pictures together, as text


@dataclass(frozen=True)
class Box:
    """A box in percent of the picture; `kind` is "truth", "hit", "false" or "ignored".

    The score of a "truth" is that of its hit, 0 without one.
    """

    x: float
    y: float
    width: float
    height: float
    label: str
    kind: str
    score: float


@dataclass(frozen=True)
class Tile:
    """A picture of the gallery: its data URI, caption, size in pixels, and boxes."""

    picture: str
    name: str
    caption: str
    size: tuple[int, int]
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Group:
    """Tiles of one kind, the most telling first."""

    title: str
    words: str
    tiles: tuple[Tile, ...]


def build_gallery(
    images: Sequence[ImageHits], class_names: Sequence[str], read_image: ReadImage
) -> list[Group]:
    """Choose images by what the detector did on them and draw them small enough for one file.

    Args:
        images: the whole set, matched.
        class_names: by category_id.
        read_image: from file_name to RGB pixels (H, W, 3) in 0..255.
    """
    chosen = _choose(images)
    names = {one.record["file_name"] for _, _, members in chosen for one in members}
    pictures = _pictures(sorted(names), read_image)
    return [
        Group(
            title,
            words,
            tuple(_tile(one, pictures[one.record["file_name"]], class_names) for one in members),
        )
        for title, words, members in chosen
    ]


def _choose(images: Sequence[ImageHits]) -> list[tuple[str, str, list[ImageHits]]]:
    def first(key: Callable[[ImageHits], float], among: list[ImageHits]) -> list[ImageHits]:
        return sorted(among, key=key, reverse=True)[:PER_GROUP]

    with_objects = [one for one in images if one.objects]
    hit = [one for one in with_objects if any(d.hit for d in one.detections)]
    return [
        (
            "Highest loss",
            "Loss: the scores of false positives, and for each object 1 minus its hit's score.",
            first(lambda one: one.loss, [one for one in images if one.loss > 0]),
        ),
        (
            "Worst false positives",
            "By the highest score that hits nothing.",
            first(lambda one: one.worst_score, [o for o in with_objects if o.worst_score > 0]),
        ),
        (
            "Missed objects",
            "Objects that no detection hits at any score; most missed first, then by loss.",
            first(lambda one: (one.missed, one.loss), [o for o in with_objects if o.missed]),
        ),
        (
            "Best hits",
            "Lowest loss among images with objects.",
            first(lambda one: -one.loss, hit),
        ),
        (
            "Healthy images with detections",
            "Images without objects, by the highest score on them.",
            first(lambda o: o.worst_score, [o for o in images if not o.objects and o.detections]),
        ),
    ]


def _pictures(names: Sequence[str], read_image: ReadImage) -> dict[str, str]:
    """Return a data URI for each file, all at the largest size at which they fit the budget."""
    pictures: dict[str, str] = {}
    for side in SIDES:
        pictures = {name: _encode(read_image(name), side) for name in names}
        if sum(map(len, pictures.values())) <= BUDGET:
            break
    return pictures


def _encode(image: np.ndarray, side: int) -> str:
    height, width = image.shape[:2]
    ratio = min(1.0, side / max(height, width))
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    pixels = np.clip(np.round(image), 0, 255).astype(np.uint8)
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


def _tile(image: ImageHits, picture: str, class_names: Sequence[str]) -> Tile:
    record = image.record
    width, height = record["width"], record["height"]

    def box(xywh: Sequence[float], label: str, kind: str, score: float) -> Box:
        x, y, w, h = xywh
        place = (100 * x / width, 100 * y / height, 100 * w / width, 100 * h / height)
        return Box(*(round(value, 2) for value in place), label, kind, score)

    truth = [
        box(one.box, class_names[one.category], "truth", one.score or 0.0) for one in image.objects
    ]
    kinds = {True: "hit", False: "false", None: "ignored"}
    found = [
        box(d.box, f"{class_names[d.category]} {d.score:.2f}", kinds[d.hit], d.score)
        for d in image.detections[:MAX_BOXES]
    ]
    objects = sum(not one.is_crowd for one in image.objects)
    caption = f"objects {objects}, without any hit {image.missed}, loss {image.loss:.2f}"
    name = os.path.basename(record["file_name"])
    return Tile(picture, name, caption, (width, height), (*truth, *found))
