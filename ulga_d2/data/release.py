"""Compare what a data set's files hold with the numbers of its official release."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .report import DataReport

UNLIKE_RELEASE = "numbers unlike the official release's"
# What `ulga sample` leaves in a folder that it writes.
SAMPLE_FILE = "sample.json"


def is_sample(root: Path) -> bool:
    """Return whether `ulga sample` wrote the data set, which then is no official release."""
    return (root / SAMPLE_FILE).is_file()


def compare_with_release(
    root: Path, found: Mapping[str, int], official: Mapping[str, int], report: DataReport
) -> None:
    """Note every number that differs from the official one; a sample of ours is let pass.

    Args:
        root: the data set's folder.
        found: numbers of the whole data set by what they count.
        official: the release's numbers of the same things.
        report: takes the notes, in place.
    """
    if is_sample(root):
        return
    for what, number in official.items():
        if found[what] != number:
            report.note(UNLIKE_RELEASE, f"{what}: {found[what]:,} here, {number:,} there")
