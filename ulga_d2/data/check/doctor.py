"""The data doctor's round: every image, every box, every pair of splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ...errors import UserError
from ...evaluation.boxes import COCO_LIMIT
from ..anonymous import anonymized
from ..folds import Folds, fold_numbers
from ..intensity import FULL_RANGE, Intensity
from ..record import LoadedSplit
from ..used_range import UsedRange, choose_intensity, measure_used_range
from .boxes import (
    NEGATIVE,
    POSITIVE,
    Anchors,
    best_anchor_iou,
    box_owners,
    box_table,
    find_rounding,
    is_normalized,
    scaled_sizes,
)
from .files import (
    Scanned,
    file_findings,
    fold_findings,
    intensity_findings,
    kind_findings,
    kinds,
    leak_findings,
)
from .finding import ERROR, NOTE, PROBLEM, Finding, finding
from .scan import scan_images
from .splits import (
    class_findings,
    crowd_findings,
    empty_findings,
    limit_findings,
    patient_findings,
    reader_findings,
)

# A detector is thought to fit the boxes if fewer than this share have no anchor near them.
MAX_WITHOUT_ANCHOR = 0.05
# A box with a shorter side, in pixels, has next to nothing to learn from ...
MIN_SIDE = 2.0
# ... and if more than this share of the boxes shrink below it, the input is too small for them.
MAX_TOO_SMALL = 0.05
_LEVELS = (ERROR, PROBLEM, NOTE)


@dataclass(frozen=True)
class Settings:
    """What a config says about how the data will be used.

    Attributes:
        anchors: the detector's anchors; None where no config is given.
        filter_empty: DATALOADER.FILTER_EMPTY_ANNOTATIONS; None where no config is given.
        intensity: how stored values become the network's; None = as INPUT.INTENSITY auto decides.
        training: the splits that are trained on, from whose images auto decides.
        max_detections: TEST.DETECTIONS_PER_IMAGE; COCO's limit where no config is given.
        square_size: INPUT.SQUARE_SIZE, its default where no config is given; None: not checked.
        folds: the folds of a cross-validation, of which no two should share an image.
        anonymize: call files and patients by numbers.
        decode: decode every image; else read the headers alone, and look for no duplicates.
    """

    anchors: Anchors | None = None
    filter_empty: bool | None = None
    intensity: Intensity | None = None
    training: tuple[str, ...] = ("train",)
    max_detections: int = COCO_LIMIT
    square_size: int | None = None
    folds: Folds | None = None
    anonymize: bool = False
    decode: bool = True


@dataclass(frozen=True)
class Checkup:
    """What the doctor found.

    Attributes:
        splits: the splits that could be read, by name.
        shown: the same, with the names of files that are shown.
        findings: errors first, then problems, then notes.
        listed: per split, how many of its images and boxes are kept by the reader but lie in files
            that cannot be decoded.
        anchor_ious: per split, the IoU of each box's best anchor; empty without a config.
        kinds: how many images there are of each mode, format and number of bits.
        intensity: how stored values become the network's.
        used_ranges: per split, what its images use of the range that they declare.
    """

    splits: dict[str, LoadedSplit]
    shown: dict[str, LoadedSplit]
    findings: list[Finding]
    listed: dict[str, tuple[int, int]]
    anchor_ious: dict[str, np.ndarray] = field(default_factory=dict)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    intensity: Intensity = FULL_RANGE
    used_ranges: dict[str, UsedRange] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Return how many findings there are of each level."""
        return {level: sum(f.level == level for f in self.findings) for level in _LEVELS}


def check_splits(splits: Mapping[str, LoadedSplit | UserError], settings: Settings) -> Checkup:
    """Check a data set before it is trained on.

    Args:
        splits: by name, each split as read, or why it cannot be read.
        settings: what is known about the training.

    Raises:
        UserError: no split could be read at all (the first one's reason).
    """
    loaded = {name: split for name, split in splits.items() if isinstance(split, LoadedSplit)}
    faults = {name: split for name, split in splits.items() if isinstance(split, UserError)}
    if not loaded:
        raise next(iter(faults.values()))
    shown = anonymized(loaded) if settings.anonymize else loaded
    intensity = settings.intensity or auto_intensity(loaded, settings)
    used_ranges = {
        name: measure_used_range(split.records, pixels=settings.decode, skip_unreadable=True)
        for name, split in loaded.items()
    }
    scanned = _scan(loaded, shown, intensity, settings)
    findings = [
        Finding(ERROR, name, _UNREADABLE, 0, () if settings.anonymize else _lines_of(fault))
        for name, fault in faults.items()
    ]
    for name, split in shown.items():
        findings += reader_findings(name, split.report)
        findings += file_findings(name, *scanned[name])
    findings += class_findings(shown) + empty_findings(shown, settings.filter_empty)
    findings += crowd_findings(shown) + limit_findings(shown, settings.max_detections)
    findings += patient_findings(shown) + kind_findings(scanned) + leak_findings(scanned)
    names = {
        name: {
            record["file_name"]: other["file_name"]
            for record, other in zip(split.records, shown[name].records, strict=True)
        }
        for name, split in loaded.items()
    }
    findings += intensity_findings(used_ranges, intensity, names)
    if settings.folds is not None:
        findings += fold_findings(scanned, fold_numbers(loaded, settings.folds))
    findings += _size_findings(shown, settings) + _rounding_findings(shown)
    ious = _anchor_ious(shown, settings.anchors)
    findings += _anchor_findings(shown, ious)
    return Checkup(
        splits=loaded,
        shown=shown,
        findings=sorted(findings, key=lambda item: _LEVELS.index(item.level)),
        listed={name: _undecodable(*scanned[name]) for name in loaded},
        anchor_ious=ious,
        kinds=kinds(scanned),
        intensity=intensity,
        used_ranges=used_ranges,
    )


def auto_intensity(loaded: Mapping[str, LoadedSplit], settings: Settings) -> Intensity:
    """Return what INPUT.INTENSITY auto becomes in a training on these splits.

    Args:
        loaded: splits by name; without one that is trained on, the first of them decides.
        settings: what is known about the training.
    """
    names = [name for name in settings.training if name in loaded] or list(loaded)[:1]
    records = [record for name in names for record in loaded[name].records]
    if settings.filter_empty:
        records = [record for record in records if record["annotations"]]
    return choose_intensity(measure_used_range(records, skip_unreadable=True))


_UNREADABLE = "the split cannot be read"


def _lines_of(fault: UserError) -> tuple[str, ...]:
    return tuple(map(str, fault.args))


def _scan(
    loaded: Mapping[str, LoadedSplit],
    shown: Mapping[str, LoadedSplit],
    intensity: Intensity,
    settings: Settings,
) -> dict[str, Scanned]:
    """Scan all splits in one go, so that the processes start once; return the `shown` records."""
    files = [record for split in loaded.values() for record in split.records]
    scans = scan_images(files, intensity, decode=settings.decode)
    records = [record for split in shown.values() for record in split.records]
    if settings.anonymize:  # a fault quotes the file
        scans = [
            replace(scan, fault=scan.fault and record["file_name"])
            for scan, record in zip(scans, records, strict=True)
        ]
    rest = iter(scans)
    return {
        name: (split.records, [next(rest) for _ in split.records]) for name, split in shown.items()
    }


def _undecodable(records: list[dict], scans: list) -> tuple[int, int]:
    bad = [record for record, scan in zip(records, scans, strict=True) if scan.fault]
    return len(bad), sum(len(record["annotations"]) for record in bad)


def _size_findings(loaded: Mapping[str, LoadedSplit], settings: Settings) -> list[Finding]:
    """Return the boxes that are too small to be learned, as annotated or in the network's input."""
    found = []
    for name, split in loaded.items():
        table = box_table(split.records)
        if is_normalized(table):
            what = "boxes are all within 0..1 pixel: their coordinates seem to be normalized"
            cure = "write them in pixels, or name the format that has shares of the image (yolo)"
            found.append(Finding(ERROR, name, what, len(table), cure=cure))
            continue
        sides = (table[:, 2:4] - table[:, :2]).min(axis=1)
        is_small = sides < MIN_SIDE
        what = f"with a side under {MIN_SIDE:g} px"
        found += _small(name, split, sides, is_small, (PROBLEM, what, _SMALL))
        if settings.square_size is None or not len(table):
            continue
        tiles = settings.anchors.tiles if settings.anchors else None
        shown = scaled_sizes(box_table(split.records, tiles), settings.square_size).min(axis=1)
        is_shrunk = (shown < MIN_SIDE) & ~is_small
        level = PROBLEM if is_shrunk.mean() > MAX_TOO_SMALL else NOTE
        what += f" once the image is resized to {settings.square_size} px (INPUT.SQUARE_SIZE)"
        found += _small(name, split, shown, is_shrunk, (level, what, _SHRUNK))
    return found


def _small(
    name: str,
    split: LoadedSplit,
    sides: np.ndarray,
    chosen: np.ndarray,
    words: tuple[str, str, str],
) -> list[Finding]:
    """Return the finding about the `chosen` boxes, if any; `words` are its level, fact and fix."""
    if not chosen.any():
        return []
    level, what, cure = words
    owners = box_owners(split.records)
    places = [f"{owners[index]} ({sides[index]:.2f} px)" for index in np.flatnonzero(chosen)]
    return [finding(level, name, f"boxes ({chosen.mean():.1%}) {what}", places, cure)]


_SMALL = "check the unit of the coordinates; remove boxes that are slips"
_SHRUNK = "raise INPUT.SQUARE_SIZE, or cut the images into tiles with INPUT.TILE.SIDE"


def _rounding_findings(loaded: Mapping[str, LoadedSplit]) -> list[Finding]:
    found = []
    for name, split in loaded.items():
        table = box_table(split.records)
        rounding = find_rounding(table)
        if rounding:
            expected = (
                f"a perfect detector reaches IoU {rounding.median_iou:.2f} in the median, and "
                f"{rounding.low_iou:.2f} for the worst twentieth of the boxes"
            )
            cure = "expect AP at high IoU to be capped; export the labels with six decimals"
            what = f"boxes written with {rounding.decimals} decimals of the image's size"
            found.append(Finding(PROBLEM, name, what, len(table), (expected,), cure))
    return found


def _anchor_ious(
    loaded: Mapping[str, LoadedSplit], anchors: Anchors | None
) -> dict[str, np.ndarray]:
    if anchors is None:
        return {}
    return {
        name: best_anchor_iou(box_table(split.records, anchors.tiles), anchors)
        for name, split in loaded.items()
    }


def _anchor_findings(
    loaded: Mapping[str, LoadedSplit], ious: Mapping[str, np.ndarray]
) -> list[Finding]:
    found = []
    for name, best in ious.items():
        owners = box_owners(loaded[name].records)
        for limit, reason in (
            (NEGATIVE, "background to every anchor but the best"),
            (POSITIVE, "no clear target"),
        ):
            places = [
                f"{owners[index]} (IoU {best[index]:.2f})" for index in np.flatnonzero(best < limit)
            ]
            if places:
                share = len(places) / len(best)
                level = PROBLEM if share > MAX_WITHOUT_ANCHOR else NOTE
                what = f"boxes ({share:.1%}) without an anchor of IoU {limit} or more: {reason}"
                found.append(finding(level, name, what, places, _ANCHORS))
                break
    return found


_ANCHORS = "see MODEL.ANCHOR_GENERATOR.SIZES and ASPECT_RATIOS, or raise INPUT.SQUARE_SIZE"
