"""Write sample films as RSNA's pneumonia challenge has them: DICOM with JPEG inside, and tables."""

from __future__ import annotations

import io
import uuid
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
from numpy.random import PCG64, Generator, SeedSequence
from PIL import Image
from pydicom.dataelem import DataElement
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage, generate_uid

from ..rsna_pneumonia import DETAIL_FILE, IMAGE_FOLDER, LABEL_FILE, SHARES
from ..split import split_of
from .chest import DIFFICULTIES, RSNA_NUMBER, make_rsna_film
from .layout import (
    JPEG_QUALITY,
    DifficultyTable,
    Request,
    SampleImage,
    Written,
    labels_of,
    write_text,
)

SPLITS = ("train", "val")
TEST_FOLDER = "stage_2_test_images"
# Films without labels, for each with one; as in the release.
UNLABELLED = 3000 / 26684
LABEL_HEADER = "patientId,x,y,width,height,Target\n"
DETAIL_HEADER = "patientId,class\n"
SUBMISSION = "stage_2_sample_submission.csv"
_SPACINGS = ("0.139", "0.143", "0.168", "0.171", "0.194311")


def write_rsna_pneumonia(out: Path, request: Request) -> Written:
    """Write films of patients that the reader's hash puts into train and val; 77 % are negative.

    The folder of test images, which comes without labels, has a ninth as many.
    """
    table = DifficultyTable()
    make = partial(
        make_rsna_film,
        seed=request.seed,
        size=request.size,
        difficulty=DIFFICULTIES[request.difficulty],
    )
    images = []
    for number, split, index in request.images(SPLITS):
        scene = make(split_number=number, index=index)
        name = _patient_id(request.seed, number, index, split)
        path = out / IMAGE_FOLDER / f"{name}.dcm"
        _write_dicom(path, scene.image)
        table.add(split, name, scene)
        size = scene.image.shape
        images.append(SampleImage(split, name, path, size, labels_of(scene), name, scene.kind))
    table.write(out)
    _write_details(out / DETAIL_FILE, images)
    _write_test(out, request, make)
    label_file = out / LABEL_FILE
    return Written(images, partial(_write_labels, label_file), lambda image: label_file)


def _patient_id(seed: int, split_number: int, index: int, split: str | None) -> str:
    """Return the first id, of those drawn for an image, that the reader puts into its split."""
    sequence = SeedSequence([RSNA_NUMBER, seed, split_number, index, 1])
    rng = Generator(PCG64(sequence))
    while True:
        name = str(uuid.UUID(bytes=rng.bytes(16), version=4))
        if split is None or split_of(name, SHARES) == split:
            return name


def _write_test(out: Path, request: Request, make: partial) -> None:
    count = max(1, round(UNLABELLED * sum(request.counts[split] for split in SPLITS)))
    names = []
    for index in range(count):
        names.append(_patient_id(request.seed, len(SPLITS), index, None))
        scene = make(split_number=len(SPLITS), index=index)
        _write_dicom(out / TEST_FOLDER / f"{names[-1]}.dcm", scene.image)
    rows = "".join(f"{name},0.5 0 0 100 100\n" for name in names)
    write_text(out / SUBMISSION, "patientId,PredictionString\n" + rows)


def _write_labels(path: Path, images: list[SampleImage]) -> None:
    rows = []
    for image in images:
        for label in image.labels:
            rows.append(f"{image.name},{','.join(map(str, label.xywh))},1\n")
        if not image.labels:
            rows.append(f"{image.name},,,,,0\n")
    write_text(path, LABEL_HEADER + "".join(rows))


def _write_details(path: Path, images: list[SampleImage]) -> None:
    """Write the detailed classes: as in the release, one row a row of the label file."""
    rows = [f"{image.name},{image.kind}\n" * max(1, len(image.labels)) for image in images]
    write_text(path, DETAIL_HEADER + "".join(rows))


def _write_dicom(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dicom_film(path.stem, pixels).save_as(path, enforce_file_format=True)


def dicom_film(name: str, pixels: np.ndarray) -> FileDataset:
    """Return a film as the release stores it: JPEG baseline, 8 bits, no window, no rescale.

    Args:
        name: the patient's id, which everything else about the patient follows from.
        pixels: (H, W) uint8.
    """
    instance, study, series = (generate_uid(entropy_srcs=[name, part]) for part in "isr")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    film = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    film.SpecificCharacterSet = "ISO_IR 100"
    film.SOPClassUID, film.SOPInstanceUID = SecondaryCaptureImageStorage, instance
    film.StudyInstanceUID, film.SeriesInstanceUID = study, series
    film.StudyDate, film.StudyTime, film.AccessionNumber = "19010101", "000000.00", ""
    film.Modality, film.ConversionType = "CR", "WSD"
    _describe(film, name)
    film.StudyID, film.SeriesNumber, film.InstanceNumber, film.PatientOrientation = "", 1, 1, ""
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.Rows, film.Columns = pixels.shape
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 8, 8, 7, 0
    film.LossyImageCompression, film.LossyImageCompressionMethod = "01", "ISO_10918_1"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    film.PixelData = encapsulate([buffer.getvalue()])
    film["PixelData"].VR = "OB"
    return film


def _describe(film: FileDataset, name: str) -> None:
    """Say whose film it is, the way the release does."""
    number = int(name[:8], 16)
    film.PatientID = film.PatientName = name
    film.PatientBirthDate, film.PatientSex = "", "MF"[number % 2]
    # Not DICOM's "051Y" but bare digits, which pydicom would warn of.
    age = f"{20 + number % 60}"
    film.add(DataElement("PatientAge", "AS", age, validation_mode=pydicom.config.IGNORE))
    film.BodyPartExamined = "CHEST"
    film.ViewPosition = ("PA", "AP")[number // 2 % 2]
    film.SeriesDescription = f"view: {film.ViewPosition}"
    spacing = _SPACINGS[number // 4 % len(_SPACINGS)]
    film.PixelSpacing = [spacing, spacing]
