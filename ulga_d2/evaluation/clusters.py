"""Which images belong together: what a resample draws, or a permutation swaps, as one.

Images of one patient resemble one another. An interval that draws images one by one takes each for
a patient of its own and comes out too narrow.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import PurePath

import numpy as np

from ulga_d2.errors import UserError

from .boxes import Record

PATIENT, IMAGE, RUN = "patient", "image", "run:"


def default_clusters(records: Sequence[Record]) -> str:
    """Return "patient" where every record names one, else "image"."""
    known = all("patient_id" in record for record in records)
    return PATIENT if known else IMAGE


def cluster_numbers(records: Sequence[Record], how: str) -> np.ndarray:
    """Number the clusters of a set 0, 1, ... in the order in which their first images come.

    Args:
        records: ground truth; read are patient_id ("patient"), file_name and annotations ("run:K").
        how: "image": each image alone. "patient": by the record's patient_id. "run:K", for slices
            whose patients are not known but lie next to one another: images of the same classes
            whose file names agree but for their last number n, and have the same n // K; an image
            without objects is alone.

    Returns:
        (I,) the cluster of each image, by place in the records.

    Raises:
        UserError: `how` is none of these, a record names no patient, or a file name has no number.
    """
    length = _run_length(how)
    keys: list[Hashable]
    if how == IMAGE:
        keys = list(range(len(records)))
    elif how == PATIENT:
        keys = [_patient(record) for record in records]
    else:
        keys = [_run(record, place, length) for place, record in enumerate(records)]
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def clusters_in_words(how: str, clusters: np.ndarray) -> str:
    """Say what is drawn as one, such as "714 images, each drawn by itself"."""
    images, count = len(clusters), len(np.unique(clusters))
    if how == IMAGE:
        return f"{images:,} images, each drawn by itself"
    if how == PATIENT:
        return f"{images:,} images, drawn by patient ({count:,} of them)"
    return (
        f"{images:,} images in {count:,} clusters: runs of {_run_length(how)} consecutive numbers "
        "in file names, within a class, stand in for patients; images without objects are drawn "
        "one by one"
    )


def _run_length(how: str) -> int:
    """Return the K of "run:K", 0 for the other two ways."""
    if how in (IMAGE, PATIENT):
        return 0
    number = how.removeprefix(RUN)
    if not how.startswith(RUN) or not re.fullmatch("[0-9]+", number) or int(number) == 0:
        raise UserError(
            f"--cluster {how}: there are patient, image and run:K, with K a whole number from 1 "
            "(run:10 takes ten consecutive slice numbers as one patient)"
        )
    return int(number)


def _patient(record: Record) -> str:
    if "patient_id" not in record:
        raise UserError(
            f"--cluster patient: nothing tells whose image {_name(record)} is; use --cluster "
            "image if no patient has two images, or run:K if a patient's slices are numbered in a "
            "row"
        )
    return record["patient_id"]


def _run(record: Record, place: int, length: int) -> Hashable:
    if not record["annotations"]:
        return place
    path = PurePath(record.get("file_name", ""))
    parts = re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", path.stem, flags=re.DOTALL)
    if parts is None:
        raise UserError(
            f"--cluster run:{length}: the file name of image {_name(record)} has no number; use "
            "--cluster image or patient"
        )
    classes = frozenset(annotation["category_id"] for annotation in record["annotations"])
    return path.parent, parts[1], parts[3], classes, int(parts[2]) // length


def _name(record: Record) -> str:
    return record.get("file_name", repr(record["image_id"]))
