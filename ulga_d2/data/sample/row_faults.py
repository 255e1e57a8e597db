"""Faults in single annotations: boxes outside the image, without area, twice, of no known class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import nan

from ..nih_chest_xray import CLASS_NAMES as FINDINGS
from .cells import CLASS_NAMES as CELLS
from .layout import Label, SampleImage, Written
from .lesion import CLASS_NAMES as LESIONS
from .outcome import (
    CLIPPED,
    DUPLICATE,
    NEARLY_OUTSIDE,
    OUTSIDE,
    WITHOUT_AREA,
    Defect,
    Fault,
    Outcome,
)

YOLO = frozenset(["yolo", "yolo_old"])
COCO = frozenset(["roboflow", "ours"])
ROWS = YOLO | COCO | {"via", "v3", "nih", "rsna"}
UNKNOWN_CLASS = "Hernia"
_CLASSES = {"nih": FINDINGS, "ours": CELLS}


def _changed(image: SampleImage, label: Label) -> SampleImage:
    """Return the image with its first label replaced; a box that was moved has no outline."""
    return replace(image, labels=(replace(label, outline=()), *image.labels[1:]))


def _moved(change: Callable[[Label], tuple[float, float, float, float]], reason: str) -> Fault:
    """Return what changes the first box of an image, which the reader reports as `reason`."""
    is_dropped = reason != CLIPPED

    def put(written: Written, image: SampleImage, layout: str) -> Outcome:
        label = image.labels[0]
        label = replace(label, xywh=change(label))
        return Outcome(
            reason,
            dropped_boxes=int(is_dropped),
            is_emptied=is_dropped and len(image.labels) == 1,
            image=_changed(image, label),
        )

    return put


def _shift(share: float) -> Callable[[Label], tuple[float, float, float, float]]:
    """Return what moves a box so that this share of its width is left of the image."""
    return lambda label: (-share * label.xywh[2], *label.xywh[1:])


def _not_finite(written: Written, image: SampleImage, layout: str) -> Outcome:
    label = replace(image.labels[0], xywh=(nan, *image.labels[0].xywh[1:]))
    messages = {"via": "the x of a rect is 'nan'", "nih": "x is empty", "rsna": "x is empty"}
    message = "is not a finite number" if layout in YOLO else "x 'nan' is not a number"
    return Outcome(stops=messages.get(layout, message), image=_changed(image, label))


def _twice(written: Written, image: SampleImage, layout: str) -> Outcome:
    again = replace(image, labels=(*image.labels, image.labels[0]))
    return Outcome(DUPLICATE, dropped_boxes=1, image=again)


def _two_classes(written: Written, image: SampleImage, layout: str) -> Outcome:
    label = image.labels[0]
    names = _CLASSES.get(layout, LESIONS)
    taken = {other.class_name for other in image.labels}
    other = next((name for name in names if name not in taken), label.class_name)
    twin = replace(label, class_name=other)
    if other == label.class_name:
        return _twice(written, image, layout)
    return Outcome(image=replace(image, labels=(*image.labels, twin)))


def _unknown(written: Written, image: SampleImage, layout: str) -> Outcome:
    label = replace(image.labels[0], class_name=UNKNOWN_CLASS)
    message = "category ids without an entry"
    if layout in YOLO:
        message = "is not among the"
    if layout == "nih":
        message = f"unknown classes '{UNKNOWN_CLASS}' (1 boxes)"
    return Outcome(stops=message, image=replace(image, labels=(label, *image.labels[1:])))


ROW_DEFECTS = {
    "box_partly_outside": Defect(_moved(_shift(0.3), CLIPPED), ROWS),
    "box_nearly_outside": Defect(_moved(_shift(0.9), NEARLY_OUTSIDE), ROWS),
    "box_outside": Defect(_moved(_shift(2.0), OUTSIDE), ROWS),
    "box_without_area": Defect(
        _moved(lambda label: (*label.xywh[:2], 0.0, label.xywh[3]), WITHOUT_AREA), ROWS
    ),
    "box_not_finite": Defect(_not_finite, ROWS),
    "box_twice": Defect(_twice, ROWS),
    "box_of_two_classes": Defect(_two_classes, YOLO | {"roboflow", "nih"}),
    "unknown_class": Defect(_unknown, YOLO | COCO | {"nih"}),
}
