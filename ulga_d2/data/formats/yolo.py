"""Read the YOLO layout: one text file an image, one line an object, in fractions of the image.

A line is `class cx cy w h` (a box), or `class x1 y1 x2 y2 ...` (an outline of points, such as a
segmentation polygon or the four corners of an oriented box), which becomes the box around it and
a mask.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ..record import LoadedSplit
from ..report import DataReport, Faults, shortened
from .classes import clean_class_names
from .files import READABLE_SUFFIXES, ImageFolder, files_by_stem
from .images import ImageEntry, make_records
from .listed import TWICE, find_listed, read_list
from .numbers import whole_number
from .policy import check_missing
from .text import read_text
from .yaml_file import read_yaml
from .yolo_line import Units, YoloLine, parse_line

NO_LABELS = "images without label file taken as background"
OUTLINES = "outlines read as the box around them, and as a mask"
FOUR_POINTS = "oriented boxes or polygons of four points read as the box around them, and as a mask"
# Of one label file; 50,000 boxes have less than 3 MB, and outlines have more numbers.
MAX_BYTES = 16_000_000
MAX_LINES = 50_000
KEYPOINTS = "keypoints behind boxes not read"
LOST_LABELS = "label files without image skipped"
OTHER_TEXTS = "text files that hold no labels skipped"


@dataclass(frozen=True)
class YoloImage:
    """An image of a split.

    Attributes:
        image_id: unique within the split.
        path: the file.
        labels: its label file; None where there is none.
        source: the file or folder that names the image, for messages.
    """

    image_id: str
    path: Path
    labels: Path | None
    source: str


def read_yolo(image_dir: Path, label_dir: Path, class_file: Path) -> LoadedSplit:
    """Read one split in place; an image whose label file is empty or missing has no boxes.

    Args:
        image_dir: holds the images, also in subfolders.
        label_dir: the same tree with `.txt` files.
        class_file: a `data.yaml` whose `names` gives the classes.

    Raises:
        UserError: a fault in the structure, with file, line and fix.
    """
    return read_yolo_labels(image_dir, label_dir, read_class_names(class_file))


def read_yolo_labels(
    image_dir: Path,
    label_dir: Path,
    class_names: tuple[str, ...],
    list_file: Path | None = None,
    *,
    keeps_emptied: bool = False,
) -> LoadedSplit:
    """Read one split in place, whose classes are known; see `read_yolo`.

    Args:
        image_dir: holds the images, also in subfolders.
        label_dir: the same tree with `.txt` files.
        class_names: in order of their numbers.
        list_file: lists the split's images, one path a line; None for all images of the folder.
        keeps_emptied: see `DataReport`.

    Raises:
        UserError: a fault in the structure, with file, line and fix.
    """
    report = DataReport.for_classes(class_names, keeps_emptied=keeps_emptied)
    if list_file is None:
        images = _images_of_folder(image_dir, label_dir, report)
    else:
        images = _images_of_list(list_file, image_dir, label_dir, report)
    return read_yolo_images(images, image_dir, class_names, report)


def read_yolo_images(
    images: Sequence[YoloImage],
    image_dir: Path,
    class_names: tuple[str, ...],
    report: DataReport,
    keypoints: int = 0,
) -> LoadedSplit:
    """Read the labels of images.

    Args:
        images: of the split.
        image_dir: the folder that holds them, for messages and the cache of their sizes.
        class_names: in order of their numbers.
        report: what finding the images has noted.
        keypoints: how many numbers of keypoints follow each box.

    Raises:
        UserError: a fault in the structure, with file, line and fix.
    """
    faults, units = Faults(), Units()
    labels: dict[str, list[YoloLine]] = {}
    for image in images:
        if image.labels is None:
            report.note(NO_LABELS, str(image.path))
        lines = _read_labels(image.labels, class_names, keypoints, faults)
        _note_kinds(lines, keypoints, report)
        units.add(lines, image.path)
        labels[image.image_id] = lines
    units.add_faults(str(image_dir), faults)
    faults.stop_if_any()
    entries = [
        ImageEntry(
            image_id=image.image_id,
            path=image.path,
            place=image.source,
            boxes=[line.box() for line in labels[image.image_id]],
            is_relative=True,
        )
        for image in images
    ]
    records = make_records(
        entries, source=image_dir, image_dir=image_dir, class_names=class_names, report=report
    )
    return LoadedSplit(records, class_names, report)


def note_orphans(
    orphans: Sequence[Path], number_of_images: int, image_dir: Path, report: DataReport
) -> None:
    """Count text files without an image; a few label files among them are skipped, many refused.

    Args:
        orphans: `.txt` files that belong to no image.
        number_of_images: of the split.
        image_dir: for messages.
        report: takes the counts, in place.

    Raises:
        UserError: more than 1 % of the images are missing.
    """
    # Annotation tools leave their list of classes beside the labels.
    orphans = [path for path in orphans if path.name != "classes.txt"]
    lost = {str(path) for path in orphans if holds_labels(path)}
    what = f"label files without image in {image_dir}"
    check_missing(sorted(lost), number_of_images + len(lost), what)
    for path in map(str, orphans):
        report.note(LOST_LABELS if path in lost else OTHER_TEXTS, path)


def holds_labels(path: Path) -> bool:
    """Tell a label file, which may be empty, from a list of classes or images and from notes."""
    try:
        text = read_text(str(path), MAX_BYTES)
    except UserError:
        return False
    first = text.strip().split("\n", 1)[0]
    if not first:
        return True
    fields = first.split()
    return len(fields) >= 5 and all(map(_is_number, fields))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _images_of_folder(image_dir: Path, label_dir: Path, report: DataReport) -> list[YoloImage]:
    images = files_by_stem(image_dir, None, report, others=[".txt"])
    labels = files_by_stem(label_dir, [".txt"], report, others=READABLE_SUFFIXES)
    orphans = [labels[stem] for stem in labels if stem not in images]
    note_orphans(orphans, len(images), image_dir, report)
    return [
        YoloImage(stem, path, labels.get(stem), str(path)) for stem, path in sorted(images.items())
    ]


def _images_of_list(
    list_file: Path, image_dir: Path, label_dir: Path, report: DataReport
) -> list[YoloImage]:
    """Return the listed images; those that are not there keep the path that the list gives."""
    faults = Faults()
    folder = ImageFolder(image_dir, report, faults)
    images: dict[str, YoloImage] = {}
    for name in read_list(list_file):
        source = f"{list_file}: {name}"
        path = folder.find(name, str(list_file), is_listed=True)
        if not path.is_file():
            path = find_listed(name, [image_dir], source, report) or path
        stem = Path(os.path.relpath(path, image_dir)).with_suffix("").as_posix()
        if stem not in images:
            label = label_dir / f"{stem}.txt"
            images[stem] = YoloImage(stem, path, label if label.is_file() else None, source)
        elif images[stem].path == path:
            report.note(TWICE, source)
        else:
            fault = f"has the label file of {images[stem].path}, too; rename one of the images"
            faults.add(source, fault)
    faults.stop_if_any()
    return list(images.values())


def read_class_names(class_file: Path) -> tuple[str, ...]:
    """Return the class names of a `data.yaml`, in order of their numbers from 0.

    Raises:
        UserError: not YAML, no `names`, or names that are not a list or a mapping from 0.
    """
    return class_names_of(class_file, read_yaml(class_file))


def class_names_of(class_file: Path, content: object) -> tuple[str, ...]:
    """Return the class names that the content of a `data.yaml` gives; see `read_class_names`."""
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
    names = clean_class_names(map(str, names), class_file)
    if "" in names:
        raise UserError(f"{class_file}: class {names.index('')} has no name; write it")
    if len(set(names)) != len(names):
        raise UserError(f"{class_file}: a class name stands twice in {_shown(list(names))}")
    count = content.get("nc", len(names))
    if whole_number(count) != len(names):
        raise UserError(f"{class_file}: nc is {_shown(count)}, but {len(names)} names follow")
    return names


def _shown(value: object) -> str:
    return shortened(str(value))


def _read_labels(
    path: Path | None, class_names: tuple[str, ...], keypoints: int, faults: Faults
) -> list[YoloLine]:
    """Return the sound lines of a label file."""
    if path is None:
        return []
    texts = read_text(str(path), MAX_BYTES).splitlines()
    if len(texts) > MAX_LINES:
        faults.add(str(path), f"{len(texts):,} lines, more than {MAX_LINES:,}; is it a label file?")
        return []
    lines = []
    for number, text in enumerate(texts, start=1):
        fields = text.split()
        if not fields:
            continue
        place = f"{path}, line {number}"
        line = parse_line(fields, class_names, keypoints, place)
        if isinstance(line, YoloLine):
            lines.append(line)
        else:
            faults.add(place, line)
    return lines


def _note_kinds(lines: Sequence[YoloLine], keypoints: int, report: DataReport) -> None:
    for line in lines:
        if line.is_outline:
            report.note(FOUR_POINTS if len(line.numbers) == 8 else OUTLINES, line.path)
        elif keypoints:
            report.note(KEYPOINTS, line.path)
