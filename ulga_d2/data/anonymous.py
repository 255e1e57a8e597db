"""Numbers instead of names, for what people mail: no file, folder or patient is told.

An image is called by its number in its split, in the order in which the dataset is read, so that it
has the same number in every output: "val/17.png".
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from .formats.files import READABLE_SUFFIXES
from .record import LoadedSplit


def anonymized(splits: Mapping[str, LoadedSplit]) -> dict[str, LoadedSplit]:
    """Return splits without names: numbered records, and reports that count and name no file.

    Patients are numbered over all splits.
    """
    patients: dict[str, str] = {}
    return {
        name: replace(
            loaded,
            records=numbered(name, loaded.records, patients),
            report=replace(loaded.report, places={key: [] for key in loaded.report.places}),
        )
        for name, loaded in splits.items()
    }


def numbered(
    split: str, records: Sequence[dict], patients: dict[str, str] | None = None
) -> list[dict]:
    """Return records whose `file_name` is the split and a number from 1, with the suffix.

    Args:
        split: whose records they are.
        records: all of the split, in its order.
        patients: the number of each patient met so far; gets those of these records, in place.
    """
    patients = {} if patients is None else patients
    found = []
    for number, record in enumerate(records, 1):
        suffix = os.path.splitext(record["file_name"])[1]
        suffix = suffix if suffix.lower() in READABLE_SUFFIXES else ""
        shown = {**record, "file_name": f"{split}/{number}{suffix}"}
        if "patient_id" in record:
            shown["patient_id"] = patients.setdefault(record["patient_id"], str(len(patients) + 1))
        found.append(shown)
    return found
