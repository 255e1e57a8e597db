"""Read a frame of a DICOM file: its size from the header, its pixels through its own tables.

Nothing that stands in a header as text reaches a message, a log or an error: it may name a patient.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame, parse_basic_offsets, parse_fragments
from pydicom.pixels import apply_color_lut, convert_color_space, get_decoder
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import JPEG2000TransferSyntaxes, UID_dictionary

from ..errors import UserError
from .dicom_file import PIXELS, SEQUENCES, DicomFile, PixelPlace, check_sequence
from .dicom_tables import apply_tables, described_by_frame, has_own_window, tables_of_frame
from .image_file import check_size, file_identity, jpeg_frame, undecodable
from .image_header import check_frame, check_scans, choose_frame
from .intensity import StoredPixels, row_parts
from .shared_switch import SharedSwitch, quiet_warnings

_GREY = ("MONOCHROME1", "MONOCHROME2")
_PALETTE = "PALETTE COLOR"
_CONVERTED = ("YBR_FULL", "YBR_FULL_422")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_NUMBERS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
_DAMAGED = "its DICOM elements are damaged"
_CODECS = 'pip install "ulga_d2[dicom]"'
_JPEG_START = b"\xff\xd8"
_JPEG2000_START = b"\xff\x4f\xff\x51"
# Of a file whose pixel data are kept in memory for its next frame.
_MOST_KEPT_BYTES = 64 * 2**20
_JP2_START = b"\0\0\0\x0cjP  "


@dataclass(frozen=True)
class DicomHeader:
    """The size and the pixel type that a DICOM header states, and whether it has a window.

    Attributes:
        described: what the functional groups of frames hold; see `described_by_frame`.
    """

    height: int
    width: int
    frames: int
    samples: int
    bits_allocated: int
    bits: int
    photometric: str
    has_window: bool
    described: frozenset[str] = frozenset()


def dicom_header(file: BinaryIO, path: str, frame: int = 0) -> DicomHeader:
    """Read a DICOM file's header; the pixels are not touched.

    Args:
        file: open for reading, at its start.
        path: of the file, for messages.
        frame: whose window is asked for, of several.

    Raises:
        UserError: the file is damaged, holds no image, too large a one, or no such frame.
    """
    with _silently(path, _DAMAGED):
        source = DicomFile(file, path)
        return _header(source.header(), path, source.size, frame)


def dicom_frames(file: BinaryIO, path: str) -> int:
    """Return the number of frames of a DICOM file.

    Raises:
        UserError: see `dicom_header`; of several frames also: the pixel data hold fewer than the
            header states, or cannot be decoded.
    """
    with _silently(path, _DAMAGED):
        opened = _Opened(file, path)
        if opened.header.frames > 1:
            dataset, found = opened.dataset()
            _check_frames(dataset, opened.header, found, path)
    return opened.header.frames


def read_dicom(
    file: BinaryIO, path: str, *, apply_voi: bool, frame: int | None = None
) -> StoredPixels:
    """Read the image of a DICOM file.

    Grey pixels go through the modality LUT (rescale slope and intercept, or a table), and with
    `apply_voi` through the file's first VOI LUT or window, if it has any. Without `apply_voi`
    values are those after the modality LUT, and padding is told apart. Colours come as RGB.

    Args:
        file: open for reading, at its start.
        path: of the file, for messages.
        apply_voi: the file's own range is wanted, and so its own window.
        frame: which one of several, from 0; a file of one frame takes no notice of it.

    Returns:
        The pixels, and as limits what the stored bits (in either LUT: its entries) can hold.

    Raises:
        UserError: damaged or without pixels; several frames and none is named; a codec is missing;
            too large.
    """
    with _silently(path, _DAMAGED):
        opened = _Opened(file, path)
        number = choose_frame(path, opened.header.frames, frame)
        dataset, found = opened.dataset()
        return _pixels(dataset, opened.header, found, path, apply_voi, number)


def dicom_limits(file: BinaryIO, path: str, frame: int | None = None) -> tuple[float, float] | None:
    """Return the limits that `read_dicom` states without `apply_voi`, from the header alone.

    Returns:
        None of a file whose header does not tell: colors, and samples of more than 16 bits.

    Raises:
        UserError: as `read_dicom`, for what the header shows.
    """
    with _silently(path, _DAMAGED):
        source = DicomFile(file, path)
        dataset = source.header()
        header = _header(dataset, path, source.size)
        number = choose_frame(path, header.frames, frame)
        if header.photometric not in _GREY or header.bits > 16:
            return None
        tables = tables_of_frame(dataset, number, path, header.described)
        limits, pixel = _limits_of_bits(dataset, header), np.zeros((1, 1), np.int16)
        return apply_tables(pixel, tables, limits, path, apply_voi=False)[1]


def dicom_pixels(
    dataset: Dataset, path: str, *, apply_voi: bool, frame: int | None = None
) -> StoredPixels:
    """Read the image of a DICOM dataset in memory; see `read_dicom`."""
    with _silently(path, _DAMAGED):
        found = _pixel_bytes(dataset)
        header = _header(dataset, path, found)
        number = choose_frame(path, header.frames, frame)
        return _pixels(dataset, header, found, path, apply_voi, number)


def dataset_frames(dataset: Dataset, path: str) -> int:
    """Return the number of frames of a DICOM dataset in memory; see `dicom_frames`."""
    with _silently(path, _DAMAGED):
        found = _pixel_bytes(dataset)
        header = _header(dataset, path, found)
        if header.frames > 1:
            _check_frames(dataset, header, found, path)
        return header.frames


def _pixels(
    dataset: Dataset, header: DicomHeader, found: int, path: str, apply_voi: bool, frame: int
) -> StoredPixels:
    if _check_readable(dataset, header, found, path):
        _check_compressed_size(dataset, header, path, frame)
    with _silently(path, f"its pixel data are damaged, or need another codec: {_CODECS}"):
        pixels = _decoded(dataset, frame)
    with _silently(path, "its lookup tables, rescale values, window or functional groups are bad"):
        if header.photometric in _GREY:
            return _grey(dataset, pixels, header, path, apply_voi, frame)
        if header.photometric == _PALETTE:
            pixels = apply_color_lut(pixels, dataset)
            return StoredPixels(pixels, (0, np.iinfo(pixels.dtype).max))
        return StoredPixels(pixels, _stored_limits(dataset, header))


def _decoded(dataset: Dataset, frame: int) -> np.ndarray:
    """Return a frame's stored values; YBR as RGB, some rows at a time, since each become floats."""
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    pixels, found = decoder.as_array(dataset, index=frame, raw=True)
    if str(found["photometric_interpretation"]) in _CONVERTED:
        for rows in row_parts(pixels):
            pixels[rows] = convert_color_space(pixels[rows], "YBR_FULL", "RGB")
    return pixels


@contextlib.contextmanager
def _silently(path: str, reason: str) -> Iterator[None]:
    """Keep pydicom's words to ourselves, since they quote the header; failures become `reason`."""
    try:
        with _quiet_pydicom:
            yield
    except UserError:
        raise
    except Exception:  # pydicom lets through whatever a damaged value causes
        raise undecodable(path, reason) from None


@contextlib.contextmanager
def _silence_pydicom() -> Iterator[None]:
    logger = logging.getLogger("pydicom")
    before = logger.propagate, logger.handlers
    logger.propagate, logger.handlers = False, [logging.NullHandler()]
    try:
        with quiet_warnings:
            yield
    finally:
        logger.propagate, logger.handlers = before


_quiet_pydicom = SharedSwitch(_silence_pydicom)


class _Opened:
    """The header of a DICOM file, and its elements once they are asked for.

    Of the last file of several frames both are kept for its next frame: the elements of enhanced
    files describe each frame, and take longer to read than a frame. Compressed pixel data are kept
    with them up to `_MOST_KEPT_BYTES`.
    """

    _last: ClassVar[tuple[object, DicomHeader | None, Dataset | None, PixelPlace | None]] = (
        *(None,) * 4,
    )

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._source = None
        self._identity = file_identity(file)
        kept, header, self._elements, self._place = _Opened._last
        if self._identity is None or kept != self._identity:
            self._source = DicomFile(file, path)
            header = _header(self._source.header(), path, self._source.size)
        self.header = header

    def dataset(self) -> tuple[Dataset, int]:
        """Return a dataset to decode one frame of, and how many bytes of pixel data it has."""
        if self._source is not None:
            self._elements, self._place = self._read(self._source)
        if self._place is not None:
            return self._place.dataset(self._elements, self._file), self._place.size
        return self._elements, _pixel_bytes(self._elements)

    def _read(self, source: DicomFile) -> tuple[Dataset, PixelPlace | None]:
        left = None
        # Whether YBR_FULL_422 is subsampled as it should be, pydicom only checks in memory.
        if self.header.frames > 1 and self.header.photometric != "YBR_FULL_422":
            left = source.dataset_without_pixels()
        elements, place = left or (source.dataset(), None)
        if self.header.frames > 1 and (place or source.size <= _MOST_KEPT_BYTES):
            for name in SEQUENCES:
                check_sequence(elements, name, source.path)
                elements.get(name)  # parsed here, once
            _Opened._last = (self._identity, self.header, elements, place)
        return elements, place


def _pixel_bytes(dataset: Dataset) -> int:
    return sum(len(dataset[name].value or b"") for name in PIXELS if name in dataset)


def _header(dataset: Dataset, path: str, file_bytes: int, frame: int = 0) -> DicomHeader:
    reason = "truncated or no image: its header has no usable size or bit depth"
    missing = [name for name in _NUMBERS if name not in dataset]
    if missing:
        raise undecodable(path, f"{reason}; it lacks {', '.join(missing)}")
    with _silently(path, reason):
        rows, columns, samples, allocated = (int(dataset[name].value) for name in _NUMBERS)
        stored = int(dataset.get("BitsStored") or allocated)  # floating point has no such element
        frames = int(dataset.get("NumberOfFrames") or 1)
        is_whole = allocated == 1 or allocated % 8 == 0
        if not (rows > 0 and columns > 0 and frames > 0 and is_whole):
            raise ValueError
        if not 0 < stored <= allocated <= 64:
            raise ValueError
    check_frame(path, frames, frame)
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    if not photometric:
        raise undecodable(path, "its header lacks PhotometricInterpretation, which decoding needs")
    if photometric not in (*_GREY, _PALETTE, *_COLOUR):
        kinds = ", ".join((*_GREY, _PALETTE, *_COLOUR))
        raise undecodable(path, f"its photometric interpretation is none of {kinds}")
    if (samples == 3) != (photometric in _COLOUR) or samples not in (1, 3):
        raise undecodable(path, f"{samples} samples a pixel do not suit {photometric}")
    needed = _bytes_per_pixel(dataset, allocated, photometric)
    check_size(path, rows, columns, needed, file_bytes)
    chosen = frame if frames > 1 else 0
    described: frozenset[str] = frozenset()
    has_window = False
    if photometric in _GREY:
        described = described_by_frame(dataset, path)
        has_window = has_own_window(dataset, chosen, path, described)
    return DicomHeader(
        rows, columns, frames, samples, allocated, stored, photometric, has_window, described
    )


def _bytes_per_pixel(dataset: Dataset, allocated: int, photometric: str) -> int:
    """Return the bytes of a pixel in all forms that are in memory at once, where they are most.

    Tables make float64 of grey pixels, of which percentiles take copies; JPEG 2000 has 32 bits a
    sample inside. 8-bit color is as encoded, in Pillow's form, as bytes and as an array.
    """
    syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    if allocated == 8 and photometric in _COLOUR and syntax not in JPEG2000TransferSyntaxes:
        return 14
    samples = 3 if photometric in _COLOUR else 1
    return max(24, 2 * samples * allocated // 8 + 12)


def _check_readable(dataset: Dataset, header: DicomHeader, found: int, path: str) -> bool:
    """Refuse what lacks its data or its codec; tell whether the frames are compressed."""
    if not any(name in dataset for name in PIXELS):
        raise undecodable(path, "truncated or no image: it has no pixel data")
    needed = ("PixelRepresentation", "BitsStored") if "PixelData" in dataset else ()
    needed += ("PlanarConfiguration",) if header.samples == 3 else ()
    missing = [name for name in needed if dataset.get(name) is None]
    if missing:
        raise undecodable(path, f"its header lacks {' and '.join(missing)}, which decoding needs")
    with _silently(path, "its header names no transfer syntax that pydicom knows"):
        syntax = dataset.file_meta.TransferSyntaxUID
        decoder = get_decoder(syntax)
        encapsulated = syntax.is_encapsulated
    if not decoder.is_available:
        raise UserError(
            f"image {path} is compressed as {UID_dictionary[syntax][0]}, which no installed "
            f"codec reads; {_CODECS}"
        )
    expected = 0 if encapsulated else get_expected_length(dataset)
    if found < expected:
        if header.frames > 1:
            raise _too_few_frames(path, header.frames, found * header.frames // expected)
        reason = f"truncated: {found:,} of {expected:,} bytes of pixel data"
        raise undecodable(path, reason)
    return encapsulated


def _check_frames(dataset: Dataset, header: DicomHeader, found: int, path: str) -> None:
    """Refuse a dataset whose pixel data cannot hold as many frames as its header states."""
    if not _check_readable(dataset, header, found, path):
        return
    encoded = io.BytesIO(dataset.PixelData)
    parse_basic_offsets(encoded)
    fragments, _ = parse_fragments(encoded)  # every frame starts with a fragment of its own
    if fragments < header.frames:
        raise _too_few_frames(path, header.frames, fragments)


def _too_few_frames(path: str, stated: int, held: int) -> UserError:
    reason = f"its header states {stated:,} frames, and its pixel data hold {held:,}"
    return undecodable(path, reason)


def _check_compressed_size(dataset: Dataset, header: DicomHeader, path: str, frame: int) -> None:
    """Compare the size in the compressed image inside with the header's, before decoding it."""
    encoded = get_frame(dataset.PixelData, frame, number_of_frames=header.frames)
    size = _size_inside(encoded, path)
    if size is not None and size != (header.height, header.width):
        reason = (
            f"its header says {header.width} x {header.height} pixels, the compressed image "
            f"inside {size[1]} x {size[0]}"
        )
        raise undecodable(path, reason)


def _size_inside(encoded: bytes, path: str) -> tuple[int, int] | None:
    """Return (height, width) that a JPEG, JPEG-LS or JPEG 2000 states; None of run lengths."""
    if encoded.startswith(_JPEG_START):
        found = jpeg_frame(encoded)
        check_scans(encoded, found, path)
        return found.height, found.width
    if encoded.startswith(_JPEG2000_START):
        # Behind the marker, its length and the capabilities: the ends, then the starts.
        ends, starts = 8, 16
        width, height = (
            int.from_bytes(encoded[ends + at : ends + at + 4], "big")
            - int.from_bytes(encoded[starts + at : starts + at + 4], "big")
            for at in (0, 4)
        )
        return height, width
    if encoded.startswith(_JP2_START):
        image = Image.open(io.BytesIO(encoded), formats=("JPEG2000",))
        return image.height, image.width
    return None


def _grey(
    dataset: Dataset,
    pixels: np.ndarray,
    header: DicomHeader,
    path: str,
    apply_voi: bool,
    frame: int,
) -> StoredPixels:
    padding = None if apply_voi else _padding(dataset, pixels)
    tables = tables_of_frame(dataset, frame, path, header.described)
    limits = _stored_limits(dataset, header)
    pixels, limits = apply_tables(pixels, tables, limits, path, apply_voi=apply_voi)
    return StoredPixels(pixels, limits, header.photometric == "MONOCHROME1", padding)


def _stored_limits(dataset: Dataset, header: DicomHeader) -> tuple[float, float] | None:
    return _limits_of_bits(dataset, header) if "PixelData" in dataset else None


def _limits_of_bits(dataset: Dataset, header: DicomHeader) -> tuple[float, float]:
    if dataset.get("PixelRepresentation"):
        return -(2.0 ** (header.bits - 1)), 2.0 ** (header.bits - 1) - 1
    return 0.0, 2.0**header.bits - 1


def _padding(dataset: Dataset, pixels: np.ndarray) -> np.ndarray | None:
    """Return where the stored pixels are padding, or None where there is none."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    ends = sorted((value, dataset.get("PixelPaddingRangeLimit", value)))
    padding = (pixels >= ends[0]) & (pixels <= ends[1])
    return padding if padding.any() and not padding.all() else None
