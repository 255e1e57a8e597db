"""FROC: lesions found against false positives per image, and the same set judged by image.

A detection hits a lesion of its own class by IoU 0.5 or by its centre. Best scores first, it takes
the lesion not yet found that it overlaps most; if all that it hits are found already it is neither
a hit nor a false positive, and so it is on a crowd region. Anything else is a false positive.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pycocotools import mask as overlap

from .boxes import (
    Prediction,
    Record,
    check_ground_truth,
    check_predictions,
    number_images,
    xywh_box,
)

FALSE_POSITIVES_PER_IMAGE = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
IOU = 0.5
FOUND, NEITHER, FALSE = 1, 0, -1


@dataclass(frozen=True)
class Froc:
    """A FROC curve, one point a distinct score, and figures of whole images.

    Attributes:
        scores: (N,) thresholds, descending; detections of equal score enter together.
        sensitivity: (N,) share of lesions found; None without lesions.
        false_positives: (N,) per image.
        healthy_false_positives: (N,) per image without any lesion; None without such images.
        image_auc: chance that an image with a lesion has a higher best score than one without,
            ties half (no detection is below every score); None unless both kinds are there.
    """

    scores: np.ndarray
    sensitivity: np.ndarray | None
    false_positives: np.ndarray
    healthy_false_positives: np.ndarray | None
    image_auc: float | None

    def at(self, rate: float) -> float | None:
        """Return the highest sensitivity that a threshold reaches with at most `rate`.

        Nothing is interpolated: between two points of the curve the lower one counts; beyond the
        last, the last.
        """
        if self.sensitivity is None:
            return None
        return float(self.sensitivity[self.false_positives <= rate].max(initial=0.0))

    def mean(self) -> float | None:
        """Return the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 per image."""
        if self.sensitivity is None:
            return None
        return float(np.mean([self.at(rate) for rate in FALSE_POSITIVES_PER_IMAGE]))

    def per_healthy_image(self, score: float) -> float | None:
        """Return false positives of at least `score` per image without any lesion."""
        if self.healthy_false_positives is None:
            return None
        return float(self.healthy_false_positives[self.scores >= score].max(initial=0.0))


@dataclass(frozen=True)
class LesionMatches:
    """The detections of a set, best first, and whether each found a lesion.

    Shape:
        D detections, I images.

    Attributes:
        scores: (D,) descending.
        image: (D,) place of the image in the records.
        kind: (D,) FOUND, NEITHER or FALSE.
        lesions: (I,) lesions of each image, crowd regions left out.
    """

    scores: np.ndarray
    image: np.ndarray
    kind: np.ndarray
    lesions: np.ndarray

    @cached_property
    def best_score(self) -> np.ndarray:
        """(I,) highest score on each image; minus infinity without a detection."""
        best = np.full(len(self.lesions), -np.inf)
        np.maximum.at(best, self.image, self.scores)
        return best


def match_lesions(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    num_classes: int,
    *,
    hit: Literal["iou", "centre"] = "iou",
    category: int | None = None,
) -> LesionMatches:
    """Match the detections of all classes, or of one, to lesions.

    Args:
        records: ground truth, as in `detection_metrics`.
        predictions: COCO's result list.
        num_classes: classes are numbered from 0.
        hit: "iou" (at least 0.5), or "centre": a detection's centre in the lesion's box, its edge
            included.
        category: the one class that is looked at; an image without it then counts as healthy.

    Raises:
        UserError: as `detection_metrics`.
    """
    check_ground_truth(records, [str(number) for number in range(num_classes)])
    check_predictions(predictions, number_images(records), num_classes)
    if category is not None:
        records = [_of_class(record, category) for record in records]
        predictions = [item for item in predictions if item["category_id"] == category]
    place = {record["image_id"]: index for index, record in enumerate(records)}
    lesions = np.array([sum(not b.get("iscrowd", 0) for b in r["annotations"]) for r in records])
    image = np.array([place[p["image_id"]] for p in predictions], dtype=np.int64)
    scores = np.array([p["score"] for p in predictions], dtype=np.float64)
    kind = _kinds(records, predictions, image, scores, hit)
    order = np.argsort(-scores, kind="stable")
    return LesionMatches(scores[order], image[order], kind[order], lesions)


def froc(matches: LesionMatches, weights: np.ndarray | None = None) -> Froc:
    """Return the FROC curve.

    Args:
        matches: see `match_lesions`.
        weights: (I,) how often each image counts, as in a resample; 1 each if left out.
    """
    scores, kind, lesions = matches.scores, matches.kind, matches.lesions
    weights = np.ones(len(lesions)) if weights is None else weights
    share, is_healthy = weights[matches.image], lesions == 0
    last = np.append(scores[1:] != scores[:-1], np.ones(min(len(scores), 1), dtype=bool))
    found, false, on_healthy = (
        np.cumsum(share * flags)[last]
        for flags in (kind == FOUND, kind == FALSE, (kind == FALSE) & is_healthy[matches.image])
    )
    objects, healthy = weights @ lesions, weights @ is_healthy
    return Froc(
        scores[last],
        found / objects if objects else None,
        false / max(weights.sum(), 1),
        on_healthy / healthy if healthy else None,
        _image_auc(matches, weights),
    )


def _of_class(record: Record, category: int) -> dict[str, Any]:
    boxes = [box for box in record["annotations"] if box["category_id"] == category]
    return {**record, "annotations": boxes}


def _kinds(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    image: np.ndarray,
    score: np.ndarray,
    hit: Literal["iou", "centre"],
) -> np.ndarray:
    """Return FOUND, NEITHER or FALSE for each prediction."""
    groups = defaultdict(list)
    for number in np.argsort(-score, kind="stable"):
        groups[image[number], predictions[number]["category_id"]].append(number)
    kind = np.full(len(predictions), FALSE)
    for (place, category), members in groups.items():
        truth = [b for b in records[place]["annotations"] if b["category_id"] == category]
        if not truth:
            continue
        objects = np.array([xywh_box(box) for box in truth])
        crowd = np.array([int(box.get("iscrowd", 0)) for box in truth], dtype=np.uint8)
        boxes = np.array([predictions[n]["bbox"] for n in members], dtype=np.float64)
        overlaps = np.asarray(overlap.iou(boxes, objects, crowd))
        hits = overlaps >= IOU if hit == "iou" else _centre_in(boxes, objects)
        kind[members] = _of_group(overlaps, hits, crowd != 0)
    return kind


def _of_group(overlaps: np.ndarray, hits: np.ndarray, crowd: np.ndarray) -> list[int]:
    """Walk the detections of one image and class, best first."""
    free, kinds = ~crowd, []
    for overlap_row, hit_row in zip(overlaps, hits, strict=True):
        open_hits = hit_row & free
        if open_hits.any():
            free[np.argmax(np.where(open_hits, overlap_row, -1.0))] = False
        kinds.append(FOUND if open_hits.any() else NEITHER if hit_row.any() else FALSE)
    return kinds


def _centre_in(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    centre = (boxes[:, :2] + boxes[:, 2:] / 2)[:, None]
    low, high = objects[None, :, :2], objects[None, :, :2] + objects[None, :, 2:]
    return ((centre >= low) & (centre <= high)).all(axis=2)


def _image_auc(matches: LesionMatches, weights: np.ndarray) -> float | None:
    """Return the rank statistic of the images' best scores; ties count half."""
    diseased = matches.lesions > 0
    ill, healthy = weights * diseased, weights * ~diseased
    if not ill.any() or not healthy.any():
        return None
    levels, level = np.unique(matches.best_score, return_inverse=True)
    at_level = np.bincount(level, weights=healthy, minlength=len(levels))
    below = np.cumsum(at_level) - at_level / 2
    return float(ill @ below[level] / ill.sum() / healthy.sum())
