"""The data doctor's report in words and as plain data (docs/data_report.md has the schema)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from ...errors import printable
from ...terminal import table
from ..record import LoadedSplit
from .boxes import NEGATIVE, POSITIVE
from .doctor import Checkup
from .finding import ERROR, PROBLEM, Finding

SCHEMA = 1
SHOWN_PLACES = 3


def as_dict(name: str, checkup: Checkup) -> dict[str, Any]:
    """Return the report as plain data.

    Args:
        name: what the user named: a config, a data set or a YAML file.
        checkup: what was found.
    """
    return {
        "schema": SCHEMA,
        "data_set": name,
        "verdict": verdict(checkup),
        "counts": checkup.counts(),
        "splits": {
            split: {
                "images": _images(loaded, checkup.listed[split]),
                "boxes": _boxes(loaded, checkup.listed[split]),
                "boxes_by_class": dict(loaded.report.boxes),
                "anchors": _anchors(checkup.anchor_ious.get(split)),
                "intensity": checkup.used_ranges[split].as_dict(),
            }
            for split, loaded in checkup.splits.items()
        },
        "intensity": asdict(checkup.intensity),
        "image_kinds": {key: dict(counts) for key, counts in checkup.kinds.items()},
        "findings": [item.as_dict() for item in checkup.findings],
    }


def verdict(checkup: Checkup) -> str:
    """Return "errors", "problems" or "clean"."""
    counts = checkup.counts()
    return "errors" if counts[ERROR] else "problems" if counts[PROBLEM] else "clean"


def _images(loaded: LoadedSplit, listed: tuple[int, int]) -> dict[str, int]:
    report = loaded.report
    return {
        "found": report.found_images,
        "kept": report.images - listed[0],
        "dropped": report.dropped_images,
        "listed": listed[0],
        "without_boxes": report.empty_images,
    }


def _boxes(loaded: LoadedSplit, listed: tuple[int, int]) -> dict[str, int]:
    report = loaded.report
    return {
        "found": report.found_boxes,
        "kept": report.boxes.total() - listed[1],
        "dropped": report.dropped_boxes,
        "listed": listed[1],
    }


def _anchors(ious: np.ndarray | None) -> dict[str, float] | None:
    if ious is None or not len(ious):
        return None
    return {
        "median_best_iou": round(float(np.median(ious)), 4),
        f"share_below_{POSITIVE}": round(float((ious < POSITIVE).mean()), 4),
        f"share_below_{NEGATIVE}": round(float((ious < NEGATIVE).mean()), 4),
    }


def as_text(name: str, checkup: Checkup) -> str:
    """Return the report in words: two tables, every finding, and the verdict."""
    data = as_dict(name, checkup)
    parts = [name, _count_table(data["splits"]), _class_table(data["splits"])]
    parts += [_kinds_line(data["image_kinds"]), _intensity_lines(checkup)]
    parts += [_anchor_lines(data["splits"])]
    parts += [_paragraph(item) for item in checkup.findings]
    counts = ", ".join(
        f"{count} {level}{'' if count == 1 else 's'}" for level, count in data["counts"].items()
    )
    parts.append(f"{data['verdict']}: {counts}")
    return "\n\n".join(part for part in parts if part)


def _count_table(splits: Mapping[str, Any]) -> str:
    header = ["split", *(f"{kind}\n{word}" for kind in ("images", "boxes") for word in _WORDS)]
    rows = [
        [name, *(split[kind][word] for kind in ("images", "boxes") for word in _WORDS)]
        for name, split in splits.items()
    ]
    header.append("images\nwithout boxes")
    for row, split in zip(rows, splits.values(), strict=True):
        row.append(split["images"]["without_boxes"])
    return table(rows, header, intfmt=",") + (
        "\nfound = kept + dropped by the reader + listed below as undecodable"
    )


_WORDS = ("found", "kept", "dropped", "listed")


def _class_table(splits: Mapping[str, Any]) -> str:
    names = dict.fromkeys(key for split in splits.values() for key in split["boxes_by_class"])
    rows = [
        [name, *(split["boxes_by_class"].get(name, 0) for split in splits.values())]
        for name in names
    ]
    return table(rows, ["boxes of class", *splits], intfmt=",")


def _kinds_line(kinds: Mapping[str, Mapping[str, int]]) -> str:
    return "; ".join(
        f"{key}: " + ", ".join(f"{kind} {count:,}" for kind, count in counts.items())
        for key, counts in kinds.items()
    )


def _intensity_lines(checkup: Checkup) -> str:
    lines = [f"intensity of {name}: {used.summary()}" for name, used in checkup.used_ranges.items()]
    return "\n".join([*lines, f"the network is given: {checkup.intensity.describe()}"])


def _anchor_lines(splits: Mapping[str, Any]) -> str:
    lines = []
    for name, split in splits.items():
        if split["anchors"]:
            median, *shares = split["anchors"].values()
            lines.append(
                f"anchors on {name}: best IoU {median:.2f} in the median; "
                f"{shares[0]:.1%} of the boxes below {POSITIVE}, {shares[1]:.1%} below {NEGATIVE}"
            )
    return "\n".join(lines)


def _paragraph(item: Finding) -> str:
    count = f"{item.count:,} " if item.count else ""
    lines = [f"{item.level.upper()} {item.split}: {count}{printable(item.what)}"]
    places = item.places[:SHOWN_PLACES] if item.count else item.places
    lines += [f"    {printable(place)}" for place in places]
    more = item.count - SHOWN_PLACES
    if more > 0 and len(item.places) > SHOWN_PLACES:
        lines.append(f"    and {more:,} more")
    if item.cure:
        lines.append(f"  -> {item.cure}")
    return "\n".join(lines)
