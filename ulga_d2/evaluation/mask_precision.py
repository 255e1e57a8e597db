"""COCO average precision of instance masks, beside that of boxes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from .accumulate import accumulate
from .average_precision import (
    ALL_AREAS,
    AREAS,
    IOU_50,
    IOU_75,
    SIZES_IN_WORDS,
    DetectionMetrics,
    coco_index,
    percent,
)
from .boxes import COCO_LIMIT, Prediction, Record, number_images, xywh_box


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask (H, W) of zeros and others as COCO's compressed run lengths, fit for JSON."""
    encoded = run_lengths.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def mask_metrics(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    class_names: Sequence[str],
    *,
    max_detections: int = COCO_LIMIT,
) -> DetectionMetrics:
    """Score predicted masks against the ground truth: "segm/AP", AP50, AP75, APs, APm, APl.

    An object's area is what its annotation states (COCO `area`), else its mask's.

    Args:
        records: ground truth whose annotations have "segmentation" as run lengths; without masks
            every figure is undefined.
        predictions: checked results that each have "segmentation" as run lengths.
        class_names: by category_id.
        max_detections: as in `detection_metrics`.
    """
    annotations = [item for record in records for item in record["annotations"]]
    names = ["AP", "AP50", "AP75", *(f"AP{size}" for size in AREAS)]
    if any("segmentation" not in item for item in annotations):
        reason = "the ground truth has boxes without a mask"
        return DetectionMetrics(
            {f"segm/{name}": None for name in names}, {f"segm/{name}": reason for name in names}
        )
    precision = _precision(records, predictions, class_names, max_detections)
    values = {
        "segm/AP": percent(precision[..., ALL_AREAS]),
        "segm/AP50": percent(precision[IOU_50, ..., ALL_AREAS]),
        "segm/AP75": percent(precision[IOU_75, ..., ALL_AREAS]),
    }
    for size, area in AREAS.items():
        values[f"segm/AP{size}"] = percent(precision[..., area])
    reasons = {
        name: f"no ground-truth object {SIZES_IN_WORDS.get(name[-1], 'at all')}"
        for name, value in values.items()
        if value is None
    }
    return DetectionMetrics(values, reasons, max_detections)


def _precision(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    class_names: Sequence[str],
    max_detections: int,
) -> np.ndarray:
    """Return COCOeval's precision of masks, (T, R, K, A), for so many detections an image."""
    numbers = number_images(records)
    truth = [
        _mask(numbers[record["image_id"]], item, xywh_box(item), int(item.get("iscrowd", 0)))
        | ({"area": item["area"]} if "area" in item else {})
        for record in records
        for item in record["annotations"]
    ]
    found = [
        {**_mask(numbers[item["image_id"]], item, item["bbox"], 0), "score": item["score"]}
        for item in predictions
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        pair = [coco_index(items, numbers, class_names) for items in (truth, found)]
        for record in records:  # pycocotools asks each image for its size
            size = {"height": record["height"], "width": record["width"]}
            for coco in pair:
                coco.imgs[numbers[record["image_id"]]].update(size)
        arrays = accumulate(
            *pair, class_agnostic=False, max_detections=max_detections, iou_type="segm"
        )
    return arrays["precision"]


def _mask(image: int, item: Prediction, box: list[float], iscrowd: int) -> dict[str, Any]:
    segmentation = item["segmentation"]
    return {
        "image_id": image,
        "category_id": item["category_id"],
        "bbox": box,
        "segmentation": segmentation,
        "area": float(run_lengths.area(segmentation)),
        "iscrowd": iscrowd,
    }
