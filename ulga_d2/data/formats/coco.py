"""Read a COCO JSON file of boxes and masks, such as Roboflow's export."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..record import LoadedSplit
from ..report import DataReport, Faults
from .coco_file import CocoFile, Id, parse_coco
from .files import ImageFolder
from .images import ImageEntry, OutlinedBox, make_records
from .numbers import stated_size


def read_coco(
    json_file: Path,
    image_dir: Path,
    others: Sequence[Path] = (),
    *,
    keeps_emptied: bool = False,
) -> LoadedSplit:
    """Read one split in place; images without annotations are kept.

    Args:
        json_file: the annotations; category numbers become contiguous from 0 in the order of their
            ids, and a placeholder parent category is dropped. The file's own ids are kept beside
            the records, masks as run lengths, and `area` where it is a positive number. An object
            with a mask alone gets the box around it.
        image_dir: what `file_name` in the JSON is relative to.
        others: the COCO files of the dataset's other splits, so that all agree on the placeholder.
        keeps_emptied: see `DataReport`.

    Raises:
        UserError: a fault in the structure, with the record and the fix.
    """
    content = parse_coco(json_file)
    class_names, numbers = content.classes(others)
    report = DataReport.for_classes(class_names, keeps_emptied=keeps_emptied)
    _note_habits(content, report)
    boxes = _boxes(content, numbers)
    faults = Faults()
    images = ImageFolder(image_dir, report, faults)
    entries = [
        ImageEntry(
            image_id=image["id"],
            path=images.find(image["file_name"], f"{json_file}, image {key}"),
            place=f"{json_file}, image {key}",
            boxes=boxes[key],
            stated_size=stated_size(image.get("height"), image.get("width")),
        )
        for key, image in content.images.items()
    ]
    faults.stop_if_any()
    records = make_records(
        entries,
        source=json_file,
        image_dir=image_dir,
        class_names=class_names,
        report=report,
        gives_sides=True,
    )
    return LoadedSplit(records, class_names, report, _category_ids(json_file, numbers, report))


def coco_class_names(json_file: Path, others: Sequence[Path] = ()) -> tuple[str, ...]:
    """Return the class names that `read_coco` gives; no image is opened.

    Raises:
        UserError: a fault in the structure, with the record and the fix.
    """
    return parse_coco(json_file).classes(others)[0]


def _note_habits(content: CocoFile, report: DataReport) -> None:
    for key, name in content.renamed.items():
        place = f"{content.path}, category {key}"
        report.note("class names with spaces around them, which are removed", f"{place}: {name!r}")
    for key in content.odd_areas:
        place = f"{content.path}, annotation {key}"
        report.note("areas that are not a positive number, replaced by the box's area", place)


def _category_ids(
    path: Path, numbers: Mapping[Id, int], report: DataReport
) -> tuple[int, ...] | None:
    """Return the file's own id of each class, the first where it has two; None if one is text."""
    ids: dict[int, Id] = {}
    for key, number in numbers.items():
        ids.setdefault(number, key)
    if all(isinstance(key, int) for key in ids.values()):
        return tuple(ids.values())
    report.note("category ids that are text; results give them as 1, 2, ... in order", str(path))
    return None


def _boxes(content: CocoFile, numbers: Mapping[Id, int]) -> dict[Id, list[OutlinedBox]]:
    """Return the boxes by image id."""
    boxes: dict[Id, list[OutlinedBox]] = defaultdict(list)
    for key, annotation in content.annotations.items():
        boxes[annotation["image_id"]].append(
            OutlinedBox(
                xyxy=box_of(annotation),
                category_id=numbers[annotation["category_id"]],
                place=f"{content.path}, annotation {key}",
                iscrowd=annotation["iscrowd"],
                outline=annotation.get("segmentation"),
                area=annotation["area"],
            )
        )
    return boxes


def box_of(annotation: dict) -> tuple[float, float, float, float] | None:
    """Return the box (left, top, right, bottom) of a checked annotation, None for a mask alone."""
    if annotation["bbox"] is None:
        return None
    x, y, width, height = annotation["bbox"]
    return x, y, x + width, y + height
