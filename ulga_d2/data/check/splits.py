"""What the records of the splits say: drops, classes, images without boxes, patients."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping

from ...evaluation.boxes import images_over_limit
from ..formats.files import SWAPPED
from ..record import LoadedSplit
from ..release import UNLIKE_RELEASE
from ..report import DataReport
from .finding import ERROR, KEPT_PLACES, NOTE, PROBLEM, Finding, finding


def reader_findings(split: str, report: DataReport) -> list[Finding]:
    """Return what the reader dropped (problems) and what it mended or listed (notes).

    Numbers unlike the official release's are a problem too, and files of another format than their
    names say: a folder of masks has the images' names.
    """
    problems = report.drop_reasons | {UNLIKE_RELEASE, SWAPPED}
    found = [
        Finding(
            PROBLEM if reason in problems else NOTE,
            split,
            reason,
            count,
            tuple(report.places[reason][:KEPT_PLACES]),
        )
        for reason, count in report.reasons.items()
    ]
    if not report.images or not report.boxes.total():
        what = "boxes" if report.images else "images"
        cure = "check that the annotations lie where the layout says and name these images"
        found.append(Finding(ERROR, split, f"no {what} at all", 0, cure=cure))
    return found


def class_findings(splits: Mapping[str, LoadedSplit]) -> list[Finding]:
    """Return class lists that differ, and classes that a split has no box of."""
    (first, one), *others = splits.items()
    found = []
    for name, other in others:
        if other.class_names != one.class_names:
            places = (f"{first}: {list(one.class_names)}", f"{name}: {list(other.class_names)}")
            cure = "use the same names in the same order in all splits"
            what = "class names differ"
            found.append(Finding(ERROR, f"{first}, {name}", what, 0, places, cure))
        elif other.category_ids != one.category_ids:
            places = (f"{first}: {list(one.category_ids)}", f"{name}: {list(other.category_ids)}")
            cure = "use the same ids in all files"
            what = "category ids of the same classes differ"
            found.append(Finding(ERROR, f"{first}, {name}", what, 0, places, cure))
    for name, split in splits.items():
        missing = [key for key, count in split.report.boxes.items() if not count]
        if missing and split.report.boxes.total():
            cure = "a detector cannot learn them from it, and AP for them is undefined on it"
            found.append(finding(PROBLEM, name, "classes without a box", missing, cure))
    return found


def empty_findings(splits: Mapping[str, LoadedSplit], filter_empty: bool | None) -> list[Finding]:
    """Return how many images have no box, and whether training sees them.

    Args:
        splits: by name.
        filter_empty: DATALOADER.FILTER_EMPTY_ANNOTATIONS of the config, or None without one.
    """
    hints = {
        None: "training keeps them where DATALOADER.FILTER_EMPTY_ANNOTATIONS is False, as in the "
        "configs of this project",
        True: "training drops them, for DATALOADER.FILTER_EMPTY_ANNOTATIONS is True",
        False: "training keeps them, for DATALOADER.FILTER_EMPTY_ANNOTATIONS is False",
    }
    found = []
    for name, split in splits.items():
        empty = [r["file_name"] for r in split.records if not r["annotations"]]
        if empty:
            found.append(finding(NOTE, name, "images without boxes", empty, hints[filter_empty]))
    return found


def crowd_findings(splits: Mapping[str, LoadedSplit]) -> list[Finding]:
    """Return how many boxes are crowd regions; a split of nothing else has no object."""
    found = []
    for name, split in splits.items():
        counts = [
            (record["file_name"], sum(bool(item["iscrowd"]) for item in record["annotations"]))
            for record in split.records
        ]
        crowds = sum(count for _, count in counts)
        boxes = sum(len(record["annotations"]) for record in split.records)
        if not crowds:
            continue
        share = f"{crowds / boxes:.1%} of {boxes:,}"
        level, what = NOTE, f"crowd regions ({share}), which are neither learned nor scored"
        cure = ""
        if crowds == boxes:
            level, what = ERROR, f"crowd regions, and no other box ({share}): nothing to learn"
            cure = "set iscrowd to 0 in the annotations of single objects"
        places = tuple(f"{file} ({count:,})" for file, count in counts if count)[:KEPT_PLACES]
        found.append(Finding(level, name, what, crowds, places, cure))
    return found


def limit_findings(splits: Mapping[str, LoadedSplit], max_detections: int) -> list[Finding]:
    """Return the images that have more objects than detections count in an evaluation."""
    found = []
    for name, split in splits.items():
        over = images_over_limit(split.records, max_detections)
        if over:
            places = [f"{record['file_name']} ({count:,} objects)" for record, count in over]
            largest = max(count for _, count in over)
            what = f"images with more than {max_detections} objects, the largest with {largest:,}"
            cure = (
                f"a detector gives, and evaluation counts, at most {max_detections} detections an "
                "image: raise TEST.DETECTIONS_PER_IMAGE"
            )
            found.append(finding(PROBLEM, name, what, places, cure))
    return found


def patient_findings(splits: Mapping[str, LoadedSplit]) -> list[Finding]:
    """Return the patients that more than one split knows; an id is shown as a short hash."""
    files: dict[str, dict[str, str]] = defaultdict(dict)
    for name, split in splits.items():
        for record in split.records:
            if "patient_id" in record:
                files[record["patient_id"]].setdefault(name, record["file_name"])
    if not files:
        cure = "only near duplicates can tell of a patient in two splits; check the source"
        return [Finding(NOTE, ", ".join(splits), "no patient of any image is known", 0, cure=cure)]
    shared = [
        f"patient {pseudonym(patient)}: "
        + ", ".join(f"{name} {file}" for name, file in by_split.items())
        for patient, by_split in sorted(files.items())
        if len(by_split) > 1
    ]
    if not shared:
        return []
    cure = (
        "results on such a split are too good to be true; split by patient, "
        "for example with `ulga data split`"
    )
    return [finding(ERROR, ", ".join(splits), "patients in more than one split", shared, cure)]


def pseudonym(patient_id: str) -> str:
    """Return eight hexadecimal digits that stand for a patient in reports."""
    return hashlib.sha256(patient_id.encode()).hexdigest()[:8]
