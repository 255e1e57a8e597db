"""RSNA Pneumonia Detection Challenge, stage 2: DICOM images, read in place.

Source: Shih et al., Radiology: Artificial Intelligence 2019, and the challenge on Kaggle. The
folder `stage_2_test_images` comes without labels, so nothing can be evaluated on it and it is never
read: train, val and test are parts of the labelled images by a hash of the patient (ours).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .find import check_root, find_file
from .formats.classes import ClassNumbers
from .formats.csv_file import read_rows
from .formats.files import walk_folder
from .formats.images import ImageEntry, OutlinedBox, make_records
from .formats.numbers import number_fault
from .options import DEFAULT_OPTIONS, DatasetOptions
from .record import LoadedSplit
from .release import compare_with_release, is_sample
from .report import DataReport, Faults
from .split import split_of

CLASS_NAMES = ("Lung Opacity",)
DETAILED_CLASSES = ("Lung Opacity", "No Lung Opacity / Not Normal", "Normal")
# Of the patients, positive or not. The hash knows nothing of the target, so each of the two strata
# is divided in these shares for itself, and a corrected target moves nobody.
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
IMAGE_FOLDER = "stage_2_train_images"
LABEL_FILE = "stage_2_train_labels.csv"
DETAIL_FILE = "stage_2_detailed_class_info.csv"
RELEASE = {"boxes": 9555, "images": 26684}
SIDE = 1024
UNLISTED = "images without a row left out"
_HEADER = ("patientId", "x", "y", "width", "height", "Target")


@dataclass
class _Patient:
    """What the label file says of one patient, who has one image."""

    is_positive: bool
    boxes: list[OutlinedBox] = field(default_factory=list)


def load_rsna_pneumonia(
    root: Path, split: str, options: DatasetOptions = DEFAULT_OPTIONS
) -> LoadedSplit:
    """Read one split in place; images without pneumonia are kept, without boxes.

    A record also has the key `detailed_class` where the file of detailed classes is there.

    Args:
        root: the data set's folder, usually `$DETECTRON2_DATASETS/rsna_pneumonia`.
        split: "train", "val" or "test".
        options: none counts.

    Raises:
        UserError: the data are missing, a line of the label file is faulty, or more than 1 % of the
            images are missing or unreadable.
    """
    check_root(root, "RSNA Pneumonia")
    label_file = find_file(root, LABEL_FILE)
    report = DataReport.for_classes(CLASS_NAMES)
    patients = _read_labels(label_file, report)
    boxes = sum(len(patient.boxes) for patient in patients.values())
    compare_with_release(root, {"boxes": boxes, "images": len(patients)}, RELEASE, report)
    images = label_file.parent / IMAGE_FOLDER
    _drop_unlisted(images, patients, split, report)
    details = _read_details(label_file.parent / DETAIL_FILE, patients, split, report)
    names = sorted(name for name in patients if split_of(name, SHARES) == split)
    size = None if is_sample(root) else (SIDE, SIDE)
    entries = [
        ImageEntry(name, images / f"{name}.dcm", name, patients[name].boxes, size) for name in names
    ]
    records = make_records(
        entries, source=label_file, image_dir=root, class_names=CLASS_NAMES, report=report
    )
    for record in records:
        record["patient_id"] = name = record["image_id"]
        if name in details:
            record["detailed_class"] = details[name]
    return LoadedSplit(records, CLASS_NAMES, report)


def _read_labels(path: Path, report: DataReport) -> dict[str, _Patient]:
    """Return what the label file says by patient: one row a box, or one without box."""
    faults = Faults()
    patients: dict[str, _Patient] = {}
    for row in read_rows(path, expected_headers=[_HEADER]):
        place = f"{path}, line {row.line_number}"
        name, *box, target = row.fields
        fault = _fault(name, box, target)
        patient = patients.get(name)
        if not fault and patient and patient.is_positive != (target == "1"):
            fault = f"{name} has Target 0 and 1; correct one of its rows"
        if fault:
            faults.add(place, fault)
            continue
        if patient and not patient.is_positive:
            report.note("repeated rows of images without boxes skipped", place)
        patient = patients.setdefault(name, _Patient(target == "1"))
        if patient.is_positive:
            x, y, width, height = map(float, box)
            xyxy = (x, y, x + width, y + height)
            patient.boxes.append(OutlinedBox(xyxy, 0, place))
    faults.stop_if_any()
    return patients


def _fault(name: str, box: list[str], target: str) -> str | None:
    if not name:
        return "has no patientId; complete the row or delete it"
    if target not in ("0", "1"):
        return f"Target is {target!r}, not 0 or 1; correct it"
    if target == "1":
        return number_fault(dict(zip(_HEADER[1:5], box, strict=True)))
    return f"Target is 0, but there is a box {box}; correct one of the two" if any(box) else None


def _drop_unlisted(
    images: Path, patients: dict[str, _Patient], split: str, report: DataReport
) -> None:
    """Count the images that no row names; nothing tells whether they show something."""
    walk = walk_folder(images)
    walk.note_unread(walk.files, report)
    for path in walk.files:
        is_unlisted = path.suffix.lower() == ".dcm" and path.stem not in patients
        if is_unlisted and split_of(path.stem, SHARES) == split:
            report.found_images += 1
            report.drop_image(UNLISTED, str(path), boxes=0)


def _read_details(
    path: Path, patients: dict[str, _Patient], split: str, report: DataReport
) -> dict[str, str]:
    """Return the detailed class by patient; the file repeats a patient for each of its boxes."""
    if not path.is_file():
        return {}
    faults = Faults()
    details: dict[str, str] = {}
    numbers = ClassNumbers(DETAILED_CLASSES)
    for row in read_rows(path, expected_headers=[("patientId", "class")]):
        name, detail = row.fields
        numbers.number(detail)
        if details.setdefault(name, detail) != detail:
            faults.add(
                f"{path}, line {row.line_number}",
                f"{name} is {detail!r} here and {details[name]!r} before; correct one of its rows",
            )
    numbers.add_fault(str(path), faults)
    faults.stop_if_any()
    for name, detail in details.items():
        if name in patients and split_of(name, SHARES) == split:
            if patients[name].is_positive != (detail == "Lung Opacity"):
                report.note("detailed classes that contradict the target", f"{path}, {name}")
    return details
