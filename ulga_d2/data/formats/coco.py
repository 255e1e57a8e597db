"""Read a COCO JSON file of boxes and masks, such as Roboflow's export."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ..record import LoadedSplit
from ..report import DataReport, Faults
from .coco_file import CocoFile, parse_coco, usable_area
from .files import ImageFolder
from .images import ImageEntry, OutlinedBox, make_records


def read_coco(json_file: Path, image_dir: Path) -> LoadedSplit:
    """Read one split in place; images without annotations are kept.

    Args:
        json_file: the annotations; category numbers become contiguous from 0 in the order of their
            ids, and a placeholder parent category is dropped. The file's own ids are kept beside
            the records, masks as run lengths, and `area` where it is a positive number.
        image_dir: what `file_name` in the JSON is relative to.

    Raises:
        UserError: a fault in the structure, with the record and the cure.
    """
    content = parse_coco(json_file)
    class_names, numbers = content.classes()
    report = DataReport.for_classes(class_names)
    boxes = _boxes(content, numbers, report)
    faults = Faults()
    images = ImageFolder(image_dir, report, faults)
    entries = [
        ImageEntry(
            image_id=key,
            path=images.find(image["file_name"], f"{json_file}, image {key}"),
            place=f"{json_file}, image {key}",
            boxes=boxes[key],
            stated_size=_stated_size(image),
        )
        for key, image in content.images.items()
    ]
    faults.stop_if_any()
    records = make_records(
        entries, source=json_file, image_dir=image_dir, class_names=class_names, report=report
    )
    return LoadedSplit(records, class_names, report, tuple(numbers))


def _boxes(
    content: CocoFile, numbers: dict[int, int], report: DataReport
) -> dict[int, list[OutlinedBox]]:
    """Return the boxes by image id."""
    boxes: dict[int, list[OutlinedBox]] = defaultdict(list)
    for key, annotation in content.annotations.items():
        x, y, w, h = map(float, annotation["bbox"])
        place, area = f"{content.path}, annotation {key}", annotation.get("area")
        if area is not None and not usable_area(area):
            report.note("areas that are no positive number; the box's area counts", place)
            area = None
        boxes[annotation["image_id"]].append(
            OutlinedBox(
                xyxy=(x, y, x + w, y + h),
                category_id=numbers[annotation["category_id"]],
                place=place,
                iscrowd=int(bool(annotation.get("iscrowd"))),
                outline=annotation.get("segmentation"),
                area=area if area is None else float(area),
            )
        )
    return boxes


def _stated_size(image: dict) -> tuple[object, object] | None:
    if "height" not in image or "width" not in image:
        return None
    return image["height"], image["width"]
