"""NIH Chest X-ray (ChestX-ray14): the 880 images that have boxes, read in place.

Source: Wang et al., "ChestX-ray8", CVPR 2017, and the release's README. All boxes belong to images
of the official test list, so there is no official split for detection: ours goes by a hash of the
patient, and results on it compare with nobody's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ..errors import UserError
from .find import check_root, find_file
from .formats.classes import ClassNumbers
from .formats.csv_file import Row, read_rows
from .formats.files import walk_folder
from .formats.images import ImageEntry, OutlinedBox, make_records
from .formats.numbers import number_fault
from .options import DEFAULT_OPTIONS, DatasetOptions
from .record import LoadedSplit
from .release import compare_with_release, is_sample
from .report import DataReport, Faults
from .split import SEED, hash_fraction, split_of

CLASS_NAMES = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
)
# The box file's own spelling; everywhere else the release says Infiltration.
ALIASES = {"Infiltrate": "Infiltration"}
NO_FINDING = "No Finding"
# Of the patients.
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
BOX_FILE = "BBox_List_2017.csv"
ENTRY_FILES = "Data_Entry_2017*.csv"
RELEASE = {"boxes": 984, "images with boxes": 880}
# The pixels that the boxes are given in.
SIDE = 1024
# "Bbox [x,y,w,h]" is unquoted, which makes four columns of one; re-saved copies quote it.
_BOX_HEADERS = (
    ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"),
    ("Image Index", "Finding Label", "Bbox [x,y,w,h]", "", "", ""),
)
_ENTRY_START = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age")
_ENTRY_START += ("Patient Gender", "View Position")
_ENTRY_HEADERS = (
    (*_ENTRY_START, "OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"),
    (*_ENTRY_START, "OriginalImage[Width,Height]", "OriginalImagePixelSpacing[x,y]", "", ""),
)
# Beside the images a release holds tables, lists and papers.
_DOCUMENTS = frozenset([".csv", ".json", ".pdf", ".txt"])
_IMAGE_NAME = re.compile(r"(\d+)_\d+\.png", re.ASCII)


def load_nih_chest_xray(
    root: Path, split: str, options: DatasetOptions = DEFAULT_OPTIONS
) -> LoadedSplit:
    """Read one split in place.

    Args:
        root: the data set's folder, usually `$DETECTRON2_DATASETS/nih_chest_xray`; the images may
            lie in any subfolders.
        split: "train", "val" or "test".
        options: `nih_negatives` counts.

    Raises:
        UserError: the data are missing, a line of the box file is faulty, more than 1 % of the
            images with boxes are missing, or there are too few negatives.
    """
    check_root(root, "NIH Chest X-ray")
    box_file = find_file(root, BOX_FILE)
    report = DataReport.for_classes(CLASS_NAMES)
    images = _images_by_name(root, report)
    boxes = _read_boxes(box_file)
    found = {"boxes": sum(map(len, boxes.values())), "images with boxes": len(boxes)}
    compare_with_release(root, found, RELEASE, report)
    names = sorted(name for name in boxes if _split(name) == split)
    if options.nih_negatives:
        names += _negatives(root, split, options.nih_negatives, images.keys() - boxes.keys())
    size = None if is_sample(root) else (SIDE, SIDE)
    entries = [
        ImageEntry(name, images.get(name, root / name), name, boxes.get(name, []), size)
        for name in names
    ]
    records = make_records(
        entries, source=box_file, image_dir=root, class_names=CLASS_NAMES, report=report
    )
    for record in records:
        record["patient_id"] = patient_of(record["image_id"])
    return LoadedSplit(records, CLASS_NAMES, report)


def patient_of(image_name: str) -> str:
    """Return the patient's number, which an image's name starts with."""
    return image_name.split("_")[0]


def _split(image_name: str) -> str:
    return split_of(patient_of(image_name), SHARES)


def _images_by_name(root: Path, report: DataReport) -> dict[str, Path]:
    """Return every PNG under `root` by name: archives unpack into one folder, or twelve."""
    images: dict[str, Path] = {}
    walk = walk_folder(root)
    pictures = [path for path in walk.files if _IMAGE_NAME.fullmatch(path.name)]
    documents = [path for path in walk.files if path.suffix.lower() in _DOCUMENTS]
    walk.note_unread([*pictures, *documents], report)
    for path in pictures:
        if path.name in images:
            raise UserError(
                f"{images[path.name]} and {path} have one name, so which one has the boxes is "
                "unclear; move one away"
            )
        images[path.name] = path
    return images


def _read_boxes(path: Path) -> dict[str, list[OutlinedBox]]:
    """Return the boxes by image, in pixels of the 1024 x 1024 images."""
    faults = Faults()
    numbers = ClassNumbers(CLASS_NAMES)
    boxes: dict[str, list[OutlinedBox]] = defaultdict(list)
    for row in read_rows(path, expected_headers=_BOX_HEADERS):
        place = f"{path}, line {row.line_number}"
        name, label, *texts = row.fields
        number = numbers.number(ALIASES.get(label, label))
        fault = _fault(row)
        if fault:
            faults.add(place, fault)
        elif number is not None:
            x, y, width, height = map(float, texts)
            boxes[name].append(OutlinedBox((x, y, x + width, y + height), number, place))
    numbers.add_fault(str(path), faults)
    faults.stop_if_any()
    return boxes


def _fault(row: Row) -> str | None:
    name, _, *texts = row.fields
    if not _IMAGE_NAME.fullmatch(name):
        return f"{name[:40]!r} is no image name such as 00000001_000.png; correct or delete it"
    return number_fault(dict(zip("xywh", texts, strict=True)))


def _negatives(root: Path, split: str, number: int, present: Iterable[str]) -> list[str]:
    """Return images without any finding whose patients are in `split`, chosen by a hash."""
    entries = find_file(root, ENTRY_FILES)
    healthy = {
        row.fields[0]
        for row in read_rows(entries, expected_headers=_ENTRY_HEADERS)
        if row.fields[1] == NO_FINDING
    }
    usable = sorted(name for name in healthy & set(present) if _split(name) == split)
    if number > len(usable):
        raise UserError(
            f"DATASETS.NIH_NEGATIVES is {number:,}, but {root} holds {len(usable):,} images of "
            f"{split} patients without a finding; give no more, or unpack more image archives"
        )
    return sorted(sorted(usable, key=lambda name: hash_fraction(SEED, name))[:number])
