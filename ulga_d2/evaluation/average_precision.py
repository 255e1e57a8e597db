"""COCO average precision and recall of boxes, from ground truth and predictions alone.

The definition is COCO's (Lin et al., arXiv:1405.0312) and every figure is pycocotools' own, in
percent. Needs neither detectron2 nor torch, so saved predictions can be scored anywhere.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from .accumulate import accumulate, limits_up_to
from .boxes import (
    COCO_LIMIT,
    Prediction,
    Record,
    check_ground_truth,
    check_predictions,
    number_images,
    xywh_box,
)

# Indices on the axes of COCOeval's arrays: IoU 0.50:0.05:0.95, then area, then the limit of
# detections an image, of which the largest is the last.
IOU_50, IOU_75 = 0, 5
ALL_AREAS, AREAS = 0, {"s": 1, "m": 2, "l": 3}
LARGEST = -1

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
        max_detections: the limit of detections an image.
    """

    values: dict[str, float | None]
    reasons: dict[str, str]
    max_detections: int = COCO_LIMIT

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
        return replace(
            self, values=self.values | other.values, reasons=self.reasons | other.reasons
        )


def shown_name(name: str, max_detections: int) -> str:
    """Return a metric's name as it is printed: with the limit of detections if it is not COCO's.

    "bbox/AP" becomes "bbox/AP@300"; names that state their limit, such as "AR300", stay.
    """
    metric = name.rpartition("/")[2] if "/AP-" not in name else "AP"
    if max_detections == COCO_LIMIT or not metric.startswith(("AP", "ARs", "ARm", "ARl")):
        return name
    return f"{name}@{max_detections}"


def headline(max_detections: int = COCO_LIMIT) -> dict[str, str]:
    """Return the five metrics that stand first everywhere: how each is printed, by its name."""
    names = {f"bbox/{name}": shown_name(name, max_detections) for name in ("AP", "AP50", "AP75")}
    names[f"bbox/AR{max_detections}"] = f"AR@{max_detections}"
    names["agnostic/AP"] = f"class-agnostic {shown_name('AP', max_detections)}"
    return names


def detection_metrics(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    class_names: Sequence[str],
    *,
    max_detections: int = COCO_LIMIT,
) -> DetectionMetrics:
    """Score predicted boxes against the ground truth, per class and class-agnostically.

    "bbox/..." are COCO's twelve figures and "bbox/AP-<class>". "agnostic/..." take all boxes as one
    class (COCOeval with `useCats = 0`): they tell whether objects are found, whatever they are
    called. There the limit of detections holds for all classes of an image together, and a box
    predicted under two class names is one hit and one false positive: two marks for one finding.

    An object's area is what its annotation states (COCO `area`), else its box's. The order of
    images does not matter; among detections of one image and class with equal scores the earlier
    goes first, as in pycocotools.

    Args:
        records: ground truth; read are image_id and annotations (bbox, bbox_mode, category_id
            contiguous from 0, iscrowd, area).
        predictions: COCO's result list, with category_id contiguous from 0 too.
        class_names: by category_id.
        max_detections: detections of an image (and class) that count, best first: COCO's
            maxDets is [1, 10, max_detections]. "AR100" is called by it, "AR300".

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
        by_class, agnostic = (
            accumulate(truth, found, class_agnostic=one_class, max_detections=max_detections)
            for one_class in (False, True)
        )
    values = _class_figures(by_class, class_names, limits_up_to(max_detections))
    values |= _agnostic_figures(agnostic, max_detections)
    num_crowds = sum(box["iscrowd"] for box in objects)
    reasons = {
        name: _reason(name, len(objects) > num_crowds, num_crowds > 0)
        for name, value in values.items()
        if value is None
    }
    return DetectionMetrics(values, reasons, max_detections)


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
            **({"area": annotation["area"]} if "area" in annotation else {}),
        }
        for record in records
        for annotation in record["annotations"]
    ]


def found_boxes(
    predictions: Sequence[Prediction], image_numbers: Mapping[int | str, int]
) -> list[dict[str, Any]]:
    """Return predictions as COCO annotations under the images' numbers; areas are the boxes'."""
    return [
        {
            "image_id": image_numbers[prediction["image_id"]],
            "category_id": prediction["category_id"],
            "bbox": prediction["bbox"],
            "score": prediction["score"],
            "iscrowd": 0,
        }
        for prediction in predictions
    ]


class _Index(COCO):
    """pycocotools' index, which looks for a class in a set rather than in a list of all."""

    def getAnnIds(  # noqa: N802 (pycocotools' name)
        self, imgIds: Sequence[int] = (), catIds: Sequence[int] = (), **others: Any
    ) -> list[int]:
        return super().getAnnIds(imgIds, frozenset(catIds), **others)


def coco_index(
    boxes: list[dict[str, Any]], image_numbers: Mapping[int | str, int], class_names: Sequence[str]
) -> COCO:
    """Index boxes as pycocotools' own loading would; ids start at 1, since 0 means unmatched."""
    for number, box in enumerate(boxes, start=1):
        box["id"] = number
        box.setdefault("area", box["bbox"][2] * box["bbox"][3])
    coco = _Index()
    coco.dataset = {
        "images": [{"id": number} for number in image_numbers.values()],
        "categories": [{"id": index, "name": name} for index, name in enumerate(class_names)],
        "annotations": boxes,
    }
    coco.createIndex()
    return coco


def _class_figures(
    arrays: Mapping[str, np.ndarray], class_names: Sequence[str], limits: Sequence[int]
) -> dict[str, float | None]:
    precision, recall = arrays["precision"], arrays["recall"]
    figures = {
        "bbox/AP": percent(precision[..., ALL_AREAS]),
        "bbox/AP50": percent(precision[IOU_50, ..., ALL_AREAS]),
        "bbox/AP75": percent(precision[IOU_75, ..., ALL_AREAS]),
    }
    for size, area in AREAS.items():
        figures[f"bbox/AP{size}"] = percent(precision[..., area])
    for index, limit in enumerate(limits):
        figures[f"bbox/AR{limit}"] = percent(recall[..., ALL_AREAS, index])
    for size, area in AREAS.items():
        figures[f"bbox/AR{size}"] = percent(recall[..., area, LARGEST])
    of_class = dict.fromkeys(range(len(class_names)))
    for row, number in enumerate(arrays["classes"].tolist()):
        of_class[number] = percent(precision[:, :, row, ALL_AREAS])
    figures |= {f"bbox/AP-{name}": of_class[index] for index, name in enumerate(class_names)}
    return figures


def _agnostic_figures(
    arrays: Mapping[str, np.ndarray], max_detections: int
) -> dict[str, float | None]:
    precision = arrays["precision"][..., ALL_AREAS]
    return {
        "agnostic/AP": percent(precision),
        "agnostic/AP50": percent(precision[IOU_50]),
        "agnostic/AP75": percent(precision[IOU_75]),
        f"agnostic/AR{max_detections}": percent(arrays["recall"][..., ALL_AREAS, LARGEST]),
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
