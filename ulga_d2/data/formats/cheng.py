"""Read Cheng's brain tumour slices: MATLAB files (version 7.3), one a slice, with masks.

Source: Cheng et al., "Enhanced Performance of Brain Tumor Classification via Tumor Region
Augmentation and Partition", PLoS ONE 2015; data on figshare, 1512427. Each file holds one struct
`cjdata`: `label`, `PID` (the patient), `image` (int16), `tumorBorder`, `tumorMask`. MATLAB stores
columns first, so h5py shows every array transposed.
"""

from __future__ import annotations

import logging
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pycocotools import mask as run_lengths

from ...errors import UserError
from ..image_file import MAX_INFLATED_BYTES, check_size, undecodable
from ..progress import with_progress
from ..record import Box, LoadedSplit, make_record
from ..report import DataReport, Faults
from ..size_cache import cached
from ..split import SEED, fold_of
from .policy import check_missing

logger = logging.getLogger(__name__)

CLASS_NAMES = ("meningioma", "glioma", "pituitary")
FOLD_FILE = "cvind.mat"
# The release divides the patients into five; the last fifth is ours to validate on.
FOLDS = 5
VAL_FOLD = 5
# What MATLAB packs arrays with.
_FILTERS = {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32}
_MOST_DEFLATED = 1032  # bytes that one deflated byte can stand for
# Values of a label or a patient's number; that of the folds has one a slice.
_MOST_VALUES = 100_000
# Raised when what is remembered of a slice would come out otherwise for the same file.
_SLICES = "cheng-1"


def find_slices(root: Path) -> dict[int, Path]:
    """Return the slices, `1.mat` to `3064.mat`, in `root` or its subfolders, by their numbers.

    Raises:
        UserError: two slices have one number.
    """
    slices: dict[int, Path] = {}
    for path in [*root.glob("*.mat"), *root.glob("*/*.mat")]:
        if not (path.stem.isascii() and path.stem.isdigit()):
            continue
        if int(path.stem) in slices:
            raise UserError(
                f"{slices[int(path.stem)]} and {path} are both slice {path.stem}; move one away"
            )
        slices[int(path.stem)] = path
    return dict(sorted(slices.items()))


def read_cheng(root: Path, split: str) -> LoadedSplit:
    """Read one split in place; boxes enclose the pixels of `tumorMask`, which is kept as a mask.

    The fold of a slice is the one of `cvind.mat`, and where that is missing, a hash of its patient.

    Args:
        root: the folder of the slices, or of the release's four folders of them.
        split: "val" for the fifth fold, "train" for the others.

    Raises:
        UserError: there is no slice, more than 1 % of them are unreadable, a label is none of 1, 2,
            3, or `cvind.mat` does not fit the slices.
    """
    slices = find_slices(root)
    folds = _read_folds(root, slices)
    report = DataReport.for_classes(CLASS_NAMES)
    faults = Faults()
    unusable: list[str] = []
    records = []
    with cached(root, _SLICES, _read_slice, _as_slice) as facts_of:
        for number, path in with_progress(list(slices.items()), f"reading {root}", logger):
            try:
                facts = facts_of(str(path))
            except UserError as error:
                # Whose it is cannot be told, so it counts in the larger split.
                if split == "train":
                    report.found_images += 1
                    report.drop_image("slices that cannot be read dropped", str(error), boxes=0)
                unusable.append(str(error))
                continue
            fold = folds.get(number) or 1 + fold_of(SEED, facts["patient"], FOLDS)
            if (fold == VAL_FOLD) == (split == "val"):
                record = _record(number, path, facts, report, faults)
                records.append(record)
    faults.stop_if_any()
    check_missing(unusable, len(slices), f"slices in {root} cannot be read")
    return LoadedSplit([record for record in records if record], CLASS_NAMES, report)


def _record(
    number: int, path: Path, facts: dict[str, Any], report: DataReport, faults: Faults
) -> dict | None:
    report.found_images += 1
    if facts["label"] not in (1, 2, 3):
        faults.add(str(path), f"label is {facts['label']}, not 1, 2 or 3; fetch the file again")
        return None
    if not facts["counts"]:
        # A negative it is not: its label names a tumor.
        report.drop_image("slices with an empty mask left out", str(path), boxes=0)
        return None
    report.found_boxes += 1
    mask = {"size": facts["size"], "counts": facts["counts"]}
    boxes = [Box(tuple(facts["box"]), facts["label"] - 1, str(path), segmentation=mask)]
    return make_record(
        file_name=str(path),
        image_id=number,
        size=tuple(facts["size"]),
        boxes=boxes,
        class_names=CLASS_NAMES,
        report=report,
        patient_id=facts["patient"],
    )


def _read_folds(root: Path, slices: dict[int, Path]) -> dict[int, int]:
    """Return the fold of each slice, 1 to 5, or nothing where there is no file of folds."""
    files = sorted([*root.glob(FOLD_FILE), *root.glob(f"*/{FOLD_FILE}")])
    if not files:
        logger.info("%s has no %s: folds go by a hash of the patient", root, FOLD_FILE)
        return {}
    path = str(files[0])
    with _opened(path) as file:
        values = _values(file, "cvind", path)
    last = max(slices, default=0)
    if len(values) < last or not np.isin(values, np.arange(1, FOLDS + 1)).all():
        raise UserError(
            f"{path} must give a fold from 1 to {FOLDS} for each of {last:,} slices; fetch it "
            "again, or move it away to go by a hash of the patient"
        )
    return {number: int(values[number - 1]) for number in slices if number}


def _read_slice(path: str) -> dict[str, Any]:
    """Return what one slice says, as JSON can hold it; "counts" is empty without a tumour."""
    with _opened(path) as file:
        height, width = _shape(file, "cjdata/image", path)
        if _shape(file, "cjdata/tumorMask", path) != (height, width):
            raise undecodable(path, "its mask has another size than its image")
        mask = _array(file, "cjdata/tumorMask", path).T != 0
        labels = [int(value) for value in _values(file, "cjdata/label", path)]
        patient = _text(_values(file, "cjdata/PID", path))
    if len(labels) != 1 or not patient:
        raise undecodable(path, "its label or PID is not what it should be")
    facts = {"label": labels[0], "patient": patient, "size": [height, width]}
    if not mask.any():
        return {**facts, "box": None, "counts": ""}
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = [float(n) for n in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
    counts = run_lengths.encode(np.asfortranarray(mask, np.uint8))["counts"]
    return {**facts, "box": box, "counts": counts.decode("ascii")}


def _as_slice(stored: Any) -> dict[str, Any]:
    """Return what `_read_slice` returned, from what JSON made of it."""
    return {key: stored[key] for key in ("label", "patient", "size", "box", "counts")}


def _text(values: np.ndarray) -> str:
    """Return MATLAB's text, an array of character codes, or a number as text."""
    if values.dtype == np.uint16:
        return "".join(map(chr, values)).strip()
    return str(int(values[0])) if len(values) == 1 else ""


def mat_size(path: str) -> tuple[int, int]:
    """Return (height, width) of a slice's image.

    Raises:
        UserError: the file is damaged, not such a slice, or has too many pixels.
    """
    with _opened(path) as file:
        return _shape(file, "cjdata/image", path)


def read_mat_pixels(path: str) -> np.ndarray:
    """Return a slice's image as stored, (H, W), usually int16.

    Raises:
        UserError: the file is damaged, not such a slice, or has too many pixels.
    """
    with _opened(path) as file:
        return np.ascontiguousarray(_array(file, "cjdata/image", path).T)


@contextmanager
def _opened(path: str) -> Iterator[h5py.File]:
    """Open an HDF5 file; whatever reading it raises becomes a `UserError`."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except UserError:
        raise
    except Exception as error:  # damaged files raise anything
        reason = f"not a MATLAB file of version 7.3: {error}"
        raise undecodable(path, reason) from None


def _dataset(file: h5py.File, name: str, path: str) -> h5py.Dataset:
    """Return a dataset of numbers that lies in the file itself."""
    place: h5py.Group | h5py.Dataset = file
    for part in name.split("/"):
        # A link could lead to any other file.
        if not isinstance(place, h5py.Group) or not isinstance(
            place.get(part, getlink=True), h5py.HardLink
        ):
            raise undecodable(path, f"it has no {name}")
        place = place[part]
    if not isinstance(place, h5py.Dataset) or place.is_virtual or place.external:
        raise undecodable(path, f"its {name} is no array")
    if place.dtype.kind not in "iuf" or place.dtype.itemsize > 8 or place.ndim != 2:
        raise undecodable(path, f"its {name} is no matrix of numbers of at most 64 bits")
    return place


def _shape(file: h5py.File, name: str, path: str) -> tuple[int, int]:
    found = _dataset(file, name, path)
    width, height = found.shape
    if not (height and width):
        raise undecodable(path, f"its {name} is empty")
    # As read, turned, and as the network gets it: float32 of three samples.
    needed = 2 * found.dtype.itemsize + 12
    check_size(path, height, width, needed, os.path.getsize(path))
    return height, width


def _array(file: h5py.File, name: str, path: str) -> np.ndarray:
    _shape(file, name, path)
    found = _dataset(file, name, path)
    _check_chunks(found, name, path)
    return found[()]


def _values(file: h5py.File, name: str, path: str) -> np.ndarray:
    """Return a few values in a row."""
    if _dataset(file, name, path).size > _MOST_VALUES:
        raise undecodable(path, f"its {name} has more than {_MOST_VALUES:,} values")
    return _array(file, name, path).ravel()


def _check_chunks(found: h5py.Dataset, name: str, path: str) -> None:
    """Refuse an array whose parts take far more memory than the array: HDF5 sets no limit.

    Raises:
        UserError: a chunk is too large, inflates to more than it should, or has another filter
            than MATLAB's own (shuffle, deflate, checksum).
    """
    if found.chunks is None:
        return
    filters = found.id.get_create_plist()
    kinds = [filters.get_filter(number)[0] for number in range(filters.get_nfilters())]
    if not set(kinds) <= _FILTERS or kinds.count(h5py.h5z.FILTER_DEFLATE) > 1:
        raise undecodable(path, f"its {name} is packed by other filters than MATLAB's")
    expected = math.prod(found.chunks) * found.dtype.itemsize
    if expected > MAX_INFLATED_BYTES:
        raise undecodable(path, f"its {name} has chunks of {expected:,} bytes")
    if h5py.h5z.FILTER_DEFLATE not in kinds:
        return
    for number in range(found.id.get_num_chunks()):
        chunk = found.id.get_chunk_info(number)
        if chunk.size * _MOST_DEFLATED <= MAX_INFLATED_BYTES:
            continue
        _, data = found.id.read_direct_chunk(chunk.chunk_offset)
        inflater = zlib.decompressobj()
        # A checksum before deflating adds four bytes.
        size = len(inflater.decompress(data, expected + 8))
        if size > expected + 4:
            raise undecodable(path, f"its {name} inflates to more than {expected:,} bytes a chunk")
