"""A page of a TIFF is read without the other pages, and is the same as with them."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from ulga_d2.data import image, image_header
from ulga_d2.data.image import count_frames, read_image
from ulga_d2.data.image_header import image_facts
from ulga_d2.data.tiff import TiffFile
from ulga_d2.errors import UserError

RNG = np.random.default_rng(5)
RGB = [Image.fromarray(RNG.integers(0, 256, (40, 56, 3), np.uint8)) for _ in range(3)]
DEEP = [Image.fromarray(RNG.integers(0, 2**16, (40, 56), np.uint16)) for _ in range(3)]
CMYK = [page.convert("CMYK") for page in RGB]
KINDS = {
    "grey": ([page.convert("L") for page in RGB], {}),
    "bilevel": ([page.convert("1") for page in RGB], {"compression": "group4"}),
    "palette": ([page.quantize(16) for page in RGB], {"compression": "packbits"}),
    "rgb": (RGB, {}),
    "rgba": ([page.convert("RGBA") for page in RGB], {"compression": "tiff_adobe_deflate"}),
    "strips": (RGB, {"compression": "tiff_lzw", "strip_size": 1000}),
    "predictor": (RGB, {"compression": "tiff_lzw", "tiffinfo": {317: 2}}),
    "jpeg": (RGB, {"compression": "jpeg"}),
    "cmyk": (CMYK, {"compression": "tiff_lzw"}),
    "deep": (DEEP, {}),
    "deep_deflate": (DEEP, {"compression": "tiff_adobe_deflate"}),
    "big": (RGB, {"big_tiff": True, "compression": "tiff_lzw"}),
    "turned": (RGB, {"tiffinfo": {274: 6}}),
}


def stack(path: Path, pages: list[Image.Image], **options: object) -> str:
    pages[0].save(path, "TIFF", save_all=True, append_images=pages[1:], **options)
    return str(path)


class Counted(io.FileIO):
    """A file that adds up the bytes that are read of it."""

    total = 0

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        Counted.total += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:
        count = super().readinto(buffer)
        Counted.total += count
        return count


@pytest.fixture
def bytes_read(monkeypatch):
    """Return what calls a function and gives the bytes that it reads of image files."""
    for module in (image, image_header):
        monkeypatch.setattr(module, "open_image_file", Counted)

    def count(call, *args: object) -> int:
        Counted.total = 0
        call(*args)
        return Counted.total

    return count


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_alone_has_the_pixels_that_pillow_finds_among_all(tmp_path, kind):
    pages, options = KINDS[kind]
    path = stack(tmp_path / "stack.tif", pages, **options)
    with Image.open(path) as opened, open(path, "rb") as file:
        tiff = TiffFile(file, path)
        assert len(tiff.frames) == 3
        for page, expected in zip(tiff.frames, ImageSequence.Iterator(opened), strict=True):
            found = Image.open(io.BytesIO(tiff.page_alone(page)))
            assert len(tiff.page_alone(page)) < Path(path).stat().st_size * 0.6
            assert (found.n_frames, found.mode) == (1, expected.mode)
            assert Image.open(io.BytesIO(tiff.header_alone(page))).mode == expected.mode
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("kind", ["grey", "rgb", "strips", "jpeg", "deep", "big", "turned"])
def test_every_page_is_read_as_its_own(tmp_path, kind):
    pages, options = KINDS[kind]
    path = stack(tmp_path / "stack.tif", pages, **options)
    for number, page in enumerate(pages):
        alone = stack(tmp_path / "alone.tif", [page], **options)
        np.testing.assert_array_equal(read_image(path, frame=number), read_image(alone))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_the_frames_of_a_stack_are_read_once_all_in_all(tmp_path, bytes_read, compression):
    pages = [Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(200)]
    path = stack(tmp_path / "stack.tif", pages, compression=compression)
    size = Path(path).stat().st_size

    def read_all() -> None:
        assert count_frames(path) == 200
        for frame in range(200):
            assert read_image(path, frame=frame).shape == (64, 64, 3)

    assert bytes_read(read_all) < 1.5 * size


def test_a_stack_that_is_written_anew_is_read_anew(tmp_path):
    path = stack(tmp_path / "stack.tif", RGB)
    assert count_frames(path) == 3
    stack(tmp_path / "stack.tif", [*DEEP, *DEEP])
    assert count_frames(path) == 6
    np.testing.assert_allclose(
        read_image(path, frame=4)[..., 0], np.asarray(DEEP[1]) / 257, atol=1e-3
    )


def test_a_header_takes_no_pixels_and_an_image_its_own_once(tmp_path, bytes_read):
    pixels = RNG.integers(0, 256, (1000, 900, 3), np.uint8)
    for options in ({}, {"compression": "tiff_lzw"}):
        path = stack(tmp_path / "large.tif", [Image.fromarray(pixels)], **options)
        size = Path(path).stat().st_size
        assert bytes_read(image_facts, path) < 20_000
        assert size * 0.99 < bytes_read(read_image, path) < size * 1.05
        np.testing.assert_array_equal(read_image(path), pixels)


def test_lengths_that_are_wrong_leave_the_file_to_its_decoder(tmp_path):
    """Decoders make up for some, others they refuse: as they do with the file as it is."""
    path = stack(tmp_path / "stack.tif", RGB[:2])
    data = bytearray(Path(path).read_bytes())
    length = np.uint32(40 * 56 * 3).tobytes()
    assert data.count(length) == 2
    for wrong in (0, 1000, 2**24):
        changed = tmp_path / f"{wrong}.tif"
        changed.write_bytes(data.replace(length, np.uint32(wrong).tobytes()))
        with open(changed, "rb") as file:
            tiff = TiffFile(file, str(changed))
            assert len(tiff.page_alone(tiff.frames[1])) == len(data)


def test_a_directory_with_any_byte_damaged_is_read_or_refused(tmp_path):
    path = stack(tmp_path / "stack.tif", RGB[:2], compression="tiff_lzw")
    data = Path(path).read_bytes()
    with open(path, "rb") as file:
        start = TiffFile(file, path).frames[1].offset
    chance = random.Random(3)
    outcomes = set()
    for number in range(150):
        changed = bytearray(data)
        changed[chance.randrange(start, len(data))] = chance.randrange(256)
        damaged = tmp_path / f"{number}.tif"
        damaged.write_bytes(changed)
        try:
            outcomes.add(read_image(str(damaged), frame=1).ndim)
        except UserError as error:
            outcomes.add("refused" if str(damaged) in str(error) else str(error))
    assert outcomes == {3, "refused"}
