"""COCOeval's precision and recall arrays, by the compiled evaluator, equal to the last digit."""

from __future__ import annotations

import numpy as np
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO

from .boxes import COCO_LIMIT

# COCOeval divides by tp + fp + eps, which is another number than tp + fp only where that is 1.
FIRST_HIT = 1 / (1 + np.spacing(1))


def limits_up_to(max_detections: int) -> list[int]:
    """Return COCO's limits of detections an image, 1 and 10 and the largest, in their order."""
    return sorted({limit for limit in (1, 10) if limit < max_detections} | {max_detections})


def accumulate(
    truth: COCO,
    found: COCO,
    *,
    class_agnostic: bool,
    max_detections: int = COCO_LIMIT,
    iou_type: str = "bbox",
) -> dict[str, np.ndarray]:
    """Return COCOeval's precision (T, R, K, A, M) and recall (T, K, A, M); -1 where undefined.

    The compiled evaluator leaves out the eps of COCOeval's division, so precision after a first
    hit is 1 where COCOeval has the next smaller number. Those entries are put right: they stand at
    the levels of recall that the first hit reaches, unless the second detection that counts is a
    hit too, which the precision at a level between the two tells.

    Shape:
        T IoU thresholds, R recall levels, K classes, A areas, M limits of detections an image
        (`limits_up_to(max_detections)`).
    """
    evaluation = COCOeval_faster(truth, found, iou_type, print_function=lambda *_: None)
    parameters = evaluation.params
    parameters.maxDets = limits_up_to(max_detections)
    if class_agnostic:
        parameters.useCats = 0
        parameters.areaRng = parameters.areaRng[:1]
        parameters.areaRngLbl = parameters.areaRngLbl[:1]
    levels = np.array(parameters.recThrs)
    counts = _objects(truth, evaluation)
    between = np.unique(1.5 / counts[counts > 1])
    parameters.recThrs = np.concatenate([levels, between])
    evaluation.evaluate()
    evaluation.accumulate()
    shape = (-1, len(parameters.recThrs), *counts.shape, len(parameters.maxDets))
    with_between = np.asarray(evaluation.eval["precision"]).reshape(shape)
    precision = np.ascontiguousarray(with_between[:, : len(levels)])
    for (category, area), count in np.ndenumerate(counts):
        if not count:
            continue
        of_pair = precision[:, :, category, area]
        is_first = (of_pair == 1) & (levels <= 1 / count)[:, None]
        if count > 1:
            place = len(levels) + int(np.searchsorted(between, 1.5 / count))
            is_first &= (with_between[:, place, category, area] != 1)[:, None]
        of_pair[is_first] = FIRST_HIT
    recall = np.asarray(evaluation.eval["recall"]).reshape(-1, *counts.shape, shape[-1])
    return {"precision": precision, "recall": recall}


def _objects(truth: COCO, evaluation: COCOeval_faster) -> np.ndarray:
    """Return how many objects count, by class and area range."""
    parameters = evaluation.params
    boxes = [box for box in truth.dataset["annotations"] if not box["iscrowd"]]
    area = np.array([box["area"] for box in boxes], dtype=np.float64)
    category = np.array([box["category_id"] for box in boxes], dtype=np.int64)
    classes = sorted(parameters.catIds) if parameters.useCats else [None]
    counts = [
        [
            np.count_nonzero(
                ((category == number) | (number is None)) & (area >= low) & (area <= high)
            )
            for low, high in parameters.areaRng
        ]
        for number in classes
    ]
    return np.array(counts, dtype=np.int64).reshape(len(classes), len(parameters.areaRng))
