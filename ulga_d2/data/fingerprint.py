"""What tells whether two sets of records are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def fingerprint(records: Sequence[Mapping[str, Any]], *, exact: bool = False) -> dict[str, Any]:
    """Return counts of a set, and a sha256 of its images' names, sizes, boxes and classes.

    Args:
        records: of the set.
        exact: let the sha256 tell the order of images and objects, too, and all that is known of
            an object, to the last digit, such as its mask. Pixels are not read.
    """
    lines = [json.dumps(_facts(record, exact=exact), default=str) for record in records]
    lines = lines if exact else sorted(lines)
    return {
        "images": len(records),
        "without_boxes": sum(not record["annotations"] for record in records),
        "boxes": sum(len(record["annotations"]) for record in records),
        "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }


def _facts(record: Mapping[str, Any], *, exact: bool) -> list[Any]:
    annotations = record["annotations"]
    if exact:
        objects = [[*one.values()] for one in annotations]
    else:
        objects = sorted(
            [one["category_id"], *(round(float(side), 2) for side in one["bbox"])]
            for one in annotations
        )
    return [Path(record["file_name"]).name, record["height"], record["width"], objects]
