"""Which detection hits which object: COCO's matching kept as arrays, and its curve from them.

COCOeval throws its matches away once it has averaged. Kept, they answer more: a resample of the
images is a weight an image, so thousands of resamples need one matching.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from .accumulate import used_classes
from .average_precision import coco_index, found_boxes, truth_boxes
from .boxes import (
    COCO_LIMIT,
    Prediction,
    Record,
    check_ground_truth,
    check_predictions,
    number_images,
)

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_LEVELS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class over a set, best first, and what became of them.

    A detection is a true positive (`hit`), passed over (`ignored`: it lies on a crowd region or
    on an object outside the area range, or is itself outside and hits nothing) or neither: a
    false positive. It is never both.

    Shape:
        D detections, I images, T = 10 IoU thresholds 0.50:0.05:0.95.

    Attributes:
        scores: (D,) descending; equal scores in COCOeval's order (image ids ascending, then as
            predicted).
        image: (D,) place of the image in the records.
        hit: (T, D) whether it is a true positive.
        ignored: (T, D) whether it counts neither way.
        objects: (I,) objects that count, by place of the image in the records.
        best_iou: (D,) highest IoU with an object of the class in the image, crowd regions left
            out; 0 where there is none.
    """

    scores: np.ndarray
    image: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray
    best_iou: np.ndarray


def match(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    num_classes: int,
    *,
    class_agnostic: bool = False,
    area: str = "all",
    max_detections: int = COCO_LIMIT,
) -> list[ClassMatches]:
    """Match detections to objects by COCO's rules, a class at a time.

    Args:
        records: ground truth, as in `detection_metrics`.
        predictions: COCO's result list.
        num_classes: classes are numbered from 0.
        class_agnostic: take all boxes as one class; the result then has one element.
        area: "all", "small", "medium" or "large", COCO's ranges.
        max_detections: detections of an image (and class) that are looked at, best first.

    Raises:
        UserError: as `detection_metrics`.
    """
    evaluation = evaluate(
        records,
        predictions,
        num_classes,
        class_agnostic=class_agnostic,
        area=area,
        max_detections=max_detections,
    )
    numbers = number_images(records)
    place_of = {numbers[record["image_id"]]: place for place, record in enumerate(records)}
    classes = [-1] if class_agnostic else evaluation.params.catIds
    size = len(numbers)
    found = {
        category: _gather(
            evaluation, evaluation.evalImgs[row * size : (row + 1) * size], place_of, category
        )
        for row, category in enumerate(classes)
    }
    unused = _gather(evaluation, [], place_of, -1)
    if class_agnostic:
        return [found[-1]]
    return [found.get(number, unused) for number in range(num_classes)]


def evaluate(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    num_classes: int,
    *,
    class_agnostic: bool = False,
    area: str = "all",
    max_detections: int = COCO_LIMIT,
    thresholds: Sequence[float] | np.ndarray = IOU_THRESHOLDS,
) -> COCOeval:
    """Return COCOeval with the matches of single images; the arguments are those of `match`.

    Ids count the objects of all records, and the predictions, from 1. `thresholds` are of IoU.
    Classes without an object and a detection are left out.
    """
    names = [str(number) for number in range(num_classes)]
    numbers = number_images(records)
    check_ground_truth(records, names)
    check_predictions(predictions, numbers, num_classes)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = coco_index(truth_boxes(records, numbers), numbers, names)
        found = coco_index(found_boxes(predictions, numbers), numbers, names)
        evaluation = COCOeval(truth, found, "bbox")
        parameters = evaluation.params
        parameters.catIds = used_classes(truth, found)
        parameters.areaRng = [parameters.areaRng[parameters.areaRngLbl.index(area)]]
        parameters.areaRngLbl = [area]
        parameters.maxDets = [max_detections]
        parameters.iouThrs = np.asarray(thresholds)
        parameters.useCats = 0 if class_agnostic else 1
        evaluation.evaluate()
    return evaluation


def _gather(
    evaluation: COCOeval,
    images: Sequence[dict[str, Any] | None],
    place_of: dict[int, int],
    category: int,
) -> ClassMatches:
    """Join COCOeval's matches of single images, as its `accumulate` does."""
    objects = np.zeros(len(place_of), dtype=np.int64)
    parts: list[tuple[np.ndarray, ...]] = [_no_detections()]
    for image in filter(None, images):
        place = place_of[image["image_id"]]
        objects[place] = np.count_nonzero(np.asarray(image["gtIgnore"]) == 0)
        scores = np.asarray(image["dtScores"], dtype=np.float64)
        if scores.size:
            matched = np.asarray(image["dtMatches"]) != 0
            ignored = np.asarray(image["dtIgnore"]) != 0
            best = _best_iou(evaluation, image["image_id"], category, scores.size)
            where = np.full(scores.size, place)
            parts.append((scores, where, matched & ~ignored, ignored, best))
    scores, where, hit, ignored, best = (
        np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True)
    )
    order = np.argsort(-scores, kind="mergesort")
    return ClassMatches(
        scores[order], where[order], hit[:, order], ignored[:, order], objects, best[order]
    )


def _no_detections() -> tuple[np.ndarray, ...]:
    """Return empty arrays of the right kinds, so that a class without detections has them too."""
    flags = np.zeros((len(IOU_THRESHOLDS), 0), dtype=bool)
    return np.zeros(0), np.zeros(0, dtype=np.int64), flags, flags, np.zeros(0)


def _best_iou(evaluation: COCOeval, image: int, category: int, detections: int) -> np.ndarray:
    """Return each detection's highest IoU with an object that is no crowd region."""
    classes = evaluation.params.catIds if category == -1 else [category]
    objects = [box for number in classes for box in evaluation._gts[image, number]]
    countable = np.array([not box["iscrowd"] for box in objects], dtype=bool)
    if not countable.any():
        return np.zeros(detections)
    return np.asarray(evaluation.ious[image, category])[:, countable].max(axis=1)


def precision_recall(
    matches: ClassMatches, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return COCO's interpolated precision at 101 levels of recall, and the recall reached.

    With weights an image counts as often as its weight says, as in a set that holds it so many
    times: all copies of a detection enter at once, which leaves the interpolated curve as it is
    but for the order among equal scores of different images.

    Args:
        matches: of one class.
        weights: (I,) by place of the image in the records; 1 each if left out.

    Returns:
        Precision (T, 101) and recall (T,), from 0 to 1; None where no object counts, which leaves
        both undefined.
    """
    weights = np.ones(len(matches.objects)) if weights is None else weights
    objects = float(weights @ matches.objects)
    if objects == 0:
        return None
    shares = weights[matches.image]
    true = np.cumsum(matches.hit * shares, axis=1)
    false = np.cumsum(~(matches.hit | matches.ignored) * shares, axis=1)
    recall = true / objects
    precision = true / (true + false + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    curve = np.zeros((len(true), len(RECALL_LEVELS)))
    for of_iou, reached, best in zip(curve, recall, envelope, strict=True):
        at = np.searchsorted(reached, RECALL_LEVELS, side="left")
        of_iou[at < len(best)] = best[at[at < len(best)]]
    return curve, recall[:, -1] if recall.shape[1] else np.zeros(len(recall))
