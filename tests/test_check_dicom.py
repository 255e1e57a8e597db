"""What a DICOM header says of a patient reaches no report, picture, log or converted file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from dicom_files import write_dicom

from ulga_d2.cli.main import main

CANARY = {
    "PatientName": "Canary^Yellow",
    "PatientID": "CANARY77",
    "StudyDate": "19010203",
    "SeriesDescription": "canary song",
}
OWN = """
name: films
format: yolo
root: .
class_names: [opacity]
splits:
  train: {images: images, labels: labels}
"""


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Return the YAML of a set of DICOM files whose headers name a patient; one is cut short."""
    folder = tmp_path / "films"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 4096, (64, 64)).astype(np.uint16)
        write_dicom(folder / f"images/{number}.dcm", pixels, BitsStored=12, HighBit=11, **CANARY)
        (folder / f"labels/{number}.txt").write_text("0 0.5 0.5 0.234567 0.3\n")
    (folder / "own.yaml").write_text(OWN)
    return folder / "own.yaml"


def cut(films: Path) -> None:
    path = films.parent / "images/3.dcm"
    path.write_bytes(path.read_bytes()[:-3000])


def test_no_word_of_a_header_is_told(films, tmp_path, capsys, caplog):
    out = tmp_path / "out"
    assert main(["data", "convert", str(films), str(out / "copy"), "--to", "coco"]) == 0
    cut(films)
    assert main(["data", "check", str(films), "--out", str(out)]) == 1
    assert main(["data", "show", str(films), "--sheet", str(out / "sheet.png")]) == 0
    told = [*capsys.readouterr(), caplog.text]
    told += [path.read_bytes().decode("latin-1") for path in out.rglob("*") if path.is_file()]
    assert "1 images that cannot be decoded" in told[0] and "DICOM 4" in told[0]
    for word in ("canary", "19010203"):
        assert not any(word in text.lower() for text in told)


def test_a_converted_film_keeps_its_depth(films, tmp_path):
    assert main(["data", "convert", str(films), str(tmp_path / "copy"), "--to", "yolo"]) == 0
    image = cv2.imread(str(tmp_path / "copy/images/train/0.png"), cv2.IMREAD_UNCHANGED)
    pixels = np.random.default_rng(0).integers(0, 4096, (64, 64))
    assert image.dtype == np.uint16 and image.ndim == 2
    np.testing.assert_allclose(image, pixels * (65535 / 4095), atol=0.51)
