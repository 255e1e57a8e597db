"""DICOM files written for the tests, and those that pydicom brings along."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom.data
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    generate_uid,
)

SHIPPED = Path(pydicom.data.__file__).parent / "test_files"


def shipped_files() -> dict[str, Path]:
    """Return the DICOM files of pydicom's wheel by their path in it."""
    files = sorted(path for path in SHIPPED.rglob("*") if path.is_file())
    return {
        path.relative_to(SHIPPED).as_posix(): path
        for path in files
        if path.read_bytes()[128:132] == b"DICM"
    }


def dicom_of(pixels: np.ndarray, **elements: object) -> FileDataset:
    """Return a data set with grey or RGB pixels, uncompressed; `elements` come last."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["ulga_d2"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    return dataset


def write_dicom(path: Path, pixels: np.ndarray, **elements: object) -> Path:
    """Write an uncompressed file."""
    dicom_of(pixels, **elements).save_as(path, enforce_file_format=True)
    return path


def write_jpeg_dicom(path: Path, pixels: np.ndarray, **elements: object) -> Path:
    """Write a file with a baseline JPEG inside."""
    dataset = dicom_of(pixels, **elements)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    dataset.PixelData = encapsulate([buffer.getvalue()])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_deflated_dicom(path: Path, pixels: np.ndarray) -> Path:
    """Write a file whose data set is deflated as a whole."""
    dataset = dicom_of(pixels)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path
