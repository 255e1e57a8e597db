"""DICOM: pydicom's own results on all its files, and the order of tables, window and inversion."""

from __future__ import annotations

import io
import re
import shutil
import tracemalloc
import warnings

import numpy as np
import pydicom
import pytest
from dicom_files import dicom_of, shipped_files, write_dicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from ulga_d2.data import image_file
from ulga_d2.data.image import count_frames, image_size, read_image
from ulga_d2.data.image_header import image_facts, stored_size
from ulga_d2.data.intensity import Intensity
from ulga_d2.errors import UserError

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (9, 14), np.uint8)
GREY12 = RNG.integers(0, 4096, (9, 14), np.uint16)
HOUNSFIELD = {"RescaleSlope": 2, "RescaleIntercept": -1024}

# What pydicom ships and nobody reads as an image, by what the error says.
NO_SIZE = "no usable size or bit depth"
UNREADABLE = {
    "JPEG-lossy.dcm": "need another codec",
    "JPGExtended.dcm": "need another codec",
    "JPEG2000-embedded-sequence-delimiter.dcm": "the compressed image inside 3722445056 x 1024",
    "MR_truncated.dcm": r"truncated: 8,130 of 8,192 bytes",
    "SC_rgb_rle_2frame.dcm": "2 frames",
    "SC_rgb_rle_16bit_2frame.dcm": "2 frames",
    "SC_rgb_rle_32bit_2frame.dcm": "2 frames",
    "rtdose.dcm": "15 frames",
    "rtdose_expb.dcm": "15 frames",
    "rtdose_rle.dcm": "15 frames",
    "examples_ybr_color.dcm": "30 frames",
    "UN_sequence.dcm": NO_SIZE,
    "badVR.dcm": NO_SIZE,
    "empty_charset_LEI.dcm": NO_SIZE,
    "meta_missing_tsyntax.dcm": NO_SIZE,
    "nested_priv_SQ.dcm": NO_SIZE,
    "no_meta_group_length.dcm": NO_SIZE,
    "priv_SQ.dcm": NO_SIZE,
    "reportsi.dcm": NO_SIZE,
    "reportsi_with_empty_number_tags.dcm": NO_SIZE,
    "rtplan.dcm": NO_SIZE,
    "rtplan_truncated.dcm": NO_SIZE,
    "test-SR.dcm": NO_SIZE,
    "waveform_ecg.dcm": NO_SIZE,
    **{name: NO_SIZE for name in shipped_files() if re.search("DICOMDIR|TINY_ALPHA", name)},
}
# Read with the extra `dicom` alone.
NEEDS_A_CODEC = {
    "GDCMJ2K_TextGBR.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jls_lossy_sample.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
}


def by_pydicom(path) -> tuple[np.ndarray, tuple[float, float]]:
    """Return what pydicom makes of a file, and the ends of its range, black first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        pixels = pydicom.pixels.pixel_array(dataset)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            return apply_color_lut(pixels, dataset), (0, 65535)
        lowest = -(2 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
        ends = np.array([lowest, lowest + 2**dataset.BitsStored - 1])
        if dataset.SamplesPerPixel == 1:
            ends = apply_modality_lut(ends, dataset)
            pixels = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            ends = ends[::-1]
    return pixels.astype(np.float64), (float(ends[0]), float(ends[1]))


def test_every_file_that_pydicom_ships_equals_its_lut_result_or_is_listed_with_the_reason():
    equal = 0
    for name, path in shipped_files().items():
        try:
            ours = read_image(str(path))
        except UserError as error:
            codec = "pip install" if name in NEEDS_A_CODEC else None
            assert re.search(UNREADABLE.get(name, codec) or "nothing", str(error)), error
            continue
        assert name not in UNREADABLE
        theirs, (black, white) = by_pydicom(path)
        expected = np.clip((theirs - black) / (white - black), 0, 1) * 255
        expected = expected if expected.ndim == 3 else expected[..., None]
        assert np.abs(ours - expected).max() <= 1e-4, name
        assert image_size(str(path)) == stored_size(str(path)) == ours.shape[:2]
        equal += 1
    assert equal >= len(shipped_files()) - len(UNREADABLE) - len(NEEDS_A_CODEC) == 74


def test_every_frame_that_pydicom_ships_equals_the_one_of_all_frames_together():
    read = set()
    for name in (name for name, reason in UNREADABLE.items() if reason.endswith(" frames")):
        path = shipped_files()[name]
        theirs, (black, white) = by_pydicom(path)
        assert count_frames(str(path)) == len(theirs)
        assert f"{len(theirs)} frames" == UNREADABLE[name]
        for frame, pixels in enumerate(theirs):
            expected = np.clip((pixels - black) / (white - black), 0, 1) * 255
            expected = expected if expected.ndim == 3 else expected[..., None]
            assert np.abs(read_image(str(path), frame=frame) - expected).max() <= 1e-4, name
        with pytest.raises(UserError, match=rf"frames, and no frame {len(theirs)}"):
            read_image(str(path), frame=len(theirs))
        read.add(name)
    assert len(read) == 7


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [
        ("bits", ImplicitVRLittleEndian),
        ("odd size", ImplicitVRLittleEndian),
        ("odd size", ExplicitVRBigEndian),
        ("color", ExplicitVRBigEndian),
    ],
)
def test_frames_that_no_byte_or_word_separates_are_told_apart(tmp_path, syntax, kind):
    shape = {"color": (3, 9, 15, 3), "odd size": (3, 9, 15), "bits": (3, 10, 10)}[kind]
    frames = RNG.integers(0, 2 if kind == "bits" else 256, shape, np.uint8)
    dataset = dicom_of(frames[0], NumberOfFrames=3)
    data = frames.tobytes() + b"\0"
    if kind == "bits":
        dataset.BitsAllocated = dataset.BitsStored = 1
        dataset.HighBit = 0
        data = np.packbits(frames, bitorder="little").tobytes() + b"\0"
    if syntax == ExplicitVRBigEndian:
        data = np.frombuffer(data[: len(data) // 2 * 2], "<u2").astype(">u2").tobytes()
    dataset.PixelData = data[: len(data) // 2 * 2]
    dataset["PixelData"].VR = "OW"
    dataset.file_meta.TransferSyntaxUID = syntax
    little = syntax == ImplicitVRLittleEndian
    path = tmp_path / "many.dcm"
    pydicom.dcmwrite(path, dataset, implicit_vr=little, little_endian=little)
    scale = 255 if kind == "bits" else 1
    for number, frame in enumerate(frames):
        expected = (frame if kind == "color" else frame[..., None]) * scale
        pixels = read_image(str(path), frame=number)
        np.testing.assert_array_equal(pixels, np.broadcast_to(expected, pixels.shape))


def many_frames(path, side: int, *, compressed: bool) -> str:
    """Write 2,000 frames, all black but the last."""
    frame = np.zeros((side, side), np.uint8)
    dataset = dicom_of(frame, NumberOfFrames=2000)
    if compressed:
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        black, white = (Image.fromarray(frame + level) for level in (np.uint8(0), np.uint8(255)))
        encoded = [io.BytesIO(), io.BytesIO()]
        black.save(encoded[0], "JPEG")
        white.save(encoded[1], "JPEG")
        frames = [encoded[0].getvalue()] * 1999 + [encoded[1].getvalue()]
        dataset.PixelData = encapsulate(frames, has_bot=False)
    else:
        dataset.PixelData = bytes(1999 * frame.size) + b"\xff" * frame.size
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)
    return str(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_one_frame_of_many_needs_the_memory_of_one(tmp_path, compressed):
    side = 400 if compressed else 100  # 320 MB decoded, 20 MB as stored
    path = many_frames(tmp_path / "many.dcm", side, compressed=compressed)
    read_image(path, frame=0)  # what is imported on the way
    limit = 2e6 + compressed * 2 * (tmp_path / "many.dcm").stat().st_size
    assert limit < 16e6
    tracemalloc.start()
    try:
        assert count_frames(path) == 2000
        assert (read_image(path, frame=1999) == 255).all()
        assert (read_image(path, frame=1998) == 0).all()
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def test_the_limit_of_pixels_is_that_of_a_frame(tmp_path, monkeypatch):
    path = many_frames(tmp_path / "many.dcm", 20, compressed=False)
    monkeypatch.setattr(image_file, "MAX_PIXELS", 400)
    assert count_frames(path) == 2000
    assert read_image(path, frame=1).shape == (20, 20, 3)
    monkeypatch.setattr(image_file, "MAX_PIXELS", 399)
    path = shutil.copy(path, tmp_path / "again.dcm")  # of the last file the header is kept
    for read in (count_frames, lambda path: read_image(path, frame=1)):
        with pytest.raises(UserError, match="says that it has 20 x 20 pixels, more than the 399"):
            read(str(path))


def test_dicom_is_known_by_its_content_and_8_bits_stay_as_they_are(tmp_path):
    path = write_dicom(tmp_path / "scan.png", GREY8)
    pixels = read_image(str(path))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.repeat(GREY8[..., None], 3, 2))
    facts = image_facts(str(path))
    assert (facts.format, facts.mode, facts.bits) == ("DICOM", "MONOCHROME2", 8)


def test_monochrome1_is_inverted_against_the_stored_range(tmp_path):
    dark = GREY12 // 4  # the range must not be taken from the image
    turned = {"PhotometricInterpretation": "MONOCHROME1"}
    path = write_dicom(tmp_path / "a.dcm", dark, BitsStored=12, HighBit=11, **turned)
    expected = (4095 - dark.astype(np.float64)) * (255 / 4095)
    assert np.abs(read_image(str(path))[..., 0] - expected).max() <= 1e-4
    path = write_dicom(tmp_path / "b.dcm", GREY8, **turned)
    np.testing.assert_array_equal(read_image(str(path))[..., 0], 255 - GREY8)


@pytest.mark.parametrize("monochrome", [1, 2])
def test_a_window_counts_after_the_modality_lut_and_before_the_inversion(tmp_path, monochrome):
    stored = RNG.integers(-200, 1200, (9, 14)).astype(np.int16)
    own = {"WindowCenter": 5, "WindowWidth": 9}
    photometric = f"MONOCHROME{monochrome}"
    path = tmp_path / "ct.dcm"
    write_dicom(path, stored, PhotometricInterpretation=photometric, **HOUNSFIELD, **own)
    share = np.clip((stored * 2.0 - 1024 + 160) / 400, 0, 1)
    expected = 255 * (share if monochrome == 2 else 1 - share)
    pixels = read_image(str(path), Intensity("window", -160, 240))
    assert pixels.dtype == np.float32 and np.abs(pixels[..., 0] - expected).max() <= 1e-4


def test_the_files_own_window_counts_with_full_alone(tmp_path):
    own = {"WindowCenter": 2000, "WindowWidth": 1000, "BitsStored": 12, "HighBit": 11}
    path = str(write_dicom(tmp_path / "w.dcm", GREY12, **own))
    cut = (read_image(path) == 255).mean()
    assert cut == pytest.approx((GREY12 >= 2500).mean(), abs=0.02)
    everything = read_image(path, Intensity("window", 0, 4095))
    assert np.abs(everything[..., 0] - GREY12 * (255 / 4095)).max() <= 1e-4


@pytest.mark.parametrize("monochrome", [1, 2])
def test_padding_is_black_and_no_part_of_the_percentiles(tmp_path, monochrome):
    stored = np.arange(400).reshape(20, 20).astype(np.int16)
    stored[:5] = -2000
    path = tmp_path / "p.dcm"
    photometric = f"MONOCHROME{monochrome}"
    write_dicom(path, stored, PhotometricInterpretation=photometric, PixelPaddingValue=-2000)
    pixels = read_image(str(path), Intensity("percentile", 10, 90))[..., 0]
    share = np.clip((stored[5:] - 129.9) / (369.1 - 129.9), 0, 1)
    assert (pixels[:5] == 0).all()
    assert np.abs(pixels[5:] - 255 * (share if monochrome == 2 else 1 - share)).max() <= 1e-3


def test_a_negative_slope_with_a_window_keeps_low_values_dark(tmp_path):
    negative = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    own = {"WindowCenter": 2000, "WindowWidth": 1001, "BitsStored": 12, "HighBit": 11}
    path = write_dicom(tmp_path / "n.dcm", GREY12, **negative, **own)
    expected = np.clip((4095.0 - GREY12 - 1999.5) / 1000 + 0.5, 0, 1) * 255
    assert np.abs(read_image(str(path))[..., 0] - expected).max() <= 1e-3
