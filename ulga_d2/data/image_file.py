"""What is known of an image file before any decoder sees it: its kind, its size, its end."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import BinaryIO

from detectron2.utils.file_io import PathManager

from ..errors import UserError

# Beyond these a file is refused before it is decoded: a small file can stand for a huge image.
MAX_PIXELS = 200_000_000
MAX_FILE_BYTES = 512 * 2**20
# Bytes that reading an image takes at its peak, with all forms that are in memory at once: with
# what the libraries take themselves, a process stays below 1.5 GB. The file's own bytes are extra.
MAX_DECODED_BYTES = 700_000_000
# Of parts that are inflated before they are decoded, since they are copied then.
MAX_INFLATED_BYTES = 300_000_000
# A large file may stand for more: so many times its own size. Photographs stay below.
MAX_EXPANSION = 16

DICOM, MATLAB, PICTURE, UNKNOWN = "DICOM", "MAT", "picture", "unknown"

# How files start that are decoded as pictures; BMP and WebP need a second look.
_PICTURE_STARTS = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"II+\0",
    b"MM\0*",
    b"MM\0+",
)
_BMP_HEADER_SIZES = (12, 40, 52, 56, 64, 108, 124)
_DICOM_MAGIC = b"DICM"
_DICOM_PREAMBLE = 128
# The groups that a DICOM file without preamble starts with, and elements that are looked at.
_FIRST_GROUPS = (0x0002, 0x0008)
_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT")
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# MATLAB puts a block of its own before the HDF5 file.
_MATLAB_BLOCK = 512
_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
# JPEG segments without a length: fill and restart markers.
_JPEG_BARE = frozenset([0x01, *range(0xD0, 0xD8)])
# Frame headers: of all kinds of JPEG, and of JPEG-LS.
_JPEG_FRAMES = frozenset([*range(0xC0, 0xD0), 0xF7]) - {0xC4, 0xC8, 0xCC}
_JPEG_PROGRESSIVE = frozenset([0xC2, 0xC6, 0xCA, 0xCE])


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
    """Return what a file is by its content, whatever its suffix; the file stays at its start.

    Returns:
        `DICOM` (with or without the preamble), `MATLAB` (version 7.3, that is, HDF5), `PICTURE`
        (JPEG, PNG, TIFF, BMP, WebP, GIF), or `UNKNOWN`, which nothing here reads.
    """
    start = file.read(_MATLAB_BLOCK + len(_HDF5_MAGIC))
    file.seek(0)
    if start.startswith(_DICOM_MAGIC, _DICOM_PREAMBLE):
        return DICOM
    if start.startswith(_HDF5_MAGIC) or start.startswith(_HDF5_MAGIC, _MATLAB_BLOCK):
        return MATLAB
    if start.startswith(_PICTURE_STARTS) or _is_bmp(start) or _is_webp(start):
        return PICTURE
    return DICOM if _is_bare_dicom(start) else UNKNOWN


def _is_bmp(start: bytes) -> bool:
    return start.startswith(b"BM") and int.from_bytes(start[14:18], "little") in _BMP_HEADER_SIZES


def _is_webp(start: bytes) -> bool:
    return start.startswith(b"RIFF") and start.startswith(b"WEBP", 8)


def _is_bare_dicom(start: bytes) -> bool:
    """Tell whether DICOM elements begin at once: two in order, of the groups that come first."""
    position, last = 0, -1
    for _ in range(2):
        if position + 12 > len(start):
            return False
        group, element = (
            int.from_bytes(start[position + at : position + at + 2], "little") for at in (0, 2)
        )
        tag = group << 16 | element
        if group not in _FIRST_GROUPS or tag <= last:
            return False
        last = tag
        vr = start[position + 4 : position + 6]
        if not (vr.isalpha() and vr.isupper()):  # implicit: four bytes of length
            at, size = 4, 4
        elif vr in _LONG_VRS:
            at, size = 8, 4
        else:
            at, size = 6, 2
        length = int.from_bytes(start[position + at : position + at + size], "little")
        position += at + size + length
    return True


def check_size(
    path: str,
    height: int,
    width: int,
    bytes_per_pixel: int = 3,
    file_bytes: int = 0,
) -> None:
    """Refuse, before anything is allocated, an image that would take too much memory.

    The limits are `MAX_PIXELS`, and in bytes `MAX_DECODED_BYTES`, or `MAX_EXPANSION` times the
    file's size where that is more.

    Args:
        path: of the file, for the message.
        height: in pixels.
        width: in pixels.
        bytes_per_pixel: of all forms together that are in memory at once on the way to the
            network, where they are most.
        file_bytes: size of the file.

    Raises:
        UserError: naming the file and its size.
    """
    fix = "shrink it or cut it into tiles"
    if height * width > MAX_PIXELS:
        raise UserError(
            f"image {path} says that it has {width:,} x {height:,} pixels, more than the "
            f"{MAX_PIXELS:,} that are decoded; {fix}"
        )
    needed = height * width * bytes_per_pixel
    limit = max(MAX_DECODED_BYTES, MAX_EXPANSION * file_bytes)
    if needed > limit:
        raise UserError(
            f"image {path} says that it has {width:,} x {height:,} pixels, which take {needed:,} "
            f"bytes in memory, more than the {limit:,} for a file of its size; {fix}"
        )


def check_float_size(path: str, height: int, width: int) -> None:
    """Refuse 8-bit pixels that would take too much memory once they are stretched to float32 RGB.

    Raises:
        UserError: naming the file and its size.
    """
    stored, stretched = 3, 12
    needed = stored + stretched
    if height * width * needed > MAX_DECODED_BYTES:
        with open_image_file(path) as file:
            check_size(path, height, width, needed, file.seek(0, os.SEEK_END))


def file_identity(file: BinaryIO) -> object:
    """Return what tells an open file's content from any other; None where nothing does."""
    try:
        found = os.fstat(file.fileno())
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


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
    scan = jpeg_frame(data).scan
    return scan > 0 and data.rfind(_JPEG_END) > scan


@dataclass(frozen=True)
class JpegFrame:
    """What the segments before the first scan of a JPEG, lossless JPEG or JPEG-LS say.

    Attributes:
        height, width: in pixels; 0 where no frame header is found.
        components: samples of a pixel.
        is_buffered: all coefficients are in memory at once: progressive, or scan by component.
        scan: where the first scan starts, in bytes; 0 without one.
    """

    height: int = 0
    width: int = 0
    components: int = 0
    is_buffered: bool = False
    scan: int = 0


def jpeg_frame(data: bytes) -> JpegFrame:
    """Return what a JPEG says of itself, without decoding it."""
    found = JpegFrame()
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF or marker in _JPEG_BARE:
            position += 1 if marker == 0xFF else 2
            continue
        body = data[position + 4 : position + 10]
        if marker in _JPEG_FRAMES and len(body) == 6:
            height, width = (int.from_bytes(body[at : at + 2], "big") for at in (1, 3))
            found = JpegFrame(height, width, body[5], marker in _JPEG_PROGRESSIVE)
        if marker == 0xDA:
            is_buffered = found.is_buffered or body[:1] < bytes([found.components])
            return replace(found, is_buffered=is_buffered, scan=position)
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return found


def _png_ends(data: bytes) -> bool:
    position = len(_PNG_START)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + length
    return False
