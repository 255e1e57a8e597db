"""Read the YOLO layout: one text file an image, one line a box, `class cx cy w h` normalised."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from ...errors import UserError
from ..progress import with_progress
from ..record import Box, LoadedSplit, make_record
from ..report import DataReport, Faults, shortened
from ..size_cache import cached_sizes
from .files import READABLE_SUFFIXES, files_by_stem
from .policy import check_missing
from .text import read_text
from .yaml_file import read_yaml

logger = logging.getLogger(__name__)


def read_yolo(image_dir: Path, label_dir: Path, class_file: Path) -> LoadedSplit:
    """Read one split in place; an image whose label file is empty or missing has no boxes.

    Args:
        image_dir: holds the images, also in subfolders.
        label_dir: the same tree with `.txt` files.
        class_file: a `data.yaml` whose `names` gives the classes.

    Raises:
        UserError: a fault in the structure, with file, line and cure.
    """
    return read_yolo_labels(image_dir, label_dir, read_class_names(class_file))


def read_yolo_labels(
    image_dir: Path,
    label_dir: Path,
    class_names: tuple[str, ...],
    *,
    keeps_emptied: bool = False,
) -> LoadedSplit:
    """Read one split in place, whose classes are known; see `read_yolo`.

    Args:
        image_dir: holds the images, also in subfolders.
        label_dir: the same tree with `.txt` files.
        class_names: in order of their numbers.
        keeps_emptied: see `DataReport`.

    Raises:
        UserError: a fault in the structure, with file, line and cure.
    """
    report = DataReport.for_classes(class_names, keeps_emptied=keeps_emptied)
    images = files_by_stem(image_dir, None, report, others=[".txt"])
    labels = files_by_stem(label_dir, [".txt"], report, others=READABLE_SUFFIXES)
    report.found_images = len(images)
    _note_orphans(images, labels, image_dir, report)
    faults = Faults()
    unusable: list[str] = []
    records = []
    with cached_sizes(image_dir) as size_of:
        for stem in with_progress(sorted(images), f"reading {image_dir}", logger):
            path = str(images[stem])
            if stem not in labels:
                report.note("images without label file taken as background", path)
            lines = _read_labels(labels.get(stem), class_names, faults)
            report.found_boxes += len(lines)
            try:
                size = size_of(path)
            except UserError as error:
                reason = "images that cannot be read dropped with their boxes"
                report.drop_image(reason, str(error), boxes=len(lines))
                unusable.append(str(error))
                continue
            boxes = [_box(fields, size, place) for place, fields in lines]
            records.append(_record(stem, path, size, boxes, class_names, report))
    faults.stop_if_any()
    check_missing(unusable, len(images), f"images in {image_dir} cannot be read")
    return LoadedSplit([record for record in records if record], class_names, report)


def _record(
    stem: str,
    path: str,
    size: tuple[int, int],
    boxes: list[Box],
    class_names: tuple[str, ...],
    report: DataReport,
) -> dict | None:
    return make_record(
        file_name=path,
        image_id=stem,
        size=size,
        boxes=boxes,
        class_names=class_names,
        report=report,
    )


def _note_orphans(
    images: dict[str, Path], labels: dict[str, Path], image_dir: Path, report: DataReport
) -> None:
    """Count label files without an image; a few are skipped, many are refused."""
    # Annotation tools leave their list of classes beside the labels.
    orphans = [str(labels[stem]) for stem in labels if stem not in images and stem != "classes"]
    check_missing(orphans, len(images) + len(orphans), f"label files without image in {image_dir}")
    for orphan in orphans:
        report.note("label files without image skipped", orphan)


def read_class_names(class_file: Path) -> tuple[str, ...]:
    """Return the class names of a `data.yaml`, in order of their numbers from 0.

    Raises:
        UserError: not YAML, no `names`, or names that are not a list or a mapping from 0.
    """
    content = read_yaml(class_file)
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        by_number = {str(number): name for number, name in names.items()}
        if set(by_number) != {str(number) for number in range(len(names))}:
            raise UserError(
                f"{class_file}: the numbers under `names` must run from 0 without gaps, "
                f"but are {_shown(', '.join(map(str, names)))}"
            )
        names = [by_number[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{class_file}: no class names; write `names: [first class, second class]`")
    if not all(isinstance(name, str | int) and not isinstance(name, bool) for name in names):
        raise UserError(
            f"{class_file}: a class name is not text in {_shown(names)}; put it in quotes"
        )
    names = [str(name).strip() for name in names]
    if len(set(names)) != len(names):
        raise UserError(f"{class_file}: a class name stands twice in {_shown(names)}")
    count = content.get("nc", len(names))
    if count != len(names):
        raise UserError(f"{class_file}: nc is {_shown(count)}, but {len(names)} names follow")
    return tuple(names)


def _shown(value: object) -> str:
    return shortened(str(value))


def _read_labels(
    path: Path | None, class_names: tuple[str, ...], faults: Faults
) -> list[tuple[str, list[str]]]:
    """Return the place and the fields of each sound line."""
    lines = []
    for number, line in enumerate(read_text(str(path)).splitlines() if path else (), start=1):
        fields = line.split()
        if not fields:
            continue
        place = f"{path}, line {number}"
        fault = _fault(fields, class_names)
        if fault:
            faults.add(place, fault)
        else:
            lines.append((place, fields))
    return lines


def _fault(fields: list[str], class_names: tuple[str, ...]) -> str | None:
    """Return what is wrong with the structure of one line and how to mend it, or None."""
    if len(fields) != 5:
        return _wrong_number_of_fields(fields)
    for text in fields:
        try:
            number = float(text)
        except ValueError:
            cure = "write a decimal point, not a comma" if "," in text else "write a plain number"
            return f"'{text}' is not a number; {cure}"
        if not math.isfinite(number):
            return f"'{text}' is not a finite number; delete the line or annotate the box again"
    category = float(fields[0])
    if not category.is_integer() or not 0 <= category < len(class_names):
        return (
            f"class {fields[0]} is not among the {len(class_names)} names "
            f"(0 to {len(class_names) - 1}: {', '.join(class_names)}); correct it or the names"
        )
    return None


def _wrong_number_of_fields(fields: list[str]) -> str:
    count = len(fields)
    expected = f"{count} {'field' if count == 1 else 'fields'} instead of 5 (class cx cy w h)"
    if count == 1 and "," in fields[0]:
        return f"{expected}; separate the numbers by blanks, not commas"
    if count == 6:
        return f"{expected}; is this a prediction with a score? Remove the last field"
    if count >= 7 and count % 2:
        return f"{expected}; this is a segmentation polygon: export the data set as boxes"
    return f"{expected}; correct or delete the line"


def _box(fields: list[str], size: tuple[int, int], place: str) -> Box:
    height, width = size
    category, cx, cy, w, h = map(float, fields)
    xyxy = (
        (cx - w / 2) * width,
        (cy - h / 2) * height,
        (cx + w / 2) * width,
        (cy + h / 2) * height,
    )
    return Box(xyxy, int(category), place)
