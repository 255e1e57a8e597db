"""Stored values become the network's range: linear, cut off beyond, no level lost."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from ulga_d2.data.image import read_image
from ulga_d2.data.image_header import ImageFacts, image_facts
from ulga_d2.data.intensity import PIXEL_MAX, Intensity, StoredPixels, to_network
from ulga_d2.errors import UserError

GREY16 = np.arange(65536, dtype=np.uint16).reshape(256, 256)
FLOATS = np.linspace(-3, 7, 600).astype(np.float32).reshape(20, 30)


def mapped(pixels: np.ndarray, intensity: Intensity) -> np.ndarray:
    return to_network(StoredPixels(pixels, None), intensity, "x.tif")


def test_a_window_is_linear_cut_off_and_keeps_every_level_in_between(tmp_path):
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), GREY16)
    pixels = read_image(str(path), Intensity("window", 1000, 3000))
    assert pixels.dtype == np.float32 and pixels.shape == (256, 256, 3)
    expected = np.clip((GREY16 - 1000.0) / 2000, 0, 1) * PIXEL_MAX
    np.testing.assert_allclose(pixels[..., 0], expected, rtol=1e-6, atol=1e-6)
    assert len(np.unique(pixels)) == 2001


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["window", "percentile"])
def test_each_number_type_gives_the_same_picture(dtype, kind):
    values = np.random.default_rng(0).integers(0, 120, (20, 30))
    low, high = (5, 100) if kind == "window" else np.percentile(values, (2, 98))
    intensity = Intensity(kind, *((5, 100) if kind == "window" else (2, 98)))
    expected = np.clip((values - low) / (high - low), 0, 1) * PIXEL_MAX
    pixels = mapped(values.astype(dtype), intensity)
    assert pixels.dtype == np.float32
    assert np.abs(pixels[..., 0] - expected).max() <= 1e-4


def test_colours_share_one_range_so_that_their_hue_stays():
    pixels = np.array([[[10, 20, 30], [40, 50, 60]]], np.uint8)
    np.testing.assert_allclose(
        mapped(pixels, Intensity("percentile", 0, 100)), (pixels - 10.0) * 5.1, atol=1e-4
    )


def test_an_image_of_one_value_is_black_under_percentiles():
    assert (mapped(np.full((4, 4), 7, np.uint8), Intensity("percentile", 1, 99)) == 0).all()


def test_numbers_that_are_not_finite_are_named():
    pixels = FLOATS.copy()
    pixels[3, 3] = np.nan
    with pytest.raises(UserError, match=r"x\.tif has pixels that are not finite"):
        mapped(pixels, Intensity("window", 0, 1))


def test_a_file_without_a_declared_range_needs_one(tmp_path):
    path = tmp_path / "float.tif"
    Image.fromarray(FLOATS).save(path)
    with pytest.raises(UserError, match=r"float\.tif has float32 pixels.*set INPUT\.INTENSITY"):
        read_image(str(path))
    pixels = read_image(str(path), Intensity("window", -3, 7))
    np.testing.assert_allclose(pixels[..., 0], (FLOATS + 3) * 25.5, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("widow",), "give full, window or percentile"),
        (("window", 5, 5), "the lower one first"),
        (("window", 0, float("inf")), "finite"),
        (("percentile", -1, 99), "between 0 and 100"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Intensity(*arguments)


def test_a_matlab_slice_goes_from_its_own_lowest_to_its_own_highest_value(tmp_path, monkeypatch):
    pixels = np.arange(-20, 40, dtype=np.int16).reshape(6, 10)
    reader = SimpleNamespace(mat_size=lambda path: (6, 10), read_mat_pixels=lambda path: pixels)
    monkeypatch.setitem(sys.modules, "ulga_d2.data.formats.cheng", reader)
    path = tmp_path / "1.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n")
    np.testing.assert_allclose(
        read_image(str(path))[..., 0], (pixels + 20) * (PIXEL_MAX / 59), atol=1e-4
    )
    assert image_facts(str(path)) == ImageFacts(6, 10, "L", "MAT", 16)
