"""What a run's log and its data tell about where the figures come from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from ..boxes import Record, xywh_box
from ..runs import Run

# What the log says, by the name it gets in the report.
PATTERNS = {
    "versions": r"(ulga_d2 \d.*)",
    "command": r"INFO: (config .*, options: .*)",
    "device": r"INFO: device (.*)",
    "schedule": r"INFO: schedule: (.*)",
    "peak memory": r"peak memory (\d+ MiB)",
}
TIME = re.compile(r"\[(\d\d/\d\d \d\d:\d\d:\d\d)\]")


def collect_facts(run: Run, records: Sequence[Record]) -> dict[str, str]:
    """Return name and words of what is known; what the folder does not tell is left out."""
    log = run.folder / "log.txt"
    text = re.sub(r"\x1b\[[0-9;]*m", "", _read(log))
    facts = {"folder": run.name, "seed": str(run.config.get("SEED", "not kept"))}
    for name, pattern in PATTERNS.items():
        found = re.findall(pattern, text)
        if found:
            facts[name] = found[-1]
    if wall := _wall_time(text):
        facts["from the first to the last line of the log"] = str(wall)
    facts["fingerprint of the ground truth"] = fingerprint(records)
    return facts


def fingerprint(records: Sequence[Record]) -> str:
    """Return 16 digits that change when an image, a box or a class of the set does.

    They are the start of the SHA-256 of ids, sizes, classes and boxes to a hundredth of a pixel,
    sorted, so that the order of images does not matter; pixels are not read.
    """
    rows = sorted(
        json.dumps(
            [
                str(record["image_id"]),
                record["height"],
                record["width"],
                sorted(
                    [item["category_id"], *(round(v, 2) for v in xywh_box(item))]
                    for item in record["annotations"]
                ),
            ]
        )
        for record in records
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _wall_time(text: str) -> timedelta | None:
    """Return the time between the log's first and last line; the log does not name the year."""
    # 2024 stands in for it, since it has a 29 February.
    times = [datetime.strptime(f"2024/{t}", "%Y/%m/%d %H:%M:%S") for t in TIME.findall(text)]
    if len(times) < 2:
        return None
    return times[-1] - times[0] if times[-1] >= times[0] else None
