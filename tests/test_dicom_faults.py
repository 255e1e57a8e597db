"""DICOM with odd or missing elements is read, or the message names the file and the element."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import dicom_of, write_dicom
from hostile_images import deflated_dicom, repeated
from pydicom.dataset import FileDataset
from pydicom.pixels import apply_rescale
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ulga_d2.data.image import count_frames, image_size, read_image
from ulga_d2.data.intensity import Intensity
from ulga_d2.errors import UserError

RNG = np.random.default_rng(0)
GREY12 = RNG.integers(0, 4096, (9, 14)).astype(np.uint16)
RGB = RNG.integers(0, 256, (9, 14, 3), np.uint8)
BITS = {"BitsStored": 12, "HighBit": 11}


def write_raw(path: Path, pixels: np.ndarray, **elements: str) -> str:
    """Write a file with decimal strings that pydicom would not write."""
    marks = {name: f"{'9' * (15 - number)}" for number, name in enumerate(elements)}
    data = write_dicom(path, pixels, **BITS, **marks).read_bytes()
    for name, text in elements.items():
        mark = (marks[name] + " ").encode()[: len(marks[name]) + len(marks[name]) % 2]
        assert data.count(mark) == 1
        data = data.replace(mark, text.encode().ljust(len(mark)))
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"RescaleSlope": "0", "RescaleIntercept": "1"}, "its RescaleSlope is 0"),
        ({"RescaleSlope": "NaN", "RescaleIntercept": "1"}, "its RescaleSlope is not finite"),
        ({"RescaleSlope": "1e999", "RescaleIntercept": "1"}, "its RescaleSlope is not finite"),
        ({"RescaleSlope": "1e-320", "RescaleIntercept": "0"}, "its RescaleSlope is too small"),
        ({"RescaleSlope": "1e-9", "RescaleIntercept": "1e9"}, "its RescaleSlope is too small"),
        (
            {"RescaleSlope": "1e308", "RescaleIntercept": "0"},
            "RescaleSlope or .* too large",
        ),
        (
            {"RescaleSlope": "1", "RescaleIntercept": "1e308"},
            "RescaleSlope or .* too large",
        ),
        ({"RescaleSlope": "1", "RescaleIntercept": "-inf"}, "its RescaleIntercept is not finite"),
        ({"RescaleSlope": "two", "RescaleIntercept": "0"}, "its RescaleSlope is no number"),
        ({"RescaleSlope": "2"}, "only one of RescaleSlope and RescaleIntercept"),
        ({"RescaleIntercept": "2"}, "only one of RescaleSlope and RescaleIntercept"),
    ],
    ids=str,
)
def test_rescale_values_that_are_none_are_named_whatever_the_intensity(tmp_path, elements, message):
    path = write_raw(tmp_path / "a.dcm", GREY12, **elements)
    for intensity in (Intensity(), Intensity("window", 0, 99), Intensity("percentile", 1, 99)):
        with pytest.raises(UserError, match=rf"a\.dcm cannot be decoded \(.*{message}"):
            read_image(path, intensity)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (
            {"WindowCenter": "40", "WindowWidth": "0"},
            "its WindowWidth is 0, and must be",
        ),
        (
            {"WindowCenter": "40", "WindowWidth": "-9"},
            "its WindowWidth is -9, and must be",
        ),
        ({"WindowCenter": "40", "WindowWidth": "nan"}, "its WindowWidth is not finite"),
        ({"WindowCenter": "inf", "WindowWidth": "9"}, "its WindowCenter is not finite"),
        ({"WindowCenter": "40"}, "only one of WindowCenter and WindowWidth"),
        ({"WindowWidth": "40"}, "only one of WindowCenter and WindowWidth"),
    ],
    ids=str,
)
def test_windows_that_show_nothing_are_named_and_no_part_of_another_intensity(
    tmp_path, elements, message
):
    path = write_raw(tmp_path / "a.dcm", GREY12, **elements)
    with pytest.raises(UserError, match=rf"a\.dcm .*{message}.*; INPUT\.INTENSITY window or perce"):
        read_image(path)
    shown = read_image(path, Intensity("window", 0, 4095))[..., 0]
    assert np.abs(shown - GREY12 * (255 / 4095)).max() <= 1e-4


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("Rows", GREY12),
        ("SamplesPerPixel", GREY12),
        ("BitsAllocated", GREY12),
        ("BitsStored", GREY12),
        ("PixelRepresentation", GREY12),
        ("PhotometricInterpretation", GREY12),
        ("PlanarConfiguration", RGB),
    ],
)
def test_a_missing_element_is_named(tmp_path, name, pixels):
    dataset = dicom_of(pixels)
    delattr(dataset, name)
    path = str(tmp_path / "a.dcm")
    dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(UserError, match=rf"a\.dcm cannot be decoded \(.*lacks {name}\b"):
        read_image(path)


def test_an_element_of_a_wrong_length_is_named(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", GREY12)
    whole, short = b"\x28\0\x03\x01US\x02\0\0\0", b"\x28\0\x03\x01US\x01\0\0"
    assert path.read_bytes().count(whole) == 1
    path.write_bytes(path.read_bytes().replace(whole, short))
    with pytest.raises(UserError, match=r"a\.dcm .*its PixelRepresentation cannot be read"):
        read_image(str(path))


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("meta", [True, False])
def test_a_file_without_preamble_is_read_as_the_one_with_it(tmp_path, implicit, meta):
    if meta and implicit:
        pytest.skip("file meta information names the transfer syntax")
    dataset = dicom_of(GREY12, **BITS)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    whole, bare = tmp_path / "whole.dcm", tmp_path / "bare.dcm"
    dataset.save_as(whole, enforce_file_format=True)
    if meta:
        bare.write_bytes(whole.read_bytes()[132:])
    else:
        plain = FileDataset(None, dataset)
        plain.save_as(bare, implicit_vr=implicit, little_endian=True)
    assert bare.read_bytes()[128:132] != b"DICM"
    assert image_size(str(bare)) == (9, 14) and count_frames(str(bare)) == 1
    np.testing.assert_array_equal(read_image(str(bare)), read_image(str(whole)))


@pytest.mark.parametrize("code", ["f4", "f8"])
def test_float_pixels_need_a_range_and_are_then_read_with_their_rescaling(tmp_path, code):
    pixels = RNG.uniform(-3, 40, (9, 14)).astype(code)
    dataset = dicom_of(GREY12, RescaleSlope=2, RescaleIntercept=-1)
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, name)
    dataset.BitsAllocated = 8 * pixels.itemsize
    name = "FloatPixelData" if code == "f4" else "DoubleFloatPixelData"
    setattr(dataset, name, pixels.tobytes())
    path = str(tmp_path / "a.dcm")
    dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(
        UserError, match=r"a\.dcm has float\d\d pixels, whose range is not declared"
    ):
        read_image(path)
    theirs = apply_rescale(pydicom.dcmread(path).pixel_array, dataset)
    for intensity in (Intensity("window", 0, 60), Intensity("percentile", 5, 90)):
        ends = (0, 60) if intensity.kind == "window" else np.percentile(theirs, (5, 90))
        expected = 255 * np.clip((theirs - ends[0]) / (ends[1] - ends[0]), 0, 1)
        assert np.abs(read_image(path, intensity)[..., 0] - expected).max() <= 1e-3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_float_pixels_that_are_not_finite_are_named(tmp_path, value):
    pixels = np.full((9, 14), value, np.float32)
    dataset = dicom_of(GREY12)
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, name)
    dataset.BitsAllocated, dataset.FloatPixelData = 32, pixels.tobytes()
    path = str(tmp_path / "a.dcm")
    dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(UserError, match=r"a\.dcm has pixels that are not finite"):
        read_image(path, Intensity("window", 0, 60))


CHILD = """
import sys
import ulga_d2.data.dicom
from ulga_d2.data.image import read_image
from ulga_d2.errors import UserError

def peak():
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

before = peak()
try:
    print("read", read_image(sys.argv[1]).shape)
except UserError as error:
    print(error)
print(peak() - before)
"""


def in_child(path: Path) -> tuple[str, int]:
    """Return what reading a file in a process of its own says, and the memory that it takes."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    said, memory = child.stdout.splitlines()
    return said, int(memory)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc of Linux")
def test_a_long_file_meta_group_does_not_hide_that_a_file_is_deflated(tmp_path):
    bomb = tmp_path / "bomb.dcm"
    bomb.write_bytes(deflated_dicom(repeated(bytes(2**20), 2000), meta=100_000))
    assert bomb.stat().st_size < 4e6
    said, memory = in_child(bomb)
    assert re.search(r"bomb\.dcm .*it inflates to more than 300,000,000 bytes", said)
    assert memory < 750e6


def test_a_deflated_file_with_a_long_file_meta_group_is_read(tmp_path):
    path = tmp_path / "a.dcm"
    dataset = dicom_of(GREY12, **BITS)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.file_meta.PrivateInformationCreatorUID = "1.2.3"
    dataset.file_meta.PrivateInformation = bytes(100_000)
    dataset.save_as(path, enforce_file_format=True)
    assert struct.unpack("<I", path.read_bytes()[140:144])[0] > 100_000
    expected = GREY12[..., None] * (255 / 4095)
    assert np.abs(read_image(str(path)) - expected).max() <= 1e-4
