"""What an image file says about itself without being decoded: size, kind, depth, rotation."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from ..errors import UserError
from .image_file import (
    DICOM,
    MATLAB,
    PICTURE,
    JpegFrame,
    check_size,
    jpeg_frame,
    kind_of,
    open_image_file,
    undecodable,
)
from .shared_switch import SharedSwitch, quiet_warnings
from .tiff import BLACK_IS_ZERO, FLOAT, RGB, SIGNED, UNSIGNED, WHITE_IS_ZERO, TiffFile, TiffPage

# All that Pillow may open: what is not named here is never handed to one of its many readers.
PILLOW_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
# Their files hold animations, too.
_ANIMATED = ("GIF", "PNG", "WEBP")
_ORIENTATION = 0x0112
_TIFF_STARTS = (b"II*\0", b"II+\0", b"MM\0*", b"MM\0+")
# Where a PNG states the bits of a sample; its first chunk has a fixed place.
_PNG_BITS = 24
_JPEG_HEADER = 2**18  # bytes that nearly always reach the first scan
_JPEG_SCAN = b"\xff\xda"
_BITS_OF_MODE = {"1": 1, "I;16": 16, "I;16B": 16, "I": 32, "F": 32}
# Samples of a pixel as it is decoded; palettes may hold alpha. All other modes have three.
_SAMPLES_OF_MODE = {
    **dict.fromkeys(("1", "L", "I;16", "I;16B", "I", "F"), 1),
    **dict.fromkeys(("P", "RGBA", "LA", "PA", "La", "CMYK", "RGBX", "RGBa"), 4),
}
# Bits of a TIFF's samples that OpenCV reads, and what a SampleFormat is called.
_READ_BITS = {
    UNSIGNED: (10, 12, 14, 16, 32, 64),
    SIGNED: (8, 16, 32, 64),
    FLOAT: (32, 64),
}
_KINDS = {UNSIGNED: "unsigned", SIGNED: "signed", FLOAT: "floating-point"}
# The scans of a progressive JPEG each pass over all of it; encoders write ten or so.
MAX_SCANS = 100


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
        frames: of a DICOM file; pages of a TIFF, without the smaller copies of a pyramid.
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


def image_facts(path: str, frame: int = 0) -> ImageFacts:
    """Read an image's header.

    Args:
        path: of the file.
        frame: whose size is asked for, of several (pages of a TIFF differ).

    Raises:
        UserError: the file is missing, no image, an animation, too large to be decoded, or has no
            such frame.
    """
    with open_image_file(path) as file:
        kind = kind_of(file)
        # pydicom and h5py take a moment to import, which other data need not wait for.
        if kind == DICOM:
            from .dicom import dicom_header

            header = dicom_header(file, path, frame)
            return ImageFacts(
                header.height,
                header.width,
                header.photometric,
                "DICOM",
                header.bits,
                frames=header.frames,
                has_window=header.has_window,
            )
        if kind == MATLAB:
            from .formats.cheng import mat_size

            return ImageFacts(*mat_size(path), "L", "MAT", 16)
        return read_header(file, path, frame)


def check_frame(path: str, frames: int, frame: int) -> None:
    """Refuse a frame that a file of several does not have; with only one, none is chosen.

    Raises:
        UserError: naming the file and its number of frames.
    """
    if frames > 1 and not 0 <= frame < frames:
        raise UserError(
            f"image {path} has {frames:,} frames, and no frame {frame}; they count from 0"
        )


def choose_frame(path: str, frames: int, frame: int | None) -> int:
    """Return which frame of a file is read: of several, one must be chosen.

    Raises:
        UserError: the file has several frames and none is chosen, or not the one that is.
    """
    if frames > 1 and frame is None:
        raise UserError(
            f"image {path} has {frames:,} frames or pages, and none is chosen; set INPUT.FRAME to "
            f"the one to read, 0 to {frames - 1}, or save each as a file of its own"
        )
    check_frame(path, frames, frame or 0)
    return 0 if frames == 1 else frame or 0


def image_size(path: str) -> tuple[int, int]:
    """Return (height, width) in pixels of the image that `read_image` returns, from the header.

    Of several frames it is the size of the first.

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


def read_header(file: BinaryIO, path: str, frame: int = 0) -> ImageFacts:
    """Return the facts of a file that Pillow or OpenCV decodes.

    Args:
        file: open for reading.
        path: of the file, for messages.
        frame: the page of a TIFF with several.

    Raises:
        UserError: the content is of no such format, or has too many pixels; an animation.
    """
    file.seek(0)
    if kind_of(file) != PICTURE:
        raise undecodable(path, "no image format is recognized")
    if is_tiff(file):
        tiff = TiffFile(file, path)
        check_frame(path, len(tiff.frames), frame)
        return tiff_facts(tiff, tiff.frames[frame if len(tiff.frames) > 1 else 0], path)
    image = open_with_pillow(file, path)
    height, width = image.height, image.width
    file_bytes = file.seek(0, io.SEEK_END)
    if image.format in _ANIMATED and _is_animated(image, path):
        raise UserError(
            f"image {path} is an animated {image.format}, which is not read; save its frames as "
            "files of their own"
        )
    bits = _bits(image, file)
    samples = _SAMPLES_OF_MODE.get(image.mode, 3)
    needed = _peak_bytes(samples, bits, bits > 8)
    if image.format in ("JPEG", "MPO"):
        needed = max(needed, _jpeg_bytes(file, path))
    check_size(path, height, width, needed, file_bytes)
    orientation = _orientation(image)
    if orientation >= 5:
        height, width = width, height
    return ImageFacts(height, width, image.mode, image.format or "", bits, orientation)


def is_tiff(file: BinaryIO) -> bool:
    """Tell whether a file is a TIFF."""
    file.seek(0)
    return file.read(4) in _TIFF_STARTS


def tiff_facts(tiff: TiffFile, page: TiffPage, path: str) -> ImageFacts:
    """Return the facts of one page of a TIFF.

    Raises:
        UserError: it is too large, or its pixels are damaged or of a kind that nothing reads.
    """
    is_deep = page.bits > 8 or page.sample_format != UNSIGNED
    tiff.check_pixels(page)
    needed = _peak_bytes(page.samples, page.bits, is_deep)
    check_size(path, page.height, page.width, needed, tiff.size)
    height, width = page.height, page.width
    if page.orientation >= 5:
        height, width = width, height
    if opencv_alone_reads(page):
        mode = _deep_mode(page, path)
    else:
        mode = open_with_pillow(io.BytesIO(tiff.header_alone(page)), path).mode
    return ImageFacts(height, width, mode, "TIFF", page.bits, frames=len(tiff.frames))


def opencv_alone_reads(page: TiffPage) -> bool:
    """Tell whether Pillow would lose depth or sign of a page, or cannot open it."""
    is_plain = page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB)
    return is_plain and (page.bits > 8 or page.sample_format != UNSIGNED)


def _deep_mode(page: TiffPage, path: str) -> str:
    """Return the mode as Pillow would name it."""
    kind = _KINDS.get(page.sample_format, "complex or undefined")
    if page.bits not in _READ_BITS.get(page.sample_format, ()):
        raise undecodable(
            path, f"its samples are {kind} numbers of {page.bits} bits, which are not read"
        )
    if page.photometric == RGB:
        return "RGBA" if page.has_alpha else "RGB"
    if page.sample_format == FLOAT:
        return "F"
    return "I;16" if page.bits <= 16 and page.sample_format == UNSIGNED else "I"


def _peak_bytes(samples: int, bits: int, is_deep: bool) -> int:
    """Return the bytes of a pixel in all forms that are in memory at once, where they are most.

    Up to 8 bits that is Pillow's form, which has one or four samples, and a copy; grey is then
    repeated. Deeper pixels become float32 RGB, of which alpha takes a second copy.
    """
    if not is_deep:
        return {1: 4, 3: 7}.get(samples, max(8, 2 * samples))
    return max(samples * max(1, bits // 8) + 12, 24 if samples == 4 else 0)


def _jpeg_bytes(file: BinaryIO, path: str) -> int:
    """Return what a pixel takes in a JPEG of several scans, 0 of others.

    All its coefficients are in memory, of 16 bits each, and Pillow's one or four samples.
    """
    file.seek(0)
    data = file.read(_JPEG_HEADER)
    if not jpeg_frame(data).scan:
        data += file.read()
    frame = jpeg_frame(data)
    if not frame.is_buffered:
        return 0
    check_scans(data + file.read(), frame, path)
    return 2 * frame.components + (1 if frame.components == 1 else 4)


def check_scans(data: bytes, frame: JpegFrame, path: str) -> None:
    """Refuse a JPEG whose scans pass over the image again and again.

    Raises:
        UserError: naming the file.
    """
    if frame.is_buffered and data.count(_JPEG_SCAN, frame.scan) > MAX_SCANS:
        raise undecodable(path, f"it has more than {MAX_SCANS} scans")


def open_with_pillow(file: BinaryIO, path: str) -> Image.Image:
    """Open a file in one of `PILLOW_FORMATS`; the pixels are not read yet.

    Raises:
        UserError: the content is none of them, or damaged.
    """
    file.seek(0)
    try:
        with own_pixel_limit:
            return Image.open(file, formats=PILLOW_FORMATS)
    except UnidentifiedImageError:
        raise undecodable(path, "no image format is recognized, or its header is damaged") from None
    except Exception as error:  # a damaged header raises anything
        raise undecodable(path, error) from None


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


def _is_animated(image: Image.Image, path: str) -> bool:
    try:
        with own_pixel_limit:
            return image.is_animated
    except Exception as error:  # a damaged file raises anything
        raise undecodable(path, error) from None


def _bits(image: Image.Image, file: BinaryIO) -> int:
    # Pillow's modes hide the depth of 16-bit color.
    if image.format == "PNG":
        file.seek(_PNG_BITS)
        return file.read(1)[0]
    return _BITS_OF_MODE.get(image.mode, 8)


def _orientation(image: Image.Image) -> int:
    if not image.info.get("exif"):
        return 1
    exif = Image.Exif()
    try:
        exif.load(image.info["exif"])
        value = exif.get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block raises anything; the pixels are fine
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
