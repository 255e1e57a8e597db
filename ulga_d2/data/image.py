"""Decode an image file of any common kind to RGB, without losing depth."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

import cv2
import numpy as np

from ..errors import UserError
from .image_file import (
    DICOM,
    MATLAB,
    check_float_size,
    kind_of,
    missing_end,
    open_image_file,
    undecodable,
)
from .image_header import (
    ImageFacts,
    choose_frame,
    image_facts,
    image_size,
    is_tiff,
    open_with_pillow,
    opencv_alone_reads,
    own_pixel_limit,
    read_header,
    tiff_facts,
)
from .intensity import FULL_RANGE, Intensity, StoredPixels, row_parts, to_network
from .png import essential_png
from .shared_switch import SharedSwitch
from .tiff import WHITE_IS_ZERO, TiffFile, TiffPage

__all__ = [
    "choose_frames",
    "count_frames",
    "from_stored",
    "image_size",
    "read_image",
    "read_stored",
    "stored_limits",
]

# Whole numbers of these sizes are stored intensities; wider ones have no usual range.
_WITH_RANGE = (np.uint8, np.uint16, np.int8, np.int16)
# Of a TIFF: grey of unsigned whole numbers. Others may be signed or floating point.
_MODES_WITH_RANGE = ("1", "L", "P", "I;16")
# The formats that OpenCV decodes: it alone keeps the depth of 16 bits.
_BY_OPENCV = ("PNG", "BMP", "WEBP")


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
        frame: which one of several, from 0 (see `count_frames`); a file of one frame takes no
            notice of it.

    Raises:
        UserError: the file is missing, truncated, no image, an animation or too large; it has
            several frames and none is chosen, or not so many; or "full" is asked of a pixel type
            without a declared range (floating point, 32 bits).
    """
    stored = read_stored(path, own_window=intensity.kind == "full", frame=frame)
    height, width = stored.pixels.shape[:2]
    if stored.pixels.dtype == np.uint8 and intensity.kind != "full":
        check_float_size(path, height, width)
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
        return _read_picture(file, path, frame)


def stored_limits(path: str, frame: int | None = None) -> tuple[float, float] | None:
    """Return the limits that `read_stored` states without `own_window`; None where there are none.

    The pixels are read only where the header does not tell.

    Raises:
        UserError: see `read_image`.
    """
    with open_image_file(path) as file:
        kind = kind_of(file)
        if kind == DICOM:
            from .dicom import dicom_limits

            limits = dicom_limits(file, path, frame)
            if limits is not None:
                return limits
        elif kind != MATLAB:
            facts = read_header(file, path, frame or 0)
            if facts.format != "TIFF" or facts.mode in _MODES_WITH_RANGE:
                choose_frame(path, facts.frames, frame)
                return declared_limits(np.dtype(np.uint16 if facts.bits > 8 else np.uint8))
    return read_stored(path, own_window=False, frame=frame).limits


def count_frames(path: str) -> int:
    """Return how many frames (DICOM) or pages (TIFF) a file has; 1 for all other kinds.

    Smaller copies of a page, thumbnails and masks are no pages of their own.

    Raises:
        UserError: the file cannot be read, holds fewer frames than it states, or is an animation.
    """
    with open_image_file(path) as file:
        if kind_of(file) == DICOM:
            from .dicom import dicom_frames

            return dicom_frames(file, path)
    return image_facts(path).frames


def choose_frames(records: Sequence[dict], frame: int | None) -> list[dict]:
    """Return records that name the frame to read, as `frame`, if one is chosen.

    Args:
        records: `frames` says how many frames or pages an image file has, if there are several.
        frame: which one is read of these, from 0.

    Raises:
        UserError: a file has several and none is chosen, not so many, or one of another size than
            its first, on which the boxes were checked.
    """
    for record in records:
        if "frames" not in record:
            continue
        path = record["file_name"]
        facts = image_facts(path, choose_frame(path, record["frames"], frame))
        if (facts.height, facts.width) != (record["height"], record["width"]):
            raise UserError(
                f"image {path}: frame {frame} has {facts.width} x {facts.height} pixels, and the "
                f"first has {record['width']} x {record['height']}; save frame {frame} as a file "
                "of its own"
            )
    return list(records) if frame is None else [{**record, "frame": frame} for record in records]


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


def declared_limits(dtype: np.dtype, spare: int = 0) -> tuple[float, float] | None:
    """Return the range of a pixel type, of which `spare` bits are not used; None without one."""
    if dtype not in _WITH_RANGE:
        return None
    return np.iinfo(dtype).min >> spare, np.iinfo(dtype).max >> spare


def _read_matlab(path: str) -> StoredPixels:
    from .formats.cheng import read_mat_pixels

    pixels = read_mat_pixels(path)
    return StoredPixels(pixels, (float(pixels.min()), float(pixels.max())))


def _read_picture(file: BinaryIO, path: str, frame: int | None) -> StoredPixels:
    if is_tiff(file):
        return _read_tiff(file, path, frame)
    facts = read_header(file, path)
    file.seek(0)
    data = file.read()
    reason = missing_end(data)
    if reason:
        raise undecodable(path, reason)
    if facts.format not in _BY_OPENCV:  # it writes libjpeg's warnings to stderr
        pixels = _decode_with_pillow(data, path)
    else:
        data = essential_png(data, path) if facts.format == "PNG" else data
        pixels = _decode_with_opencv(data, path)
    _check_decoded(pixels, facts, facts.orientation >= 5, path)
    upright = _upright(_without_alpha(pixels), facts.orientation)
    return StoredPixels(upright, declared_limits(pixels.dtype))


def _read_tiff(file: BinaryIO, path: str, frame: int | None) -> StoredPixels:
    tiff = TiffFile(file, path)
    page = tiff.frames[choose_frame(path, len(tiff.frames), frame)]
    facts = tiff_facts(tiff, page, path)
    data = tiff.page_alone(page)
    if _needs_pillow(page, facts):
        pixels = _decode_with_pillow(data, path)
    else:
        pixels = _decode_with_opencv(data, path)
        if facts.mode == "RGB":
            pixels = pixels[:, :, :3]  # a fourth sample that the file does not call alpha
    _check_decoded(pixels, facts, False, path)
    inverted = page.photometric == WHITE_IS_ZERO
    if inverted and page.bits <= 8:
        pixels = ~pixels  # both decoders turn these around, and these alone
    spare = 16 - page.bits if 8 < page.bits < 16 else 0
    pixels = _without_alpha(pixels >> spare if spare else pixels, spare)
    return StoredPixels(pixels, declared_limits(pixels.dtype, spare), inverted)


def _needs_pillow(page: TiffPage, facts: ImageFacts) -> bool:
    # OpenCV takes CMYK for RGBA, multiplies alpha into the colors or drops it, and reads no grey
    # of 2 or 4 bits. It alone keeps the depth of 16 bits.
    if opencv_alone_reads(page):
        return False
    is_gray_byte = facts.mode == "L" and page.bits == 8
    return not is_gray_byte


def _check_decoded(pixels: np.ndarray, facts: ImageFacts, is_turned: bool, path: str) -> None:
    """Refuse a file that two decoders understand differently."""
    expected = (facts.height, facts.width)
    if pixels.shape[:2] != (expected[::-1] if is_turned else expected):
        raise undecodable(path, "its parts state different sizes")


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
    if pixels.shape[2] not in (3, 4):
        raise undecodable(path, f"{pixels.shape[2]} samples a pixel are neither grey nor RGB")
    to_rgb = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    for rows in row_parts(pixels):
        pixels[rows] = cv2.cvtColor(pixels[rows], to_rgb)
    return pixels


def _decode_with_pillow(data: bytes, path: str) -> np.ndarray:
    """Return grey, RGB or RGBA of 8 bits."""
    image = open_with_pillow(io.BytesIO(data), path)
    try:
        with own_pixel_limit:
            image.load()
            if image.mode in ("1", "L"):
                mode = "L"
            else:
                mode = "RGBA" if image.has_transparency_data else "RGB"
            shape = (image.height, image.width, *((len(mode),) if mode != "L" else ()))
            pixels = np.empty(shape, np.uint8)
            for rows in row_parts(pixels):
                part = image.crop((0, rows.start, image.width, min(rows.stop, image.height)))
                pixels[rows] = np.asarray(part.convert(mode))
    except Exception as error:  # damaged data raise anything
        raise undecodable(path, error) from None
    return pixels


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


def _without_alpha(pixels: np.ndarray, spare: int = 0) -> np.ndarray:
    """Composite RGBA on black: uint8 stays uint8, deeper pixels become float32.

    Of each sample, `spare` bits of its type are not used.
    """
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels
    if pixels.dtype.kind == "f":
        return pixels[:, :, :3]  # no number means opaque
    height, width = pixels.shape[:2]
    opaque = np.float32(np.iinfo(pixels.dtype).max >> spare)
    is_byte = pixels.dtype == np.uint8
    composed = np.empty((height, width, 3), np.uint8 if is_byte else np.float32)
    for rows in row_parts(pixels):
        part = pixels[rows]
        shown = part[:, :, :3] * (part[:, :, 3:] / opaque)
        composed[rows] = np.rint(shown) if is_byte else shown
    return composed


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the rotation and mirroring that an EXIF orientation (1..8) describes."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
