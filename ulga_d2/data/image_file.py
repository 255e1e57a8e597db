"""What is known of an image file before any decoder sees it: its kind, its size, its end."""

from __future__ import annotations

import os
from typing import BinaryIO

from detectron2.utils.file_io import PathManager

from ..errors import UserError

# Beyond these a file is refused before it is decoded: a small file can stand for a huge image.
MAX_PIXELS = 200_000_000
MAX_FILE_BYTES = 512 * 2**20

DICOM, MATLAB, PICTURE = "DICOM", "MAT", "picture"

_DICOM_MAGIC = b"DICM"
_DICOM_PREAMBLE = 128
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# MATLAB puts a block of its own before the HDF5 file.
_MATLAB_BLOCK = 512
_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
# JPEG segments without a length: fill and restart markers.
_JPEG_BARE = frozenset([0x01, *range(0xD0, 0xD8)])


def open_image_file(path: str) -> BinaryIO:
    """Open an image file for reading.

    Raises:
        UserError: the file is missing, must not be read, or is larger than `MAX_FILE_BYTES`.
    """
    try:
        file = PathManager.open(path, "rb")
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"image {path} cannot be opened: {reason}; restore the file or leave it out"
        ) from None
    if size > MAX_FILE_BYTES:
        file.close()
        raise UserError(
            f"image {path} has {size:,} bytes, more than the {MAX_FILE_BYTES:,} that are read; "
            "shrink it or cut it into parts"
        )
    return file


def kind_of(file: BinaryIO) -> str:
    """Return `DICOM`, `MATLAB` (version 7.3, that is, HDF5) or `PICTURE`, by content."""
    start = file.read(_MATLAB_BLOCK + len(_HDF5_MAGIC))
    file.seek(0)
    if start.startswith(_DICOM_MAGIC, _DICOM_PREAMBLE):
        return DICOM
    if start.startswith(_HDF5_MAGIC) or start.startswith(_HDF5_MAGIC, _MATLAB_BLOCK):
        return MATLAB
    return PICTURE


def check_pixel_count(path: str, height: int, width: int) -> None:
    """Refuse an image of more than `MAX_PIXELS` pixels.

    Raises:
        UserError: naming the file and its size.
    """
    if height * width > MAX_PIXELS:
        raise UserError(
            f"image {path} says that it has {width:,} x {height:,} pixels, more than the "
            f"{MAX_PIXELS:,} that are decoded; shrink it or cut it into tiles"
        )


def undecodable(path: str, reason: object) -> UserError:
    """Return the error for a file that is there but is no usable image."""
    return UserError(
        f"image {path} cannot be decoded ({reason}); fetch the file again, or leave it out"
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
