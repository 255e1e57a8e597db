"""Read a COCO JSON file of boxes and masks, such as Roboflow's export."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ..record import LoadedSplit
from ..report import DataReport
from .coco_file import CocoFile, parse_coco
from .images import ImageEntry, OutlinedBox, make_records


def read_coco(json_file: Path, image_dir: Path) -> LoadedSplit:
    """Read one split in place; images without annotations are kept.

    Args:
        json_file: the annotations; category numbers become contiguous from 0 in the order of their
            ids, and a placeholder parent category is dropped. Masks are kept as run lengths.
        image_dir: what `file_name` in the JSON is relative to.

    Raises:
        UserError: a fault in the structure, with the record and the cure.
    """
    content = parse_coco(json_file)
    class_names, numbers = content.classes()
    report = DataReport.for_classes(class_names)
    boxes = _boxes(content, numbers)
    entries = [
        ImageEntry(
            image_id=key,
            path=image_dir / image["file_name"],
            place=f"{json_file}, image {key}",
            boxes=boxes[key],
            stated_size=_stated_size(image),
        )
        for key, image in content.images.items()
    ]
    records = make_records(
        entries, source=json_file, image_dir=image_dir, class_names=class_names, report=report
    )
    return LoadedSplit(records, class_names, report)


def _boxes(content: CocoFile, numbers: dict[int, int]) -> dict[int, list[OutlinedBox]]:
    """Return the boxes by image id."""
    boxes: dict[int, list[OutlinedBox]] = defaultdict(list)
    for key, annotation in content.annotations.items():
        x, y, w, h = map(float, annotation["bbox"])
        boxes[annotation["image_id"]].append(
            OutlinedBox(
                xyxy=(x, y, x + w, y + h),
                category_id=numbers[annotation["category_id"]],
                place=f"{content.path}, annotation {key}",
                iscrowd=int(bool(annotation.get("iscrowd"))),
                outline=annotation.get("segmentation"),
            )
        )
    return boxes


def _stated_size(image: dict) -> tuple[object, object] | None:
    if "height" not in image or "width" not in image:
        return None
    return image["height"], image["width"]
