"""COCOeval's precision and recall arrays, by the compiled evaluator, equal to the last digit."""

from __future__ import annotations

import numpy as np
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO

from .boxes import COCO_LIMIT

# COCOeval divides by tp + fp + eps, which is another number than tp + fp only where that is 1.
FIRST_HIT = 1 / (1 + np.spacing(1))
MOST_CLASSES = 1_000  # evaluated at once: the evaluator's arrays take 100 kB a class or more


def limits_up_to(max_detections: int) -> list[int]:
    """Return COCO's limits of detections an image, 1 and 10 and the largest, in their order."""
    return sorted({limit for limit in (1, 10) if limit < max_detections} | {max_detections})


def used_classes(truth: COCO, found: COCO) -> list[int]:
    """Return the classes that have an object or a detection, ascending; the first if none has.

    Of the others every metric is undefined, and a dataset may have thousands of them.
    """
    used = {item["category_id"] for coco in (truth, found) for item in coco.dataset["annotations"]}
    return sorted(used) or sorted(truth.getCatIds())[:1]


def accumulate(
    truth: COCO,
    found: COCO,
    *,
    class_agnostic: bool,
    max_detections: int = COCO_LIMIT,
    iou_type: str = "bbox",
) -> dict[str, np.ndarray]:
    """Return COCOeval's precision (T, R, K, A) and recall (T, K, A, M); -1 where undefined.

    Precision is that of the largest limit of detections. Classes without an object and a detection
    are left out: "classes" (K,) says which there are, by category id, and has -1 alone if all are
    taken as one.

    Shape:
        T IoU thresholds, R recall levels, K classes, A areas, M limits of detections an image
        (`limits_up_to(max_detections)`).
    """
    classes = used_classes(truth, found)
    size = len(classes) if class_agnostic else MOST_CLASSES
    blocks = []
    for start in range(0, len(classes), size):
        evaluation = COCOeval_faster(truth, found, iou_type, print_function=lambda *_: None)
        parameters = evaluation.params
        parameters.catIds = classes[start : start + size]
        parameters.maxDets = limits_up_to(max_detections)
        if class_agnostic:
            parameters.useCats = 0
            parameters.areaRng = parameters.areaRng[:1]
            parameters.areaRngLbl = parameters.areaRngLbl[:1]
        blocks.append(_arrays(evaluation, _objects(truth, evaluation)))
    precision, recall = zip(*blocks, strict=True)
    return {
        "precision": np.concatenate(precision, axis=2),
        "recall": np.concatenate(recall, axis=1),
        "classes": np.array([-1] if class_agnostic else classes),
    }


def _arrays(evaluation: COCOeval_faster, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return precision (T, R, K, A) and recall (T, K, A, M) of the evaluation's classes.

    The compiled evaluator leaves out the eps of COCOeval's division, so precision after a first
    hit is 1 where COCOeval has the next smaller number. Those entries are put right: they stand at
    the levels of recall that the first hit reaches, unless the second detection that counts is a
    hit too, which the precision at a level between the two tells.

    Args:
        evaluation: with its parameters set.
        counts: (K, A) objects that count.
    """
    parameters = evaluation.params
    levels = np.array(parameters.recThrs)
    between = np.unique(1.5 / counts[counts > 1])
    parameters.recThrs = np.concatenate([levels, between])
    evaluation.evaluate()
    evaluation.accumulate()
    shape = (-1, len(parameters.recThrs), *counts.shape, len(parameters.maxDets))
    with_between = np.asarray(evaluation.eval["precision"]).reshape(shape)[..., -1]
    precision = np.ascontiguousarray(with_between[:, : len(levels)])
    for (category, area), count in np.ndenumerate(counts):
        if not count:
            continue
        of_pair = precision[:, :, category, area]
        is_first = (of_pair == 1) & (levels <= 1 / count)
        if count > 1:
            place = len(levels) + int(np.searchsorted(between, 1.5 / count))
            is_first &= (with_between[:, place, category, area] != 1)[:, None]
        of_pair[is_first] = FIRST_HIT
    recall = np.asarray(evaluation.eval["recall"]).reshape(-1, *counts.shape, shape[-1])
    return precision, recall


def _objects(truth: COCO, evaluation: COCOeval_faster) -> np.ndarray:
    """Return how many objects count, by class and area range."""
    parameters = evaluation.params
    rows = {number: row for row, number in enumerate(parameters.catIds)}
    boxes = [
        box
        for box in truth.dataset["annotations"]
        if not box["iscrowd"] and box["category_id"] in rows
    ]
    area = np.array([box["area"] for box in boxes], dtype=np.float64)
    row = np.array([rows[box["category_id"]] for box in boxes], dtype=np.int64)
    if not parameters.useCats:
        row, rows = np.zeros_like(row), {-1: 0}
    counts = [
        np.bincount(row[(area >= low) & (area <= high)], minlength=len(rows))
        for low, high in parameters.areaRng
    ]
    return np.stack(counts, axis=1)
