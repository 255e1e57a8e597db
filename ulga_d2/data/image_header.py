"""What an image file says about itself without being decoded: size, kind, depth, rotation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from .image_file import (
    DICOM,
    MATLAB,
    check_pixel_count,
    kind_of,
    open_image_file,
    undecodable,
)
from .shared_switch import SharedSwitch, quiet_warnings

_ORIENTATION = 0x0112
_TIFF_BITS = 258
# Where a PNG states the bits of a sample; its first chunk has a fixed place.
_PNG_BITS = 24
_BITS_OF_MODE = {"1": 1, "I;16": 16, "I;16B": 16, "I": 32, "F": 32}


@dataclass(frozen=True)
class ImageFacts:
    """What an image's header says.

    Attributes:
        height, width: pixels as `read_image` returns the image, that is, upright.
        mode: Pillow's name of the colour model ("L", "RGB", "P", "CMYK", ...), or DICOM's
            photometric interpretation.
        format: what the content is, whatever the suffix: "PNG", "JPEG", "DICOM", "MAT", ...
        bits: of one stored sample.
        orientation: EXIF's, 1 (upright) to 8; the stored size is turned from 5 on.
        frames: pages of a TIFF, frames of an animation.
        has_window: a DICOM file states a VOI window or table of its own.
    """

    height: int
    width: int
    mode: str
    format: str
    bits: int
    orientation: int = 1
    frames: int = 1
    has_window: bool = False


def image_facts(path: str) -> ImageFacts:
    """Read an image's header.

    Raises:
        UserError: the file is missing, no image, or too large to be decoded.
    """
    with open_image_file(path) as file:
        kind = kind_of(file)
        # pydicom and h5py take a moment to import, which other data need not wait for.
        if kind == DICOM:
            from .dicom import dicom_header

            header = dicom_header(file, path)
            return ImageFacts(
                header.height,
                header.width,
                header.photometric,
                "DICOM",
                header.bits,
                has_window=header.has_window,
            )
        if kind == MATLAB:
            from .formats.cheng import mat_size

            height, width = mat_size(path)
            check_pixel_count(path, height, width)
            return ImageFacts(height, width, "L", "MAT", 16)
        return read_header(file, path)


def image_size(path: str) -> tuple[int, int]:
    """Return (height, width) in pixels of the image that `read_image` returns, from the header.

    Raises:
        UserError: see `image_facts`.
    """
    facts = image_facts(path)
    return facts.height, facts.width


def stored_size(path: str) -> tuple[int, int]:
    """Return (height, width) as stored, that is, before any EXIF rotation."""
    facts = image_facts(path)
    turned = facts.orientation >= 5
    return (facts.width, facts.height) if turned else (facts.height, facts.width)


def read_header(file: BinaryIO, path: str) -> ImageFacts:
    """Return the facts of a file in a format that Pillow knows.

    Raises:
        UserError: the content is of no such format, or has too many pixels.
    """
    try:
        with own_pixel_limit:
            image = Image.open(file)
    except UnidentifiedImageError:
        raise undecodable(path, "no image format is recognised") from None
    except Exception as error:  # a damaged header raises anything
        raise undecodable(path, error) from None
    width, height = image.size
    check_pixel_count(path, height, width)
    bits = _bits(image, file)
    orientation = _orientation(image)
    if orientation >= 5:
        height, width = width, height
    frames = _frames(image, path)
    return ImageFacts(height, width, image.mode, image.format or "", bits, orientation, frames)


@contextlib.contextmanager
def _no_pixel_limit() -> Iterator[None]:
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with quiet_warnings:
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


# Switches Pillow's limit off, which is another than `MAX_PIXELS`, and its warnings.
own_pixel_limit = SharedSwitch(_no_pixel_limit)


def _frames(image: Image.Image, path: str) -> int:
    # Pillow counts by walking the file: only kinds that can have several are asked.
    if image.format not in ("TIFF", "GIF", "PNG", "WEBP"):
        return 1
    try:
        return getattr(image, "n_frames", 1)
    except Exception as error:  # a damaged file raises anything
        raise undecodable(path, error) from None


def _bits(image: Image.Image, file: BinaryIO) -> int:
    # Pillow's modes hide the depth of 16-bit colour.
    if image.format == "PNG":
        file.seek(_PNG_BITS)
        return file.read(1)[0]
    if image.format == "TIFF":
        return max(image.tag_v2.get(_TIFF_BITS, (1,)))
    return _BITS_OF_MODE.get(image.mode, 8)


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
