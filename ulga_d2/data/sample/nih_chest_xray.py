"""Write sample films as NIH Chest X-ray has them: nested PNGs, the box file with its own quirks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

from ..nih_chest_xray import ALIASES, NO_FINDING, SHARES
from ..split import split_of
from .chest import DIFFICULTIES, NIH_NUMBER, make_nih_film
from .layout import (
    DifficultyTable,
    Label,
    Request,
    SampleImage,
    Written,
    labels_of,
    write_image,
    write_text,
)
from .scene import Scene

SPLITS = ("train", "val")
IMAGES = "images_001/images"
BOX_FILE = "BBox_List_2017.csv"
# One name a field would be six; the bracket is unquoted in the release, which makes nine.
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
ENTRY_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
)
# Films without a finding, for each with one.
HEALTHY = 1 / 3
MOST_FILMS = 3
# Patients without a box have numbers from here on; the release mixes them.
FIRST_HEALTHY = 20_001
# One film in so many is stored as RGBA.
RGBA_PERIOD = 8
# Sides of the viewers that the boxes were drawn in, whole pixels of theirs.
VIEWERS = (945, 944, 900)
_SPELLINGS = {ours: theirs for theirs, ours in ALIASES.items()}


@dataclass(frozen=True)
class _Film:
    """One film on disk and what the release's tables say about it."""

    image: SampleImage
    findings: tuple[str, ...]


def write_nih_chest_xray(out: Path, request: Request) -> Written:
    """Write films of patients that the reader's hash puts into train and val.

    Besides the films that are asked for there is a third as many without a finding, which the
    reader takes where `DATASETS.NIH_NEGATIVES` says so.
    """
    table = DifficultyTable()
    make = partial(
        make_nih_film,
        seed=request.seed,
        size=request.size,
        difficulty=DIFFICULTIES[request.difficulty],
    )
    films: list[_Film] = []
    names = {split: list(_names(split, request)) for split in SPLITS}
    for number, split, index in request.images(SPLITS):
        scene = make(split_number=number, index=index)
        film = _write_film(out, names[split][index], split, scene, index)
        table.add(split, film.image.name, scene)
        films.append(film)
    healthy: list[_Film] = []
    for number, split in enumerate(SPLITS):
        for index in range(round(HEALTHY * request.counts[split])):
            scene = make(split_number=number + len(SPLITS), index=index, is_healthy=True)
            name = f"{_patient(split, FIRST_HEALTHY, index):08d}_000"
            healthy.append(_write_film(out, name, split, scene, index))
    table.write(out)
    _write_tables(out, films, healthy)
    box_file = out / BOX_FILE
    images = [film.image for film in films]
    return Written(images, partial(_write_boxes, box_file), lambda image: box_file)


def _patient(split: str, first: int, position: int) -> int:
    """Return the patient at a position among those that the reader puts into a split."""
    number = first - 1
    for _ in range(position + 1):
        number += 1
        while split_of(f"{number:08d}", SHARES) != split:
            number += 1
    return number


def _names(split: str, request: Request) -> Iterator[str]:
    """Yield names of films; a patient has up to three."""
    sequence = SeedSequence([NIH_NUMBER, request.seed, SPLITS.index(split)])
    rng = Generator(PCG64(sequence))
    patient, left = 0, request.counts[split]
    while left > 0:
        patient = _patient(split, patient + 1, 0)
        for follow_up in range(min(left, int(rng.integers(1, MOST_FILMS, endpoint=True)))):
            left -= 1
            yield f"{patient:08d}_{follow_up:03d}"


def _write_film(out: Path, name: str, split: str, scene: Scene, index: int) -> _Film:
    pixels = scene.image
    if index % RGBA_PERIOD == RGBA_PERIOD - 1:
        pixels = np.dstack([pixels, pixels, pixels, np.full_like(pixels, 255)])
    path = out / IMAGES / f"{name}.png"
    write_image(path, pixels)
    size = scene.image.shape[0]
    viewer = VIEWERS[index % len(VIEWERS)]
    labels = tuple(_in_viewer(label, size, viewer) for label in labels_of(scene))
    patient = name.split("_")[0]
    image = SampleImage(split, name, path, scene.image.shape, labels, patient)
    findings = tuple(sorted({label.class_name for label in labels})) or (NO_FINDING,)
    return _Film(image, findings)


def _in_viewer(label: Label, size: int, viewer: int) -> Label:
    """Return the label with its numbers rounded to whole pixels of a viewer."""
    unit = size / viewer
    x, y, w, h = label.xywh
    left, top = round(x / unit), round(y / unit)
    width, height = min(round(w / unit), viewer - left), min(round(h / unit), viewer - top)
    return replace(label, xywh=(left * unit, top * unit, width * unit, height * unit))


def _write_boxes(path: Path, images: list[SampleImage]) -> None:
    rows = []
    for image in images:
        for label in image.labels:
            name = _SPELLINGS.get(label.class_name, label.class_name)
            numbers = ",".join(f"{value:.15g}" for value in label.xywh)
            rows.append(f"{image.path.name},{name},{numbers}\n")
    write_text(path, BOX_HEADER + "".join(rows))


def _write_tables(out: Path, films: list[_Film], healthy: list[_Film]) -> None:
    """Write the table of all films, and the official lists: every film with a box is for test."""
    rows = []
    for film in sorted(films + healthy, key=lambda film: film.image.name):
        patient, follow_up = map(int, film.image.name.split("_"))
        view, gender = ("PA", "AP")[patient % 5 == 0], "MF"[patient % 2]
        height, width = film.image.size
        rows.append(
            f"{film.image.path.name},{'|'.join(film.findings)},{follow_up},{patient},"
            f"{20 + patient % 60},{gender},{view},{width},{height},0.143,0.143\n"
        )
    write_text(out / "Data_Entry_2017_v2020.csv", ENTRY_HEADER + "".join(rows))
    for name, group in (("test_list.txt", films), ("train_val_list.txt", healthy)):
        write_text(out / name, "".join(f"{film.image.path.name}\n" for film in group))
