"""The data doctor's round: every image, every box, every pair of splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...errors import UserError
from ...evaluation.boxes import COCO_LIMIT
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
)
from .files import (
    Scanned,
    file_findings,
    intensity_findings,
    kind_findings,
    kinds,
    leak_findings,
)
from .finding import ERROR, NOTE, PROBLEM, Finding, finding
from .scan import scan_images
from .splits import (
    class_findings,
    empty_findings,
    limit_findings,
    patient_findings,
    reader_findings,
)

# A detector is thought to fit the boxes if fewer than this share have no anchor near them.
MAX_WITHOUT_ANCHOR = 0.05
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
        decode: decode every image; else read the headers alone, and look for no duplicates.
    """

    anchors: Anchors | None = None
    filter_empty: bool | None = None
    intensity: Intensity | None = None
    training: tuple[str, ...] = ("train",)
    max_detections: int = COCO_LIMIT
    decode: bool = True


@dataclass(frozen=True)
class Checkup:
    """What the doctor found.

    Attributes:
        splits: the splits that could be read, by name.
        findings: errors first, then problems, then notes.
        listed: per split, how many of its images and boxes are kept by the reader but lie in files
            that cannot be decoded.
        anchor_ious: per split, the IoU of each box's best anchor; empty without a config.
        kinds: how many images there are of each mode, format and number of bits.
        intensity: how stored values become the network's.
        used_ranges: per split, what its images use of the range that they declare.
    """

    splits: dict[str, LoadedSplit]
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
    intensity = settings.intensity or auto_intensity(loaded, settings)
    used_ranges = {
        name: measure_used_range(split.records, pixels=settings.decode, skip_unreadable=True)
        for name, split in loaded.items()
    }
    scanned = _scan(loaded, intensity, decode=settings.decode)
    findings = [
        Finding(ERROR, name, "the split cannot be read", 0, (str(fault),))
        for name, fault in faults.items()
    ]
    for name, split in loaded.items():
        findings += reader_findings(name, split.report)
        findings += file_findings(name, *scanned[name])
    findings += class_findings(loaded) + empty_findings(loaded, settings.filter_empty)
    findings += limit_findings(loaded, settings.max_detections)
    findings += patient_findings(loaded) + kind_findings(scanned) + leak_findings(scanned)
    findings += intensity_findings(used_ranges, intensity)
    findings += _rounding_findings(loaded)
    ious = _anchor_ious(loaded, settings.anchors)
    findings += _anchor_findings(loaded, ious)
    return Checkup(
        splits=loaded,
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


def _scan(
    loaded: Mapping[str, LoadedSplit], intensity: Intensity, *, decode: bool
) -> dict[str, Scanned]:
    """Scan all splits in one go, so that the processes start once."""
    records = [record for split in loaded.values() for record in split.records]
    scans = iter(scan_images(records, intensity, decode=decode))
    return {
        name: (split.records, [next(scans) for _ in split.records])
        for name, split in loaded.items()
    }


def _undecodable(records: list[dict], scans: list) -> tuple[int, int]:
    bad = [record for record, scan in zip(records, scans, strict=True) if scan.fault]
    return len(bad), sum(len(record["annotations"]) for record in bad)


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
