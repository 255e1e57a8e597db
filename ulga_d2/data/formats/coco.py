"""Read a COCO JSON file of boxes, such as Roboflow's export."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

from ..image_header import image_size, stored_size
from ..progress import with_progress
from ..record import Box, LoadedSplit, make_record
from ..report import DataReport, Faults
from .coco_file import CocoFile, parse_coco
from .policy import check_missing

logger = logging.getLogger(__name__)


def read_coco(json_file: Path, image_dir: Path) -> LoadedSplit:
    """Read one split in place; images without annotations are kept.

    Args:
        json_file: the annotations; category numbers become contiguous from 0 in the order of their
            ids, and a placeholder parent category is dropped.
        image_dir: what `file_name` in the JSON is relative to.

    Raises:
        UserError: a fault in the structure, with the record and the cure.
    """
    content = parse_coco(json_file)
    class_names, numbers = content.classes()
    report = DataReport.for_classes(class_names)
    faults = Faults()
    boxes = _boxes(content, numbers)
    records = []
    images = _present(content, image_dir, report)
    for image_id, image in with_progress(list(images.items()), f"reading {json_file}", logger):
        path = str(image_dir / image["file_name"])
        size = image_size(path)
        _check_size(image, path, size, f"{json_file}, image {image_id}", report, faults)
        records.append(
            make_record(
                file_name=path,
                image_id=image_id,
                size=size,
                boxes=boxes[image_id],
                class_names=class_names,
                report=report,
            )
        )
    faults.stop_if_any()
    return LoadedSplit(records, class_names, report)


def _boxes(content: CocoFile, numbers: dict[int, int]) -> dict[int, list[Box]]:
    """Return the boxes by image id."""
    boxes: dict[int, list[Box]] = defaultdict(list)
    for key, annotation in content.annotations.items():
        x, y, w, h = map(float, annotation["bbox"])
        boxes[annotation["image_id"]].append(
            Box(
                xyxy=(x, y, x + w, y + h),
                category_id=numbers[annotation["category_id"]],
                place=f"{content.path}, annotation {key}",
                iscrowd=int(bool(annotation.get("iscrowd"))),
            )
        )
    return boxes


def _present(content: CocoFile, image_dir: Path, report: DataReport) -> dict[int, dict]:
    """Return the images whose file exists; a few missing ones are counted, many are refused."""
    files = {key: image_dir / image["file_name"] for key, image in content.images.items()}
    missing = {key: str(file) for key, file in files.items() if not file.is_file()}
    check_missing(
        list(missing.values()), len(files), f"images that {content.path} names do not exist"
    )
    for name in missing.values():
        report.note("images that do not exist dropped with their boxes", name)
    return {key: image for key, image in content.images.items() if key not in missing}


def _check_size(
    image: dict, path: str, size: tuple[int, int], place: str, report: DataReport, faults: Faults
) -> None:
    """Compare the size in the JSON with the file's: boxes would be wrong if they differ."""
    if "height" not in image or "width" not in image:
        return
    stated = (image["height"], image["width"])
    if stated == size:
        return
    if stated == stored_size(path):
        report.note("images turned by EXIF though their size is given unturned", path)
        return
    swapped = " (height and width are swapped)" if stated == size[::-1] else ""
    faults.add(
        place,
        f"says height {stated[0]} and width {stated[1]}, but {path} has {size[0]} and {size[1]}"
        f"{swapped}; correct the entry, or put back the image that was annotated",
    )
