"""COCO average precision and recall of boxes, from ground truth and predictions alone.

The definition is COCO's (Lin et al., arXiv:1405.0312) and every figure is pycocotools' own, in
percent. Needs neither detectron2 nor torch, so saved predictions can be scored anywhere.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from .accumulate import accumulate
from .boxes import (
    Prediction,
    Record,
    check_ground_truth,
    check_predictions,
    number_images,
    xywh_box,
)

# Places on the axes of COCOeval's arrays: IoU 0.50:0.05:0.95, then area, then detections an image.
IOU_50, IOU_75 = 0, 5
ALL_AREAS, AREAS = 0, {"s": 1, "m": 2, "l": 3}
LIMITS = {1: 0, 10: 1, 100: 2}

SIZES_IN_WORDS = {
    "s": "smaller than 32x32 px",
    "m": "between 32x32 and 96x96 px",
    "l": "larger than 96x96 px",
}


@dataclass(frozen=True)
class DetectionMetrics:
    """Figures in percent, each either defined or with the reason why it is not.

    Attributes:
        values: by name, such as "bbox/AP50" or "agnostic/AR100"; None where the ground truth
            leaves the figure undefined.
        reasons: for each None in `values`, why, in words.
    """

    values: dict[str, float | None]
    reasons: dict[str, str]

    def defined(self) -> dict[str, dict[str, float]]:
        """Return the defined figures as `{"bbox": {"AP": ...}, "agnostic": {"AP": ...}}`."""
        groups: dict[str, dict[str, float]] = {}
        for name, value in self.values.items():
            group, figure = name.split("/", 1)
            of_group = groups.setdefault(group, {})
            if value is not None:
                of_group[figure] = value
        return groups

    def __or__(self, other: DetectionMetrics) -> DetectionMetrics:
        """Join the figures of two kinds, such as those of boxes and of masks."""
        return DetectionMetrics(self.values | other.values, self.reasons | other.reasons)


def detection_metrics(
    records: Sequence[Record], predictions: Sequence[Prediction], class_names: Sequence[str]
) -> DetectionMetrics:
    """Score predicted boxes against the ground truth, per class and class-agnostically.

    "bbox/..." are COCO's twelve figures and "bbox/AP-<class>". "agnostic/..." take all boxes as one
    class (COCOeval with `useCats = 0`): they tell whether objects are found, whatever they are
    called. There the limit of 100 detections holds for all classes of an image together, and a box
    predicted under two class names is one hit and one false positive: two marks for one finding.

    An object's area is that of its box. The order of images does not matter; among detections of
    one image and class with equal scores the earlier goes first, as in pycocotools.

    Args:
        records: ground truth; read are image_id and annotations (bbox, bbox_mode, category_id
            contiguous from 0, iscrowd).
        predictions: COCO's result list.
        class_names: by category_id.

    Raises:
        UserError: on a duplicate image id or class name, and on the first prediction with an
            unknown image or class, or with a box or score that is not finite.
    """
    image_numbers = number_images(records)
    check_ground_truth(records, class_names)
    check_predictions(predictions, image_numbers, len(class_names))
    objects = truth_boxes(records, image_numbers)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools says that it makes an index
        truth = coco_index(objects, image_numbers, class_names)
        found = coco_index(found_boxes(predictions, image_numbers), image_numbers, class_names)
        by_class = accumulate(truth, found, class_agnostic=False)
        agnostic = accumulate(truth, found, class_agnostic=True)
    values = _class_figures(by_class, class_names) | _agnostic_figures(agnostic)
    num_crowds = sum(box["iscrowd"] for box in objects)
    reasons = {
        name: _reason(name, len(objects) > num_crowds, num_crowds > 0)
        for name, value in values.items()
        if value is None
    }
    return DetectionMetrics(values, reasons)


def truth_boxes(
    records: Sequence[Record], image_numbers: Mapping[int | str, int]
) -> list[dict[str, Any]]:
    """Return the objects of all records as COCO annotations, without ids."""
    return [
        {
            "image_id": image_numbers[record["image_id"]],
            "category_id": annotation["category_id"],
            "bbox": xywh_box(annotation),
            "iscrowd": int(annotation.get("iscrowd", 0)),
        }
        for record in records
        for annotation in record["annotations"]
    ]


def found_boxes(
    predictions: Sequence[Prediction], image_numbers: Mapping[int | str, int]
) -> list[dict[str, Any]]:
    """Return predictions as COCO annotations under the images' numbers."""
    return [
        {**prediction, "image_id": image_numbers[prediction["image_id"]], "iscrowd": 0}
        for prediction in predictions
    ]


def coco_index(
    boxes: list[dict[str, Any]], image_numbers: Mapping[int | str, int], class_names: Sequence[str]
) -> COCO:
    """Index boxes as pycocotools' own loading would; ids start at 1, since 0 means unmatched."""
    for number, box in enumerate(boxes, start=1):
        box["id"] = number
        box.setdefault("area", box["bbox"][2] * box["bbox"][3])
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in image_numbers.values()],
        "categories": [{"id": index, "name": name} for index, name in enumerate(class_names)],
        "annotations": boxes,
    }
    coco.createIndex()
    return coco


def _class_figures(
    arrays: Mapping[str, np.ndarray], class_names: Sequence[str]
) -> dict[str, float | None]:
    precision, recall = arrays["precision"][..., LIMITS[100]], arrays["recall"]
    figures = {
        "bbox/AP": percent(precision[..., ALL_AREAS]),
        "bbox/AP50": percent(precision[IOU_50, ..., ALL_AREAS]),
        "bbox/AP75": percent(precision[IOU_75, ..., ALL_AREAS]),
    }
    for size, area in AREAS.items():
        figures[f"bbox/AP{size}"] = percent(precision[..., area])
    for limit, index in LIMITS.items():
        figures[f"bbox/AR{limit}"] = percent(recall[..., ALL_AREAS, index])
    for size, area in AREAS.items():
        figures[f"bbox/AR{size}"] = percent(recall[..., area, LIMITS[100]])
    for index, name in enumerate(class_names):
        figures[f"bbox/AP-{name}"] = percent(precision[:, :, index, ALL_AREAS])
    return figures


def _agnostic_figures(arrays: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    precision = arrays["precision"][..., ALL_AREAS, LIMITS[100]]
    return {
        "agnostic/AP": percent(precision),
        "agnostic/AP50": percent(precision[IOU_50]),
        "agnostic/AP75": percent(precision[IOU_75]),
        "agnostic/AR100": percent(arrays["recall"][..., ALL_AREAS, LIMITS[100]]),
    }


def percent(values: np.ndarray) -> float | None:
    """Return the mean of what is defined, in percent; None where nothing is."""
    defined = values[values > -1]
    return 100 * float(np.mean(defined)) if defined.size else None


def _reason(name: str, has_objects: bool, has_crowds: bool) -> str:
    aside = " (crowd regions do not count)" if has_crowds else ""
    if not has_objects:
        return f"no ground-truth boxes at all{aside}"
    if name.startswith("bbox/AP-"):
        return f"class {name.removeprefix('bbox/AP-')!r} has no object in the set{aside}"
    return f"no ground-truth object {SIZES_IN_WORDS[name[-1]]}{aside}"
