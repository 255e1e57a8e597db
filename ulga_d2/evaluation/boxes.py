"""Ground truth and predictions as checked boxes, without detectron2 or torch.

Ground truth is a list of detectron2's standard dicts, predictions are COCO's result list (image_id
and category_id as in the ground truth, bbox [x, y, width, height] in absolute pixels, score).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from ulga_d2.errors import UserError

Record = Mapping[str, Any]
Prediction = Mapping[str, Any]

REQUIRED_KEYS = {"image_id", "category_id", "bbox", "score"}
MOST = 2**31  # pixels, and of a score: far more than any image or detector has
COCO_LIMIT = 100  # detections an image that COCO's own metrics look at, best first


def number_images(records: Sequence[Record]) -> dict[int | str, int]:
    """Number the images 1, 2, ... by sorted id: the order in which COCOeval breaks ties.

    Raises:
        UserError: if two records share an image id.
    """
    counts = Counter(record["image_id"] for record in records)
    for image_id, count in counts.items():
        if count > 1:
            raise UserError(
                f"ground truth: image_id {image_id!r} stands in {count} records; "
                "give every image of the set an id of its own"
            )
    ordered = sorted(counts, key=lambda image_id: (isinstance(image_id, str), image_id))
    return {image_id: number for number, image_id in enumerate(ordered, start=1)}


def check_ground_truth(records: Sequence[Record], class_names: Sequence[str]) -> None:
    """Raise UserError if class names repeat or a record's class has no name."""
    repeated = sorted(name for name, count in Counter(class_names).items() if count > 1)
    if repeated:
        raise UserError(f"classes: {repeated} appear more than once; rename or merge them")
    for record in records:
        for annotation in record["annotations"]:
            if not 0 <= annotation["category_id"] < len(class_names):
                raise UserError(
                    f"ground truth: image_id {record['image_id']!r} has category_id "
                    f"{annotation['category_id']}, but the classes are {list(class_names)}; "
                    "number them from 0 in this order"
                )


def check_predictions(
    predictions: Sequence[Prediction],
    image_ids: Container[int | str],
    num_classes: int,
    source: str = "",
) -> None:
    """Raise UserError at the first prediction that cannot be scored.

    Args:
        predictions: COCO's result list.
        image_ids: of the ground truth.
        num_classes: of the ground truth.
        source: the file that the predictions are from, for messages.
    """
    place = f"{source}, " if source else ""
    for number, prediction in enumerate(predictions, start=1):
        fault = _fault(prediction, image_ids, num_classes)
        if fault is not None:
            image = f"{prediction.get('image_id')!r:.80}"
            raise UserError(f"{place}prediction number {number} (image_id {image}): {fault}")


def _fault(prediction: Prediction, image_ids: Container[int | str], num_classes: int) -> str | None:
    if not prediction.keys() >= REQUIRED_KEYS:
        missing = ", ".join(sorted(REQUIRED_KEYS - prediction.keys()))
        return f"it has no {missing}; write COCO's result format"
    image_id, category = prediction["image_id"], prediction["category_id"]
    if isinstance(image_id, bool) or not isinstance(image_id, (Integral, str)):
        return "an image_id is a whole number or a text"
    if image_id not in image_ids:
        return _no_such_image(image_id, image_ids)
    is_whole = isinstance(category, Integral) and not isinstance(category, bool)
    if not is_whole or not 0 <= category < num_classes:
        return f"category_id {category!r:.80} is not in 0..{num_classes - 1}; number classes from 0"
    box, score = prediction["bbox"], prediction["score"]
    is_list = not isinstance(box, (str, bytes, Mapping)) and isinstance(box, Iterable)
    numbers = [*box, score] if is_list else [score]
    if not is_list or any(isinstance(v, bool) or not isinstance(v, Real) for v in numbers):
        return f"bbox {box!r:.80} and score {score!r:.80} must be numbers"
    for name, value, parts in (("score", score, [score]), ("bbox", box, box)):
        if not all(-math.inf < v < math.inf for v in parts):
            return f"{name} {value!r:.80} is not finite; correct the program that wrote the file"
        if any(abs(v) > MOST for v in parts):
            return f"{name} {value!r:.80} is above {MOST:,}; is it the right file?"
    if len(box) != 4 or min(box[2:]) < 0:
        return f"bbox {box!r:.80} is not [x, y, width, height] with sides >= 0; convert it"
    return None


def _no_such_image(image_id: object, image_ids: Container[int | str]) -> str:
    if isinstance(image_id, str) and image_id.isdecimal() and int(image_id) in image_ids:
        return "ids of this dataset are numbers, not text; write the id without quotes"
    if str(image_id) in image_ids:
        return "ids of this dataset are text, not numbers; write the id in quotes"
    return "the ground truth has no such image; score predictions on the set they were made on"


def images_over_limit(records: Sequence[Record], limit: int) -> list[tuple[Record, int]]:
    """Return the images with more objects than `limit`, and how many; crowd regions are none."""
    counts = [
        (record, sum(not item.get("iscrowd", 0) for item in record["annotations"]))
        for record in records
    ]
    return [(record, count) for record, count in counts if count > limit]


def limit_warning(records: Sequence[Record], limit: int) -> str | None:
    """Say in one line that the limit of detections cuts recall, and on how many images."""
    over = images_over_limit(records, limit)
    if not over:
        return None
    largest = max(count for _, count in over)
    return (
        f"images with more than {limit} objects: {len(over):,} (the largest has {largest:,}). Only "
        f"the {limit} best detections of an image count, which limits recall; raise "
        "TEST.DETECTIONS_PER_IMAGE, or --max-detections for saved detections"
    )


def xywh_box(annotation: Mapping[str, Any]) -> list[float]:
    """Return an annotation's box as [x, y, width, height] in absolute pixels.

    Read are detectron2's two box modes of absolute pixels, by their numbers: 0 (corners, XYXY_ABS)
    and 1 (XYWH_ABS).
    """
    a, b, c, d = (float(value) for value in annotation["bbox"])
    mode = int(annotation["bbox_mode"])
    if mode not in (0, 1):
        raise UserError(f"ground truth: bbox_mode {mode} cannot be read; use BoxMode.XYXY_ABS")
    return [a, b, c - a, d - b] if mode == 0 else [a, b, c, d]
