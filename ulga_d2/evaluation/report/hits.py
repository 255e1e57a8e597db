"""Which detection of an image hits which object, at IoU 0.5: what the gallery shows.

The rule is COCO's: from the highest score down, a detection takes the free object of its class with
the largest IoU of at least 0.5; one that has only a crowd region counts for nothing. Whatever has a
lower score changes nothing above it, so counts at any score threshold follow from one matching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..boxes import COCO_LIMIT, Prediction, Record, xywh_box

IOU = 0.5


@dataclass
class Object:
    """An object of the ground truth; `score` is that of the detection that hits it, or None."""

    box: list[float]
    category: int
    is_crowd: bool
    score: float | None = None


@dataclass(frozen=True)
class Detection:
    """A detection; `hit` is None where it counts for nothing, `iou` is with what it takes."""

    box: list[float]
    category: int
    score: float
    hit: bool | None
    iou: float


@dataclass(frozen=True)
class ImageHits:
    """One image: its record, its objects, and its detections with the highest score first."""

    record: Record
    objects: list[Object]
    detections: list[Detection]

    @property
    def missed(self) -> int:
        """Objects that no detection hits."""
        return sum(not thing.is_crowd and thing.score is None for thing in self.objects)

    @property
    def worst_score(self) -> float:
        """The highest score of a false positive, 0 without one."""
        return max((one.score for one in self.detections if one.hit is False), default=0.0)

    @property
    def loss(self) -> float:
        """Scores of false positives, and what each object's hit lacks to a score of 1."""
        false = sum(one.score for one in self.detections if one.hit is False)
        return false + sum(1 - (one.score or 0) for one in self.objects if not one.is_crowd)


def match_images(
    records: Sequence[Record], predictions: Sequence[Prediction], limit: int = COCO_LIMIT
) -> list[ImageHits]:
    """Match the detections of every image, at most the `limit` best a class, by record."""
    found: dict[int | str, list[Prediction]] = {record["image_id"]: [] for record in records}
    for item in predictions:
        found[item["image_id"]].append(item)
    return [_match(record, found[record["image_id"]], limit) for record in records]


def _match(record: Record, predictions: Sequence[Prediction], limit: int) -> ImageHits:
    objects = [
        Object(xywh_box(item), item["category_id"], bool(item.get("iscrowd", 0)))
        for item in record["annotations"]
    ]
    detections = []
    taken: dict[int, int] = {}
    for item in sorted(predictions, key=lambda one: -one["score"]):
        category = item["category_id"]
        taken[category] = taken.get(category, 0) + 1
        if taken[category] <= limit:
            detections.append(_take(item, objects))
    return ImageHits(record, objects, detections)


def _take(item: Prediction, objects: Sequence[Object]) -> Detection:
    """Let a detection take its object, in place."""
    box, score = list(item["bbox"]), item["score"]
    free = [
        thing
        for thing in objects
        if thing.category == item["category_id"] and (thing.is_crowd or thing.score is None)
    ]
    overlaps = [(not thing.is_crowd, iou(box, thing)) for thing in free]
    real, overlap = max((pair for pair in overlaps if pair[1] >= IOU), default=(True, 0.0))
    hit = (overlap > 0) if real else None
    if hit:
        free[overlaps.index((True, overlap))].score = score
    return Detection(box, item["category_id"], score, hit, overlap)


def iou(box: Sequence[float], thing: Object) -> float:
    """Return the intersection over the union, or for a crowd region over the box alone."""
    x, y, width, height = box
    a, b, w, h = thing.box
    inner_width = min(x + width, a + w) - max(x, a)
    inner_height = min(y + height, b + h) - max(y, b)
    inner = max(0.0, inner_width) * max(0.0, inner_height)
    whole = width * height if thing.is_crowd else width * height + w * h - inner
    return inner / whole if whole > 0 else 0.0
