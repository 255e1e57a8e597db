"""Decode an image file of any common kind to RGB, without losing depth."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from ..errors import UserError
from .image_file import (
    DICOM,
    MATLAB,
    check_pixel_count,
    kind_of,
    missing_end,
    open_image_file,
    undecodable,
)
from .image_header import image_size, own_pixel_limit, read_header
from .intensity import FULL_RANGE, Intensity, StoredPixels, to_network
from .shared_switch import SharedSwitch

__all__ = ["count_frames", "from_stored", "image_size", "read_image", "read_stored"]

# Whole numbers of these sizes are stored intensities; wider ones have no usual range.
_WITH_RANGE = (np.uint8, np.uint16, np.int8, np.int16)
# What a TIFF says in its first bytes when its offsets have 64 bits.
_BIG_TIFF = 43
ANIMATED = ("GIF", "PNG", "WEBP")


def read_image(
    path: str, intensity: Intensity = FULL_RANGE, frame: int | None = None
) -> np.ndarray:
    """Return the image as an (H, W, 3) RGB array in 0..255, upright, alpha composited on black.

    Palettes are expanded, grey is repeated three times, EXIF rotation is applied. DICOM is known
    by its content; see `read_dicom`, whose VOI window counts only where `intensity` is "full",
    since it is the file's own answer to the same question. A MATLAB slice declares no range, so
    "full" is there from its own lowest to its own highest value.

    Args:
        path: of the file.
        intensity: which stored values become black and white; by default 8-bit files stay uint8
            as they are, and all others become float32 with every level kept.
        frame: number of the frame or page, from 0 (see `count_frames`); None takes the first page
            of a TIFF, and of a DICOM file the only frame there is.

    Raises:
        UserError: the file is missing, truncated, no image or too large a one; or "full" is asked
            of a pixel type without a declared range (floating point, 32 bits).
    """
    stored = read_stored(path, own_window=intensity.kind == "full", frame=frame)
    return to_network(stored, intensity, path)


def read_stored(path: str, *, own_window: bool, frame: int | None = None) -> StoredPixels:
    """Return the stored pixels of an image file, upright, before any intensity is applied.

    Args:
        path: of the file.
        own_window: apply the VOI window or table that a DICOM file states.
        frame: see `read_image`.

    Raises:
        UserError: see `read_image`.
    """
    with open_image_file(path) as file:
        kind = kind_of(file)
        if kind == DICOM:
            from .dicom import read_dicom  # a moment that only DICOM data should wait for

            return read_dicom(file, path, apply_voi=own_window, frame=frame)
        if kind == MATLAB:
            return _read_matlab(path)
        return _read_picture(file, path, frame or 0)


def count_frames(path: str) -> int:
    """Return how many frames (DICOM) or pages (TIFF) a file has; 1 for all other kinds.

    Raises:
        UserError: the file cannot be read, holds fewer frames than it states, or is an animation.
    """
    with open_image_file(path) as file:
        kind = kind_of(file)
        if kind == DICOM:
            from .dicom import dicom_frames

            return dicom_frames(file, path)
        if kind == MATLAB:
            return 1
        facts = read_header(file, path)
        if facts.frames > 1 and facts.format in ANIMATED:
            raise UserError(
                f"image {path} is an animated {facts.format} of {facts.frames} frames; save the "
                "frames as files of their own"
            )
        return facts.frames if facts.format == "TIFF" else 1


def from_stored(stored: StoredPixels, intensity: Intensity, name: str) -> np.ndarray:
    """Return pixels that are in memory as `read_image` returns those of a file.

    Args:
        stored: grey, RGB or RGBA pixels.
        intensity: which stored values become black and white.
        name: of the image, for messages.

    Raises:
        UserError: see `read_image`.
    """
    return to_network(replace(stored, pixels=_without_alpha(stored.pixels)), intensity, name)


def declared_limits(dtype: np.dtype) -> tuple[float, float] | None:
    """Return the range of a pixel type; None of one that declares none."""
    return (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype in _WITH_RANGE else None


def _read_matlab(path: str) -> StoredPixels:
    from .formats.cheng import mat_size, read_mat_pixels

    check_pixel_count(path, *mat_size(path))
    pixels = read_mat_pixels(path)
    return StoredPixels(pixels, (float(pixels.min()), float(pixels.max())))


def _read_picture(file: BinaryIO, path: str, page: int) -> StoredPixels:
    data = file.read()
    file.seek(0)
    facts = read_header(file, path)
    if page:
        if page >= facts.frames or facts.format != "TIFF":
            raise UserError(f"image {path} has {facts.frames} pages, and no page {page}")
        data = _from_page(data, page, path)
        facts = read_header(io.BytesIO(data), path)
    reason = missing_end(data)
    if reason:
        raise undecodable(path, reason)
    # OpenCV takes CMYK in a TIFF for RGBA, and multiplies alpha into the colours or drops it.
    if facts.format == "TIFF" and facts.bits <= 8 and facts.mode != "L":
        pixels = _decode_with_pillow(data, path)
    else:
        pixels = _decode_with_opencv(data, path)
        if facts.format == "TIFF" and facts.mode == "RGB":
            pixels = pixels[:, :, :3]  # a fourth sample that the file does not call alpha
    upright = _upright(_without_alpha(pixels), facts.orientation)
    return StoredPixels(upright, declared_limits(pixels.dtype))


def _from_page(data: bytes, page: int, path: str) -> bytes:
    """Return a TIFF that starts with the given page, so that every page is decoded as the first.

    Pages are a chain: the file's start says where the first lies, and each where the next does.
    """
    order = "little" if data.startswith(b"II") else "big"

    def number(start: int, size: int) -> int:
        return int.from_bytes(data[start : start + size], order)

    is_big = number(2, 2) == _BIG_TIFF
    link, size, count_size, entry_size = (8, 8, 8, 20) if is_big else (4, 4, 2, 12)
    first, place = link, number(link, size)
    for _ in range(page):
        link = place + count_size + entry_size * number(place, count_size)
        place = number(link, size)
        if not 0 < place < len(data):
            raise undecodable(path, "its chain of pages is damaged")
    return data[:first] + place.to_bytes(size, order) + data[first + size :]


def _decode_with_opencv(data: bytes, path: str) -> np.ndarray:
    """Return grey, RGB or RGBA at the stored depth."""
    buffer = np.frombuffer(data, np.uint8)
    with _quiet_opencv:
        try:
            pixels = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise undecodable(path, error.err or "OpenCV refuses it") from None
    if pixels is None:
        raise undecodable(path, "damaged, or a kind that OpenCV does not read")
    if pixels.ndim == 2:
        return pixels
    to_rgb = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return cv2.cvtColor(pixels, to_rgb)


def _decode_with_pillow(data: bytes, path: str) -> np.ndarray:
    """Return RGB or RGBA of 8 bits."""
    try:
        with own_pixel_limit:
            image = Image.open(io.BytesIO(data))
            return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    except Exception as error:  # damaged data raise anything
        raise undecodable(path, error) from None


@contextlib.contextmanager
def _silence_opencv() -> Iterator[None]:
    opencv_log = cv2.utils.logging
    level = opencv_log.getLogLevel()
    opencv_log.setLogLevel(opencv_log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        opencv_log.setLogLevel(level)


# Keeps OpenCV's own words about damaged files off stderr: the caller reports them.
_quiet_opencv = SharedSwitch(_silence_opencv)


def _without_alpha(pixels: np.ndarray) -> np.ndarray:
    """Composite RGBA on black: uint8 stays uint8, deeper pixels become float32."""
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels
    opaque = np.float32(np.iinfo(pixels.dtype).max)
    composed = pixels[:, :, :3] * (pixels[:, :, 3:] / opaque)
    return np.rint(composed).astype(np.uint8) if pixels.dtype == np.uint8 else composed


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the rotation and mirroring that an EXIF orientation (1..8) describes."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
