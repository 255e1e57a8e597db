"""Which class is taken for which, with the background as the last row and column."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

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

IOU = 0.5


def confusion_matrix(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    num_classes: int,
    *,
    score: float,
) -> np.ndarray:
    """Count objects (rows) by the class that they were detected as (columns).

    Classes play no part in the matching: best scores first, a detection takes the free object that
    it overlaps most, if by IoU 0.5 or more. The last row holds detections that take none, the last
    column objects that none takes. A detection that takes none and lies on a crowd region with half
    of its own area counts neither way, nor does the region. So rows sum to objects, columns to the
    detections that count.

    Args:
        records: ground truth, as in `detection_metrics`.
        predictions: COCO's result list.
        num_classes: C; classes are numbered from 0.
        score: detections below it are left out.

    Shape:
        (C + 1, C + 1).

    Raises:
        UserError: as `detection_metrics`.
    """
    check_ground_truth(records, [str(number) for number in range(num_classes)])
    check_predictions(predictions, number_images(records), num_classes)
    kept = defaultdict(list)
    for prediction in sorted(predictions, key=lambda p: -p["score"]):
        if prediction["score"] >= score:
            kept[prediction["image_id"]].append(prediction)
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    for record in records:
        _count_image(matrix, record, kept[record["image_id"]])
    return matrix


def _count_image(matrix: np.ndarray, record: Record, found: Sequence[Prediction]) -> None:
    truth, background = record["annotations"], len(matrix) - 1
    crowd = np.array([bool(box.get("iscrowd", 0)) for box in truth], dtype=bool)
    free = ~crowd
    overlaps = np.zeros((len(found), len(truth)))
    if found and truth:
        boxes = np.array([p["bbox"] for p in found], dtype=np.float64)
        objects = np.array([xywh_box(box) for box in truth])
        overlaps = np.asarray(overlap.iou(boxes, objects, crowd.astype(np.uint8)))
    for prediction, row in zip(found, overlaps, strict=True):
        hits = (row >= IOU) & free
        if hits.any():
            taken = int(np.argmax(np.where(hits, row, -1.0)))
            free[taken] = False
            matrix[truth[taken]["category_id"], prediction["category_id"]] += 1
        elif not (row[crowd] >= IOU).any():
            matrix[background, prediction["category_id"]] += 1
    for place in np.flatnonzero(free):
        matrix[truth[place]["category_id"], background] += 1
