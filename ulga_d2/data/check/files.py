"""What the image files are: undecodable, of another size, of mixed kinds, or the same twice."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from ..formats.policy import MAX_MISSING
from ..intensity import Intensity
from ..used_range import UsedRange, suits
from .duplicates import exact_duplicates, near_duplicates
from .finding import ERROR, NOTE, PROBLEM, Finding, finding
from .scan import Scan

# A split's image files with what each one is, in the order of its records.
Scanned = tuple[Sequence[dict], Sequence[Scan]]

# So many names of a group of equal images are written out.
SHOWN_EQUAL = 4
_FORMATS = {
    ".jpg": ("JPEG", "MPO"),
    ".jpeg": ("JPEG", "MPO"),
    ".png": ("PNG",),
    ".bmp": ("BMP", "DIB"),
    ".tif": ("TIFF",),
    ".tiff": ("TIFF",),
    ".webp": ("WEBP",),
    ".dcm": ("DICOM",),
}


def file_findings(name: str, records: Sequence[dict], scans: Sequence[Scan]) -> list[Finding]:
    """Return what is wrong or odd with the files of one split."""
    faults, sizes, suffixes, turned = [], [], [], []
    for record, scan in zip(records, scans, strict=True):
        path, facts = record["file_name"], scan.facts
        stated = (record["height"], record["width"])
        if scan.fault:
            faults.append(scan.fault)
        if scan.size and scan.size != stated:
            sizes.append(f"{path}: {stated} in the records, {scan.size} decoded")
        if facts and facts.format not in _FORMATS.get(_suffix(path), (facts.format,)):
            suffixes.append(f"{path} is {facts.format}")
        if facts and facts.orientation != 1:
            turned.append(path)
    too_many = len(faults) > MAX_MISSING * len(records)
    groups = [
        _equal([records[index]["file_name"] for index in group])
        for group in exact_duplicates(scans)
    ]
    checks = (
        (ERROR if too_many else PROBLEM, "images that cannot be decoded", faults, _DECODE),
        (ERROR, "images of another size than their record", sizes, _SIZE),
        (NOTE, "files whose suffix is not their format", suffixes, ""),
        (NOTE, "images turned by EXIF", turned, _TURNED),
        (PROBLEM, "groups of images with the same pixels", groups, _SAME),
    )
    return [
        finding(level, name, what, places, cure) for level, what, places, cure in checks if places
    ]


_DECODE = "training stops at the first of them; replace the files, or remove them and their boxes"
_SIZE = "the boxes would be wrong; put back the images that were annotated"
_TURNED = "they are read upright; boxes must be drawn on the upright image"
_SAME = "they count more often than others; keep one of each, after comparing their boxes"
_LEAK = "what is trained on is then tested on; keep each in one split"


def _equal(paths: list[str]) -> str:
    more = f" and {len(paths) - SHOWN_EQUAL:,} more" if len(paths) > SHOWN_EQUAL else ""
    return " = ".join(paths[:SHOWN_EQUAL]) + more


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def kinds(scanned: Mapping[str, Scanned]) -> dict[str, Counter[str]]:
    """Return how many images there are of each mode, format and number of bits."""
    facts = [scan.facts for _, scans in scanned.values() for scan in scans if scan.facts]
    return {
        "mode": Counter(str(fact.mode) for fact in facts),
        "format": Counter(str(fact.format) for fact in facts),
        # Fewer than eight bits are palettes and bitmaps, which fill the range of eight.
        "bits": Counter(str(max(8, fact.bits)) for fact in facts),
    }


def kind_findings(scanned: Mapping[str, Scanned]) -> list[Finding]:
    """Return what is mixed that had better be one: pixel modes, numbers of bits."""
    counts = kinds(scanned)
    cures = {
        "mode": "all are read as RGB; if the kinds go with the classes or the sources, a detector "
        "can tell those by the kind alone",
        "bits": "INPUT.INTENSITY full maps each kind by its own depth, window both by one range of "
        "stored values; the lines on intensity say which holds here",
    }
    found = []
    for key, level in (("mode", NOTE), ("bits", PROBLEM)):
        if len(counts[key]) > 1:
            shown = ", ".join(f"{kind} {count:,}" for kind, count in counts[key].most_common())
            what = {"mode": "pixel modes are mixed", "bits": "bits a sample are mixed"}[key]
            found.append(Finding(level, ", ".join(scanned), what, 0, (shown,), cures[key]))
    return found


def intensity_findings(
    used: Mapping[str, UsedRange], intensity: Intensity, names: Mapping[str, Mapping[str, str]]
) -> list[Finding]:
    """Return the splits whose images an intensity shows flat, or some of them maybe.

    Args:
        used: of each split.
        intensity: that the network is given.
        names: per split, what each image file is called in reports.
    """
    what = "the network is given images with little contrast"
    cure = (
        "INPUT.INTENSITY auto decides from the training images; window and percentile take an "
        "INPUT.INTENSITY_RANGE"
    )
    found = [
        Finding(PROBLEM, name, what, 0, (f"{intensity.describe()}; {split.summary()}",), cure)
        for name, split in used.items()
        if not suits(intensity, split)
    ]
    for name, split in used.items():
        if intensity.kind == "full" and split.beside_windows:
            places = [names[name][file] for file in split.beside_windows]
            found.append(finding(PROBLEM, name, _BESIDE_WINDOWS, places, _WINDOW))
    return found


_BESIDE_WINDOWS = (
    "sampled images of more than 8 bits without a window of their own, where most have one: full "
    "gives them their whole declared range"
)
_WINDOW = "write WindowCenter and WindowWidth into them, or set INPUT.INTENSITY percentile for all"


def leak_findings(scanned: Mapping[str, Scanned]) -> list[Finding]:
    """Return the images that stand in two splits, exactly or nearly."""
    found = []
    names = list(scanned)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            both = f"{first}, {second}"
            left, right = scanned[first], scanned[second]
            exact = _paths(left, right, _shared(left[1], right[1]))
            near = _paths(left, right, near_duplicates(left[1], right[1]))
            if exact:
                what = "images with the same pixels in both splits"
                found.append(finding(PROBLEM, both, what, exact, _LEAK))
            if near:
                what = "images nearly the same in both splits"
                found.append(finding(PROBLEM, both, what, near, _LEAK))
    return found


def fold_findings(scanned: Mapping[str, Scanned], fold_of: Sequence[int | None]) -> list[Finding]:
    """Return the images that stand in two folds of a cross-validation, exactly or nearly.

    Args:
        scanned: the splits, by name.
        fold_of: the fold of every image, split by split; None for one in no fold, which is left
            out, such as those of a test split.
    """
    parts: dict[int, tuple[list[dict], list[Scan]]] = {}
    pairs = (
        pair for records, scans in scanned.values() for pair in zip(records, scans, strict=True)
    )
    for fold, (record, scan) in zip(fold_of, pairs, strict=True):
        if fold is not None:
            in_fold = parts.setdefault(fold, ([], []))
            in_fold[0].append(record)
            in_fold[1].append(scan)
    exact: list[str] = []
    near: list[str] = []
    for one, other in combinations(sorted(parts), 2):
        left, right = parts[one], parts[other]
        where = f"fold {one}, fold {other}: "
        exact += (where + pair for pair in _paths(left, right, _shared(left[1], right[1])))
        near += (where + pair for pair in _paths(left, right, near_duplicates(left[1], right[1])))
    names = ", ".join(scanned)
    checks = (
        ("images with the same pixels in two folds", exact),
        ("images nearly the same in two folds", near),
    )
    found = [finding(PROBLEM, names, what, pairs, _FOLDS) for what, pairs in checks if pairs]
    if not parts:
        cure = "name the file that `ulga data split` wrote for this dataset"
        found.append(Finding(ERROR, names, "the fold file names no image", 0, cure=cure))
    return found


_FOLDS = (
    "each validation sees what was trained on; keep copies together, for example by a `patient` "
    "that they share"
)


def _shared(first: Sequence[Scan], second: Sequence[Scan]) -> list[tuple[int, int]]:
    where = {scan.digest: index for index, scan in reversed(list(enumerate(second)))}
    return [
        (index, where[scan.digest])
        for index, scan in enumerate(first)
        if scan.digest and scan.digest in where
    ]


def _paths(left: Scanned, right: Scanned, pairs: Sequence[tuple[int, int]]) -> list[str]:
    return [f"{left[0][i]['file_name']} = {right[0][j]['file_name']}" for i, j in pairs]
