"""Tiny chest X-ray data sets on disk, in the layouts of their releases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dicom_files import write_dicom
from PIL import Image

from ulga_d2.data import nih_chest_xray, rsna_pneumonia
from ulga_d2.data.split import split_of

BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
QUOTED_BOX_HEADER = 'Image Index,Finding Label,"Bbox [x,y,w,h]",,,\n'
ENTRY_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
)
LABEL_HEADER = "patientId,x,y,width,height,Target\n"
SIDE = 1024


def patients_of(split: str, number: int) -> list[str]:
    """Return the first patients that NIH's hash puts into a split."""
    names = (f"{n:08d}" for n in range(1, 1000))
    return [n for n in names if split_of(n, nih_chest_xray.SHARES) == split][:number]


def ids_of(split: str, number: int) -> list[str]:
    """Return the first ids that RSNA's hash puts into a split."""
    names = (f"id{n}" for n in range(1000))
    return [n for n in names if split_of(n, rsna_pneumonia.SHARES) == split][:number]


def write_film(path: Path, mode: str = "L", side: int = SIDE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (side, side)).save(path, compress_level=1)
    return path


def write_nih(
    root: Path, rows: list[str], *, header: str = BOX_HEADER, folder: str = "images"
) -> Path:
    """Write the box file, and a film for each image that it names."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "BBox_List_2017.csv").write_bytes((header + "\n".join(rows) + "\n").encode())
    for name in {row.split(",")[0] for row in rows}:
        write_film(root / folder / name)
    return root


def write_entries(root: Path, findings: dict[str, str]) -> None:
    """Write the file of all films, and the films."""
    rows = [f"{name},{found},0,1,57,M,PA,2682,2749,0.143,0.143" for name, found in findings.items()]
    (root / "Data_Entry_2017_v2020.csv").write_text(ENTRY_HEADER + "\n".join(rows) + "\n")
    for name in findings:
        write_film(root / "images_001" / "images" / name)


def write_rsna(root: Path, rows: list[str], details: list[str] | None = None) -> Path:
    """Write the label file, and a film for each patient that it names."""
    images = root / "stage_2_train_images"
    images.mkdir(parents=True, exist_ok=True)
    (root / "stage_2_train_labels.csv").write_text(LABEL_HEADER + "\n".join(rows) + "\n")
    if details is not None:
        text = "patientId,class\n" + "\n".join(details) + "\n"
        (root / "stage_2_detailed_class_info.csv").write_text(text)
    film = np.zeros((SIDE, SIDE), np.uint8)
    for name in {row.split(",")[0] for row in rows}:
        write_dicom(images / f"{name}.dcm", film)
    return root
