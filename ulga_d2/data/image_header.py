"""What an image file says about itself without being decoded: size, EXIF rotation, completeness."""

from __future__ import annotations

import struct
import warnings
from typing import BinaryIO

from detectron2.utils.file_io import PathManager
from PIL import Image, UnidentifiedImageError

from ..errors import UserError

_ORIENTATION = 0x0112
_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
# JPEG segments without a length: fill and restart markers.
_JPEG_BARE = frozenset([0x01, *range(0xD0, 0xD8)])


def image_size(path: str) -> tuple[int, int]:
    """Return (height, width) in pixels of the image that `read_image` returns, from the header.

    Raises:
        UserError: the file is missing or no image.
    """
    with open_image_file(path) as file:
        size, orientation = read_header(file, path)
    width, height = size
    return (width, height) if orientation >= 5 else (height, width)


def stored_size(path: str) -> tuple[int, int]:
    """Return (height, width) as stored, that is, before any EXIF rotation."""
    with open_image_file(path) as file:
        (width, height), _ = read_header(file, path)
    return height, width


def open_image_file(path: str) -> BinaryIO:
    """Open an image file for reading.

    Raises:
        UserError: the file is missing or must not be read.
    """
    try:
        return PathManager.open(path, "rb")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"image {path} cannot be opened: {reason}; restore the file or remove its annotation"
        ) from None


def read_header(file: BinaryIO, path: str) -> tuple[tuple[int, int], int]:
    """Return the stored (width, height) and the EXIF orientation (1..8, 1 = upright)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(file)
    except UnidentifiedImageError:
        raise undecodable(path, "no image format is recognised") from None
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise undecodable(path, error) from None
    return image.size, _orientation(image)


def _orientation(image: Image.Image) -> int:
    # A TIFF's own orientation is applied by both decoders, Pillow's size included.
    if image.format == "TIFF" or not image.info.get("exif"):
        return 1
    exif = Image.Exif()
    try:
        exif.load(image.info["exif"])
        value = exif.get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block raises anything; the pixels are fine
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def undecodable(path: str, reason: object) -> UserError:
    """Return the error for a file that is there but is no usable image."""
    return UserError(
        f"image {path} cannot be decoded ({reason}); fetch the file again, or remove it together "
        "with its annotation"
    )


def missing_end(data: bytes) -> str | None:
    """Return what the end of a JPEG or PNG lacks, or None where it is complete.

    Decoders fill the missing part of a truncated file with grey without a word; other formats fail.
    """
    if data.startswith(_JPEG_START) and not _jpeg_ends(data):
        return "truncated: the JPEG end marker is missing"
    if data.startswith(_PNG_START) and not _png_ends(data):
        return "truncated: the PNG end chunk is missing"
    return None


def _jpeg_ends(data: bytes) -> bool:
    # An EXIF thumbnail has an end marker of its own, so the search starts at the scan.
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xDA:
            return data.rfind(_JPEG_END) > position
        if marker == 0xFF or marker in _JPEG_BARE:
            position += 1 if marker == 0xFF else 2
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _png_ends(data: bytes) -> bool:
    position = len(_PNG_START)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + length
    return False
