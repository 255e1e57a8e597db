"""Write sample slices as Cheng's release has them: one MATLAB file (version 7.3) a slice."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from .brain import WHITE_OF_SCANNER, make_brain
from .difficulty import DIFFICULTIES
from .layout import (
    COLUMNS,
    DifficultyTable,
    Request,
    SampleImage,
    Written,
    labels_of,
    mask_of,
    outline_of,
)
from .lesion import CLASS_NAMES
from .scene import Scene

SPLITS = ("train", "val")
SLICES_PER_PATIENT = 3
# The release divides the patients into five folds; the reader validates on the last.
FOLDS, VAL_FOLD = 5, 5
# MATLAB puts this block before the HDF5 file.
_BLOCK = 512
_MAGIC = b"\x00\x02IM"


def write_cheng(out: Path, request: Request) -> Written:
    """Write `1.mat`, `2.mat`, ... with one tumour each, and `cvind.mat` with the fold of each."""
    table = DifficultyTable(COLUMNS)
    images: list[SampleImage] = []
    folds: list[int] = []
    for number, split, index in request.images(SPLITS):
        scene = make_brain(
            seed=request.seed,
            split_number=number,
            index=index,
            size=request.size,
            difficulty=DIFFICULTIES[request.difficulty],
            white=WHITE_OF_SCANNER,
            single=True,
        )
        in_split = index // SLICES_PER_PATIENT
        patient = f"{100_000 * (number + 1) + in_split}"
        path = out / f"{len(images) + 1}.mat"
        _write_slice(path, scene, patient)
        folds.append(VAL_FOLD if split == "val" else 1 + in_split % (FOLDS - 1))
        table.add(split, path.stem, scene)
        size = scene.image.shape[:2]
        images.append(SampleImage(split, path.stem, path, size, labels_of(scene), patient))
    _write_arrays(out / "cvind.mat", {"cvind": (np.array([folds], np.float64), "double")})
    table.write(out)
    return Written(images, _in_the_slices, lambda image: None)


def _in_the_slices(images: list[SampleImage]) -> None:
    """Write nothing more: each slice holds its own annotation."""


def _write_slice(path: Path, scene: Scene, patient: str) -> None:
    (lesion,) = scene.objects
    border = np.concatenate([np.array(polygon) for polygon in outline_of(lesion)])
    number = CLASS_NAMES.index(lesion.class_name) + 1
    codes = np.array([[ord(character)] for character in patient], np.uint16)
    _write_arrays(
        path,
        {
            "cjdata/PID": (codes, "char"),
            # MATLAB stores columns first, so every array lies there transposed.
            "cjdata/image": (np.ascontiguousarray(scene.image.T), "int16"),
            "cjdata/label": (np.array([[number]], np.float64), "double"),
            "cjdata/tumorBorder": (border[None], "double"),
            "cjdata/tumorMask": (np.ascontiguousarray(mask_of(scene).T), "logical"),
        },
    )


def _write_arrays(path: Path, arrays: dict[str, tuple[np.ndarray, str]]) -> None:
    """Write arrays, each with the name of its MATLAB class, as MATLAB 7.3 does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=_BLOCK) as file:
        for name, (array, matlab_class) in arrays.items():
            dataset = file.create_dataset(name, data=array)
            dataset.attrs["MATLAB_class"] = np.bytes_(matlab_class)
        if "cjdata" in file:
            file["cjdata"].attrs["MATLAB_class"] = np.bytes_("struct")
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, written by ulga sample".ljust(124) + _MAGIC)
