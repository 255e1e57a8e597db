"""Make detectron2's record of one image from checked boxes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from detectron2.structures import BoxMode

from ..config import default_category_ids
from .report import DataReport

# A clipped box is kept if each side is at least this long (pixels) ...
MIN_CLIPPED_SIDE = 1.0
# ... and this share of its area is left.
MIN_AREA_LEFT = 0.2
# Overhang below this (pixels) is rounding of the annotation file, not worth a report.
ROUNDING = 0.01

EMPTIED = "images that lost all their boxes left out"
KEPT_EMPTIED = "images that lost all their boxes kept as images without boxes"


@dataclass(frozen=True)
class Box:
    """One annotated box as the file states it.

    Attributes:
        xyxy: left, top, right, bottom; absolute pixels, half-open, possibly outside the image.
        category_id: class number, contiguous from 0.
        place: file and line or record, for reports.
        iscrowd: COCO's flag for a box around a group.
        segmentation: the object's mask as COCO's compressed run lengths ("size", "counts"), of the
            image's size; None where the data give boxes alone.
        area: the object's area in pixels that the file states (COCO `area`: as a rule the mask's);
            None where it states none.
    """

    xyxy: tuple[float, float, float, float]
    category_id: int
    place: str
    iscrowd: int = 0
    segmentation: dict | None = None
    area: float | None = None


@dataclass(frozen=True)
class LoadedSplit:
    """One split of a data set: its records, its classes, and what reading it found.

    Attributes:
        records: detectron2's dicts, with `category_id` contiguous from 0.
        class_names: by that number.
        report: what was read, fixed and dropped.
        category_ids: the dataset's own category ids, by that number. A format without ids of its
            own leaves them out and gets 1..K.

    Raises:
        AssertionError: an image or a box was lost without being counted; a fault of the reader.
    """

    records: list[dict]
    class_names: tuple[str, ...]
    report: DataReport
    category_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.category_ids is None:
            ids = default_category_ids(len(self.class_names))
            object.__setattr__(self, "category_ids", ids)
        lost = self.report.imbalance()
        if lost:
            raise AssertionError(lost)


def make_record(
    *,
    file_name: str,
    image_id: int | str,
    size: tuple[int, int],
    boxes: Iterable[Box],
    class_names: tuple[str, ...],
    report: DataReport,
    patient_id: str | None = None,
    lost_boxes: int = 0,
) -> dict | None:
    """Return one image as a detectron2 dict; bad boxes are mended or dropped, and counted.

    An image that had boxes and lost them all is no image without objects, so it is left out, and
    counted, unless `report.keeps_emptied`.

    Args:
        file_name: full path of the image.
        image_id: unique within the split.
        size: (height, width) in pixels, as `read_image` returns the image.
        boxes: the image's boxes, possibly none.
        class_names: names by class number, for the counts.
        report: takes the counts, in place.
        patient_id: whose image it is, where the data tell; becomes a key of the record.
        lost_boxes: how many boxes of the image the reader has dropped, and counted, itself.

    Returns:
        the record; None where the image is left out.
    """
    boxes = list(boxes)
    annotations = _annotations(boxes, size, report)
    if not annotations and (boxes or lost_boxes):
        if not report.keeps_emptied:
            report.drop_image(EMPTIED, file_name, boxes=0)
            return None
        report.note(KEPT_EMPTIED, file_name)
    for annotation in annotations:
        report.boxes[class_names[annotation["category_id"]]] += 1
    report.images += 1
    report.empty_images += not annotations
    record = {
        "file_name": file_name,
        "image_id": image_id,
        "height": size[0],
        "width": size[1],
        "annotations": annotations,
    }
    return record if patient_id is None else {**record, "patient_id": patient_id}


def _annotations(boxes: Iterable[Box], size: tuple[int, int], report: DataReport) -> list[dict]:
    annotations = []
    seen = set()
    for box in boxes:
        key = (box.category_id, box.xyxy, box.iscrowd)
        if key in seen:
            report.drop_box("exact duplicates dropped", box.place)
            continue
        seen.add(key)
        xyxy = _inside(box, size, report)
        if xyxy is None:
            continue
        annotation = {
            "bbox": xyxy,
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": box.category_id,
            "iscrowd": box.iscrowd,
        }
        if box.segmentation is not None:
            annotation["segmentation"] = box.segmentation
        if box.area is not None and _overhang(box, xyxy) <= ROUNDING:
            annotation["area"] = box.area  # of the box as annotated, so not of a clipped one
        annotations.append(annotation)
    return annotations


def _inside(box: Box, size: tuple[int, int], report: DataReport) -> list[float] | None:
    """Return the part of the box inside the image, or None where too little of it is left."""
    height, width = size
    x0, y0, x1, y1 = box.xyxy
    if not all(math.isfinite(value) for value in box.xyxy):
        report.drop_box("boxes with a number that is not finite dropped", box.place)
        return None
    if x1 <= x0 or y1 <= y0:
        report.drop_box("boxes without area dropped", box.place)
        return None
    clipped = [max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))]
    side_x, side_y = clipped[2] - clipped[0], clipped[3] - clipped[1]
    if side_x <= 0 or side_y <= 0:
        report.drop_box("boxes outside the image dropped", box.place)
        return None
    if _overhang(box, clipped) <= ROUNDING:
        return clipped
    least_area = MIN_AREA_LEFT * (x1 - x0) * (y1 - y0)
    if min(side_x, side_y) < MIN_CLIPPED_SIDE or side_x * side_y < least_area:
        report.drop_box("boxes nearly outside the image dropped", box.place)
        return None
    report.note("boxes clipped to the image", box.place)
    return clipped


def _overhang(box: Box, clipped: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(clipped, box.xyxy, strict=True))
