"""Damaged and hostile DICOM files are named, in bounded memory, and tell nothing of a patient."""

from __future__ import annotations

import logging
import traceback
import warnings

import numpy as np
import pydicom
import pytest
from dicom_files import SHIPPED, dicom_of, write_deflated_dicom, write_dicom, write_jpeg_dicom

from ulga_d2.data import dicom, dicom_file
from ulga_d2.data.image import count_frames, image_size, read_image
from ulga_d2.data.image_header import image_facts
from ulga_d2.errors import UserError

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (9, 14), np.uint8)
GREY12 = RNG.integers(0, 4096, (9, 14), np.uint16)
CANARY = "CANARY"


@pytest.mark.parametrize("share", [0.95, 0.5, 0.3])
@pytest.mark.parametrize("write", [write_dicom, write_jpeg_dicom, write_deflated_dicom])
def test_truncated_files_are_named(tmp_path, write, share):
    path = write(tmp_path / "half.dcm", RNG.integers(0, 256, (64, 64), np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"half\.dcm cannot be decoded .*fetch the file again"):
        read_image(str(path))


def test_a_file_without_pixels_says_so(tmp_path):
    dataset = dicom_of(GREY8)
    del dataset.PixelData
    dataset.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    with pytest.raises(UserError, match=r"report\.dcm cannot be decoded \(.*has no pixel data\)"):
        read_image(str(tmp_path / "report.dcm"))


def test_a_missing_codec_is_named_with_the_command_that_installs_it(monkeypatch):
    class Unavailable:
        is_available = False

    monkeypatch.setattr(dicom, "get_decoder", lambda syntax: Unavailable())
    message = r'compressed as JPEG Baseline .*; pip install "ulga_d2\[dicom\]"'
    with pytest.raises(UserError, match=message):
        read_image(str(SHIPPED / "SC_rgb_jpeg.dcm"))


def test_sizes_that_would_fill_the_memory_are_refused_before_decoding(tmp_path, monkeypatch):
    huge = write_dicom(tmp_path / "huge.dcm", GREY8, Rows=65535, Columns=65535)
    for read in (read_image, image_size):
        with pytest.raises(UserError, match=r"65,535 x 65,535 pixels, more than the 200,000,000"):
            read(str(huge))
    inside = write_jpeg_dicom(tmp_path / "inside.dcm", GREY8, Rows=8)
    with pytest.raises(UserError, match="says 14 x 8 pixels, the compressed image inside 14 x 9"):
        read_image(str(inside))
    deflated = write_deflated_dicom(tmp_path / "zip.dcm", np.zeros((999, 999), np.uint8))
    assert read_image(str(deflated)).shape == (999, 999, 3)
    monkeypatch.setattr(dicom_file, "MAX_INFLATED_BYTES", 500_000)
    for read in (read_image, image_size):
        with pytest.raises(UserError, match="inflates to more than 500,000 bytes"):
            read(str(deflated))


@pytest.mark.parametrize("write", [write_dicom, write_jpeg_dicom, write_deflated_dicom])
@pytest.mark.parametrize("stated", [3, 10**9])
def test_a_header_that_states_more_frames_than_there_are_is_refused(tmp_path, write, stated):
    source = write(tmp_path / "source.dcm", GREY8)
    dataset = pydicom.dcmread(source)
    dataset.NumberOfFrames = stated
    dataset.save_as(tmp_path / "many.dcm")
    message = rf"states {stated:,} frames, and its pixel data hold 1\); fetch the file again"
    with pytest.raises(UserError, match=message):
        count_frames(str(tmp_path / "many.dcm"))
    with pytest.raises(UserError, match=message):
        dicom.dataset_frames(dataset, "(DICOM dataset)")
    with pytest.raises(UserError, match=f"has {stated:,} frames or pages, and none is chosen"):
        read_image(str(tmp_path / "many.dcm"))
    with pytest.raises(UserError, match=r"states|damaged"):
        read_image(str(tmp_path / "many.dcm"), frame=2)


def test_frames_that_are_cut_off_are_counted(tmp_path):
    dataset = dicom_of(GREY12, NumberOfFrames=4)
    dataset.PixelData = GREY12.tobytes() * 4
    path = tmp_path / "cut.dcm"
    dataset.save_as(path, enforce_file_format=True)
    assert count_frames(str(path)) == 4
    path.write_bytes(path.read_bytes()[:-1])
    for read in (count_frames, lambda path: read_image(path, frame=0)):
        with pytest.raises(UserError, match="states 4 frames, and its pixel data hold 3"):
            read(str(path))


@pytest.mark.parametrize("allocated", [4, 12])
def test_bits_that_no_pixel_has_are_no_way_round_the_number_of_frames(tmp_path, allocated):
    bits = {"BitsAllocated": allocated, "BitsStored": 4, "NumberOfFrames": 10**9}
    path = write_dicom(tmp_path / "odd.dcm", GREY8, **bits)
    with pytest.raises(UserError, match="no usable size or bit depth"):
        count_frames(str(path))


PERSONAL = {"PatientName": CANARY, "PatientID": CANARY, "StudyDate": "19010203"}
BROKEN = [
    {},
    {"PhotometricInterpretation": CANARY},
    {"Rows": 0},
    {"NumberOfFrames": 2},
    {"Rows": 99},
    {"WindowCenter": 5, "WindowWidth": 0},
    {"StudyDate": CANARY},
    {"PatientBirthDate": CANARY},
]


@pytest.mark.parametrize("elements", BROKEN, ids=str)
@pytest.mark.parametrize("replaced", [b"", b"1.2.840.10008.1.2.1", b"14"])
def test_nothing_of_a_header_leaves_the_reader(tmp_path, caplog, capfd, elements, replaced):
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "x.dcm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = {"RescaleSlope": 1, "RescaleIntercept": "14"}
        write_dicom(path, GREY8, **PERSONAL | text | elements)
    if replaced:  # numbers and names of encodings that are no such thing
        path.write_bytes(
            path.read_bytes().replace(replaced, (CANARY * 4).encode()[: len(replaced)])
        )
    caplog.clear()
    capfd.readouterr()
    said = ""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for read in (read_image, image_facts):
            try:
                read(str(path))
            except UserError:
                said += traceback.format_exc()
    said += caplog.text + "".join(capfd.readouterr()) + "".join(str(w.message) for w in warned)
    assert CANARY not in said.replace(str(path), "") and "19010203" not in said


def test_damaged_files_end_in_pixels_or_in_a_user_error(tmp_path):
    sources = [
        write_dicom(tmp_path / "raw.dcm", GREY12, RescaleSlope=2, RescaleIntercept=-9),
        write_jpeg_dicom(tmp_path / "jpeg.dcm", GREY8),
        write_deflated_dicom(tmp_path / "zip.dcm", GREY8),
    ]
    rng = np.random.default_rng(1)
    outcomes = set()
    path = tmp_path / "mutated.dcm"
    for source in sources:
        data = np.frombuffer(source.read_bytes(), np.uint8)
        for _ in range(60):
            mutated = data.copy()
            places = rng.integers(132, len(data), 4)
            mutated[places] = rng.integers(0, 256, 4)
            path.write_bytes(mutated.tobytes())
            try:
                outcomes.add(read_image(str(path)).ndim)
            except UserError:
                outcomes.add("refused")
    assert outcomes == {3, "refused"}
