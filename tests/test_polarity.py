"""Where the lowest stored value is white: TIFF's WhiteIsZero and DICOM's MONOCHROME1."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_dicom
from PIL import Image

from ulga_d2.data.image import read_image, read_stored
from ulga_d2.data.intensity import Intensity
from ulga_d2.errors import UserError

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 8, 16
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1
# Bits and SampleFormat of every kind of grey TIFF that is read.
WHOLE = [*((bits, UNSIGNED) for bits in (1, 2, 4, 8, 10, 12, 14, 16)), (8, SIGNED), (16, SIGNED)]
WITHOUT_RANGE = [(32, UNSIGNED), (32, SIGNED), (32, FLOAT), (64, FLOAT)]


def samples(bits: int, kind: int) -> np.ndarray:
    """Return values that use the lower half of what the samples can hold, as a dark scene does."""
    if kind == FLOAT:
        return RNG.uniform(-3, 40, (HEIGHT, WIDTH)).astype(f"f{bits // 8}")
    low = -(2 ** (bits - 1)) if kind == SIGNED else 0
    return RNG.integers(low, low + max(2, 2**bits // 2), (HEIGHT, WIDTH))


def packed(values: np.ndarray, bits: int, order: str) -> bytes:
    if values.dtype.kind == "f" or bits >= 16:
        code = values.dtype.kind if values.dtype.kind == "f" else "u"
        values = values if code == "f" else values & (2**bits - 1)
        return values.astype(f"{order}{code}{bits // 8}").tobytes()
    whole = (values & (2**bits - 1)).astype(">u2").view(np.uint8).reshape(HEIGHT, WIDTH, 2)
    return np.packbits(np.unpackbits(whole, axis=2)[..., 16 - bits :].reshape(HEIGHT, -1)).tobytes()


def write_tiff(
    path: Path, values: np.ndarray, bits: int, kind: int, photometric: int, order: str = "<"
) -> str:
    """Write a grey TIFF of one strip, byte by byte."""
    data = packed(values, bits, order)
    tags = {256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: HEIGHT, 279: len(data), 339: kind}
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(data))
    entries = b"".join(
        struct.pack(order + "HHI", tag, 4, 1) + struct.pack(order + "I", value)
        if tag in (273, 279)
        else struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
        for tag, value in tags.items()
    )
    path.write_bytes(start + data + struct.pack(order + "H", len(tags)) + entries + bytes(4))
    return str(path)


def grey(path: str, *intensity: object) -> np.ndarray:
    """Return one channel of what the network is given."""
    pixels = read_image(path, Intensity(*intensity)) if intensity else read_image(path)
    return pixels[..., 0].astype(np.float64)


def shown(values: np.ndarray, low: float, high: float, *, turned: bool) -> np.ndarray:
    share = np.clip((values.astype(np.float64) - low) / (float(high) - float(low)), 0, 1)
    return 255 * (1 - share if turned else share)


@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
@pytest.mark.parametrize(("bits", "kind"), WHOLE)
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_lowest_value_of_a_tiff_is_white_where_it_says_so(
    tmp_path, photometric, bits, kind, order
):
    values = samples(bits, kind)
    path = write_tiff(tmp_path / "a.tif", values, bits, kind, photometric, order)
    low = -(2 ** (bits - 1)) if kind == SIGNED else 0
    turned = photometric == WHITE_IS_ZERO
    expected = shown(values, low, low + 2**bits - 1, turned=turned)
    assert np.abs(grey(path) - expected).max() <= 1e-4


@pytest.mark.parametrize(
    ("bits", "kind", "name"),
    [(9, UNSIGNED, "unsigned"), (12, SIGNED, "signed"), (16, FLOAT, "floating-point"), (16, 6, "")],
)
def test_samples_that_no_decoder_reads_right_are_named(tmp_path, bits, kind, name):
    values = RNG.integers(0, 2**bits, (HEIGHT, WIDTH))
    path = write_tiff(tmp_path / "a.tif", values, bits, kind, BLACK_IS_ZERO)
    with pytest.raises(UserError, match=rf"a\.tif .*{name} numbers of {bits} bits, which are not"):
        read_image(path)


@pytest.mark.parametrize("bits", [1, 8])
def test_pillow_shows_the_same_polarity(tmp_path, bits):
    path = write_tiff(tmp_path / "a.tif", samples(bits, UNSIGNED), bits, UNSIGNED, WHITE_IS_ZERO)
    np.testing.assert_array_equal(grey(path), np.asarray(Image.open(path).convert("L")))


@pytest.mark.parametrize("compression", [None, "group4", "tiff_lzw", "tiff_adobe_deflate"])
def test_compressed_bilevel_pages_keep_their_polarity(tmp_path, compression):
    page = Image.fromarray(samples(1, UNSIGNED).astype(bool))
    for photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        path = str(tmp_path / f"{photometric}.tif")
        page.save(path, compression=compression, tiffinfo={262: photometric})
        np.testing.assert_array_equal(grey(path), np.asarray(Image.open(path).convert("L")))


@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
@pytest.mark.parametrize(("bits", "kind"), [*WHOLE[3:], *WITHOUT_RANGE])
def test_windows_and_percentiles_of_a_tiff_are_those_of_its_stored_values(
    tmp_path, photometric, bits, kind
):
    values = samples(bits, kind)
    path = write_tiff(tmp_path / "a.tif", values, bits, kind, photometric)
    turned = photometric == WHITE_IS_ZERO
    low, high = np.percentile(values, (5, 60))
    expected = shown(values, low, high, turned=turned)
    for intensity in (("window", low, high), ("percentile", 5.0, 60.0)):
        assert np.abs(grey(path, *intensity) - expected).max() <= 1e-3
    np.testing.assert_array_equal(read_stored(path, own_window=True).pixels, values)


@pytest.mark.parametrize(("bits", "kind"), WITHOUT_RANGE)
def test_numbers_without_a_range_need_one_also_if_zero_is_white(tmp_path, bits, kind):
    path = write_tiff(tmp_path / "a.tif", samples(bits, kind), bits, kind, WHITE_IS_ZERO)
    with pytest.raises(UserError, match=rf"a\.tif has \w+{bits} pixels, whose range is not dec"):
        read_image(path)


@pytest.mark.parametrize("is_white", [True, False])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [True, False])
def test_monochrome1_is_white_at_its_lowest_value_at_every_depth(tmp_path, bits, signed, is_white):
    values = samples(bits, SIGNED if signed else UNSIGNED)
    pixels = values.astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    photometric = {"PhotometricInterpretation": f"MONOCHROME{1 if is_white else 2}"}
    stored = {"BitsStored": bits, "HighBit": bits - 1}
    path = str(write_dicom(tmp_path / "a.dcm", pixels, **photometric, **stored))
    least = -(2 ** (bits - 1)) if signed else 0
    full = shown(values, least, least + 2**bits - 1, turned=is_white)
    assert np.abs(grey(path) - full).max() <= 1e-4
    low, high = np.percentile(values, (5, 60))
    expected = shown(values, low, high, turned=is_white)
    for intensity in (("window", low, high), ("percentile", 5.0, 60.0)):
        assert np.abs(grey(path, *intensity) - expected).max() <= 1e-3
