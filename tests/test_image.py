"""Decoding: every mode, depth and rotation; damaged files are named."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from ulga_d2.data import image_file
from ulga_d2.data.image import count_frames, image_size, read_image
from ulga_d2.data.image_header import ImageFacts, image_facts
from ulga_d2.errors import UserError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (9, 14), np.uint8)
RGB = RNG.integers(0, 256, (9, 14, 3), np.uint8)
GREY16 = RNG.integers(0, 65536, (9, 14), np.uint16)
RGB16 = RNG.integers(0, 65536, (9, 14, 3), np.uint16)


def on_black(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.rint(rgb.astype(np.float32) * (alpha[..., None].astype(np.float32) / 255))


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def palette() -> Image.Image:
    return Image.fromarray(RGB).quantize(16)


def grey_alpha() -> Image.Image:
    return Image.merge("LA", [Image.fromarray(GREY)] * 2)


def cmyk() -> Image.Image:
    return Image.fromarray(np.dstack([RGB, GREY]), "RGBA").convert("CMYK")


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("L.png", lambda: Image.fromarray(GREY), three(GREY)),
        ("RGB.png", lambda: Image.fromarray(RGB), RGB),
        ("RGB.bmp", lambda: Image.fromarray(RGB), RGB),
        ("RGB.tif", lambda: Image.fromarray(RGB), RGB),
        ("RGBA.png", lambda: Image.fromarray(np.dstack([RGB, GREY])), on_black(RGB, GREY)),
        ("LA.png", grey_alpha, on_black(three(GREY), GREY)),
        ("P.png", palette, np.asarray(palette().convert("RGB"))),
        ("LA.tif", grey_alpha, on_black(three(GREY), GREY)),
        ("RGBA.tif", lambda: Image.fromarray(np.dstack([RGB, GREY])), on_black(RGB, GREY)),
        ("P.tif", palette, np.asarray(palette().convert("RGB"))),
        ("CMYK.tif", cmyk, np.asarray(cmyk().convert("RGB"))),
        (
            "1.tif",
            lambda: Image.fromarray(GREY > 99),
            three(np.where(GREY > 99, 255, 0).astype(np.uint8)),
        ),
        (
            "1.png",
            lambda: Image.fromarray(GREY > 99),
            three(np.where(GREY > 99, 255, 0).astype(np.uint8)),
        ),
    ],
)
def test_every_mode_gives_the_same_rgb_as_its_definition(tmp_path, name, image, expected):
    path = tmp_path / name
    image().save(path)
    pixels = read_image(str(path))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)
    assert image_size(str(path)) == expected.shape[:2]


def test_a_transparent_palette_entry_is_black(tmp_path):
    path = tmp_path / "P.png"
    palette().save(path, transparency=3)
    rgba = np.asarray(Image.open(path).convert("RGBA"))
    np.testing.assert_array_equal(read_image(str(path)), on_black(rgba[..., :3], rgba[..., 3]))


def test_cmyk_jpeg_is_read_in_its_colours(tmp_path):
    path = tmp_path / "c.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path)
    assert np.abs(read_image(str(path)).astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("stored", [GREY16, RGB16], ids=["grey", "rgb"])
def test_16_bits_keep_every_level_in_the_range_of_8_bits(tmp_path, suffix, stored):
    path = tmp_path / f"deep.{suffix}"
    cv2.imwrite(str(path), stored if stored.ndim == 2 else stored[..., ::-1])
    pixels = read_image(str(path))
    expected = three(stored) if stored.ndim == 2 else stored
    assert pixels.dtype == np.float32 and pixels.shape == (9, 14, 3)
    np.testing.assert_array_equal(np.rint(pixels.astype(np.float64) * 257), expected)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_to_pixels_and_size(tmp_path, suffix, orientation):
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = np.add.outer(np.arange(24) * 2, np.arange(32) * 6).astype(np.uint8)
    Image.fromarray(three(smooth)).save(path, exif=exif, quality=95)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    pixels = read_image(str(path))
    assert image_size(str(path)) == pixels.shape[:2] == expected.shape[:2]
    assert np.abs(pixels.astype(int) - expected).max() <= 2


def test_a_turned_16_bit_tiff_is_upright(tmp_path):
    path = tmp_path / "turned.tif"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY16).save(path, exif=exif)
    expected = three(np.rot90(GREY16, -1))
    np.testing.assert_array_equal(np.rint(read_image(str(path)).astype(float) * 257), expected)
    assert image_size(str(path)) == (14, 9)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp"])
@pytest.mark.parametrize("share", [0.98, 0.5, 0.1])
def test_truncated_images_are_named_and_never_filled_up(tmp_path, capfd, suffix, share):
    path = tmp_path / f"half.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        UserError, match=rf"half\.{suffix} cannot be decoded .*fetch the file again"
    ):
        read_image(str(path))
    assert capfd.readouterr().err == ""


def test_the_thumbnail_of_a_truncated_jpeg_does_not_pass_for_its_end(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(RGB).save(path)
    thumbnail = path.read_bytes()
    data = thumbnail[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    data += thumbnail[2:]
    path.write_bytes(data)
    assert read_image(str(path)).shape == (9, 14, 3)
    path.write_bytes(data[:-30])
    with pytest.raises(UserError, match="the JPEG end marker is missing"):
        read_image(str(path))


def test_a_jpeg_with_bytes_after_its_end_is_read(tmp_path):
    path = tmp_path / "tail.jpg"
    Image.fromarray(RGB).save(path)
    path.write_bytes(path.read_bytes() + b"\0" * 200)
    assert read_image(str(path)).shape == (9, 14, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be opened: No such file or directory; restore the file or leave it out"),
        (b"", r"cannot be decoded \(no image format is recognized\)"),
        (b"<html>", r"cannot be decoded \(no image format is recognized\)"),
    ],
)
@pytest.mark.parametrize("read", [read_image, image_size])
def test_missing_and_undecodable_images_are_named(tmp_path, content, message, read):
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.png {message}"):
        read(str(path))


@pytest.mark.parametrize(
    ("name", "image", "facts"),
    [
        ("a.png", lambda: Image.fromarray(GREY16), ImageFacts(9, 14, "I;16", "PNG", 16)),
        ("a.tif", lambda: Image.fromarray(GREY16), ImageFacts(9, 14, "I;16", "TIFF", 16)),
        ("a.tif", lambda: Image.fromarray(GREY > 99), ImageFacts(9, 14, "1", "TIFF", 1)),
        ("a.png", palette, ImageFacts(9, 14, "P", "PNG", 4)),
        ("a.jpg", cmyk, ImageFacts(9, 14, "CMYK", "JPEG", 8)),
    ],
)
def test_the_header_tells_mode_format_and_depth(tmp_path, name, image, facts):
    image().save(tmp_path / name)
    assert image_facts(str(tmp_path / name)) == facts


def test_the_content_counts_and_not_the_suffix(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(RGB).save(path, "PNG")
    assert image_facts(str(path)).format == "PNG"
    np.testing.assert_array_equal(read_image(str(path)), RGB)


def tiff_of(pages: list[tuple[np.ndarray, int]], order: str, *, big: bool = False) -> bytes:
    """Return a TIFF of pages, each (H, W, 3 or 4) RGB and its orientation.

    What a fourth sample is stays undeclared (ExtraSamples 0). A `big` TIFF has offsets of 64 bits.
    """
    wide = "Q" if big else "I"
    size = struct.calcsize("=" + wide)
    data = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    data += struct.pack(order + "HH", 8, 0) if big else b""
    for pixels, orientation in pages:
        height, width, samples = pixels.shape
        stored = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        bits = struct.pack(order + f"{samples}H", *[8 * pixels.dtype.itemsize] * samples)
        start = len(data) + size  # behind the offset of this page
        entries = [
            (256, 3, 1, width),
            (257, 3, 1, height),
            (258, 3, samples, start),
            (259, 3, 1, 1),
            (262, 3, 1, 2),
            (273, 4, 1, start + len(bits)),
            (274, 3, 1, orientation),
            (277, 3, 1, samples),
            (278, 3, 1, height),
            (279, 4, 1, len(stored)),
            *([(338, 3, 1, 0)] if samples == 4 else []),
        ]
        data += struct.pack(order + wide, start + len(bits) + len(stored)) + bits + stored
        data += struct.pack(order + ("Q" if big else "H"), len(entries))
        for tag, kind, count, value in entries:
            if big and tag == 258:
                field = bits  # 64 bits have room for them
            else:
                field = struct.pack(order + ("H" if kind == 3 and count == 1 else wide), value)
            data += struct.pack(order + "HH" + wide, tag, kind, count) + field.ljust(size, b"\0")
    return data + bytes(size)


# Pillow reads no big-endian TIFF with offsets of 64 bits.
@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
def test_every_page_of_a_tiff_is_read_as_if_it_were_the_only_one(tmp_path, order, big):
    rgba16 = np.dstack([RGB16, GREY16])
    pages = [(rgba16, 1), (rgba16[:5, ::-1], 1), (RGB16[:7], 6), (RGB, 1), (rgba16[2:], 8)]
    path, single = tmp_path / "many.tif", tmp_path / "single.tif"
    path.write_bytes(tiff_of(pages, order, big=big))
    assert count_frames(str(path)) == len(pages)
    for number, (pixels, orientation) in enumerate(pages):
        single.write_bytes(tiff_of([(pixels, orientation)], order, big=big))
        found = read_image(str(path), frame=number)
        np.testing.assert_array_equal(found, read_image(str(single)))
        turns = {1: 0, 6: -1, 8: 1}[orientation]
        scale = 257 if pixels.dtype == np.uint16 else 1
        expected = np.rot90(pixels[..., :3], turns)
        np.testing.assert_array_equal(np.rint(found.astype(np.float64) * scale), expected)


@pytest.mark.parametrize("first", range(8))
def test_pages_of_all_modes_and_sizes_stand_in_one_tiff(tmp_path, first):
    pages = [
        palette(),
        Image.fromarray(GREY > 99),
        Image.fromarray(GREY16[:4]),
        Image.fromarray(RGB[:, :6]),
        Image.fromarray(GREY),
        Image.fromarray(np.dstack([RGB, GREY])),
        grey_alpha(),
        cmyk(),
    ]
    pages = pages[first:] + pages[:first]
    path, single = tmp_path / "many.tif", tmp_path / "single.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert count_frames(str(path)) == len(pages)
    for number, page in enumerate(pages):
        page.save(single)
        found, expected = read_image(str(path), frame=number), read_image(str(single))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(UserError, match="has 8 frames, and no frame 8"):
        read_image(str(path), frame=8)


def png_of_size(side: int) -> bytes:
    """Return a sound PNG header without pixels behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + crc

    sides = side.to_bytes(4, "big") * 2
    body = chunk(b"IDAT", zlib.compress(b"\0" * 9))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", sides + b"\x08\0\0\0\0") + body + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("read", [read_image, image_size])
def test_bombs_are_refused_before_they_are_decoded(tmp_path, monkeypatch, read):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of_size(14_143))
    with pytest.raises(UserError, match=r"14,143 x 14,143 pixels, more than the 200,000,000"):
        read(str(path))
    path.write_bytes(png_of_size(13_300))
    with pytest.raises(UserError, match=r"take 707,560,000 bytes in memory, more than the 700,000"):
        read(str(path))
    path.write_bytes(png_of_size(10_000))  # within our limit, and beyond that of Pillow's warning
    assert image_size(str(path)) == (10_000, 10_000)
    monkeypatch.setattr(image_file, "MAX_FILE_BYTES", 50)
    with pytest.raises(UserError, match=r"bomb\.png has \d+ bytes, more than the 50 that are read"):
        read(str(path))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp", "gif"])
def test_damaged_files_end_in_pixels_or_in_a_user_error(tmp_path, suffix):
    path = tmp_path / f"damaged.{suffix}"
    Image.fromarray(RGB).save(path)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(1)
    for _ in range(40):
        mutated = data.copy()
        mutated[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(mutated.tobytes())
        try:
            assert read_image(str(path)).dtype in (np.uint8, np.float32)
        except UserError as error:
            assert path.name in str(error)
