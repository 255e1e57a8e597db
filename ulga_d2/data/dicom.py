"""Read a frame of a DICOM file: its size from the header, its pixels through its own tables.

Nothing that stands in a header as text reaches a message, a log or an error: it may name a patient.
"""

from __future__ import annotations

import contextlib
import io
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame, parse_basic_offsets, parse_fragments
from pydicom.filereader import read_partial
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, get_decoder
from pydicom.pixels.utils import get_expected_length
from pydicom.pixels.utils import pixel_array as decode
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    UID_dictionary,
)

from ..errors import UserError
from .image_file import MAX_FILE_BYTES, check_pixel_count, undecodable
from .intensity import StoredPixels
from .shared_switch import SharedSwitch, quiet_warnings

_GREY = ("MONOCHROME1", "MONOCHROME2")
_PALETTE = "PALETTE COLOR"
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_NUMBERS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored")
_OWN_RANGE = ("WindowCenter", "VOILUTSequence")
_OF_A_HEADER = {
    "stop_before_pixels": True,
    "specific_tags": [*_NUMBERS, "NumberOfFrames", "PhotometricInterpretation", *_OWN_RANGE],
}
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_PIXEL_TAG = 0x7FE00010
_UNDEFINED = 0xFFFFFFFF  # the length of an element that ends with a mark
_UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META_GROUP_LENGTH = b"\x02\0\0\0UL\x04\0"
_META_START = 132
_DAMAGED = "its DICOM elements are damaged"
_CODECS = 'pip install "ulga_d2[dicom]"'


@dataclass(frozen=True)
class DicomHeader:
    """The size and the pixel type that a DICOM header states, and whether it has a window."""

    height: int
    width: int
    frames: int
    samples: int
    bits_allocated: int
    bits: int
    photometric: str
    has_window: bool


def dicom_header(file: BinaryIO, path: str) -> DicomHeader:
    """Read a DICOM file's header; the pixels are not touched.

    Raises:
        UserError: the file is damaged, holds no image, or too large a one.
    """
    with _silently(path, _DAMAGED):
        return _header(_dataset(file, path, **_OF_A_HEADER), path)


def dicom_frames(file: BinaryIO, path: str) -> int:
    """Return the number of frames of a DICOM file.

    Raises:
        UserError: see `dicom_header`; of several frames also: the pixel data hold fewer than the
            header states, or cannot be decoded.
    """
    frames = dicom_header(file, path).frames
    if frames > 1:
        file.seek(0)
        with _silently(path, _DAMAGED):
            _check_frames(*_dataset_of_frames(file, path), path)
    return frames


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
        frame: number of the frame, from 0; None takes the only one there is.

    Returns:
        The pixels, and as limits what the stored bits (in either LUT: its entries) can hold.

    Raises:
        UserError: damaged or without pixels; several frames and none is named; a codec is missing;
            too large.
    """
    with _silently(path, _DAMAGED):
        if frame is None:
            return dicom_pixels(_dataset(file, path), path, apply_voi=apply_voi)
        dataset, found = _dataset_of_frames(file, path)
        return _pixels(dataset, found, path, apply_voi, frame)


def dicom_pixels(
    dataset: Dataset, path: str, *, apply_voi: bool, frame: int | None = None
) -> StoredPixels:
    """Read the image of a DICOM dataset in memory; see `read_dicom`."""
    with _silently(path, _DAMAGED):
        return _pixels(dataset, _pixel_bytes(dataset), path, apply_voi, frame)


def dataset_frames(dataset: Dataset, path: str) -> int:
    """Return the number of frames of a DICOM dataset in memory; see `dicom_frames`."""
    with _silently(path, _DAMAGED):
        frames = _header(dataset, path).frames
        if frames > 1:
            _check_frames(dataset, _pixel_bytes(dataset), path)
        return frames


def _pixels(
    dataset: Dataset, found: int, path: str, apply_voi: bool, frame: int | None
) -> StoredPixels:
    header = _header(dataset, path)
    if frame is not None and frame >= header.frames:
        raise UserError(f"image {path} has {header.frames} frames, and no frame {frame}")
    if frame is None and header.frames > 1:
        raise UserError(
            f"image {path} has {header.frames} frames, and only DICOM files of one frame are read; "
            "export each frame to a file of its own"
        )
    if _check_readable(dataset, header, found, path):
        _check_compressed_size(dataset, header, path, frame or 0)
    with _silently(path, f"its pixel data are damaged, or need another codec: {_CODECS}"):
        pixels = decode(dataset, index=frame or 0)
    with _silently(path, "its lookup tables, rescale values or window are unusable"):
        if header.photometric in _GREY:
            return _grey(dataset, pixels, header, apply_voi)
        if header.photometric == _PALETTE:
            pixels = apply_color_lut(pixels, dataset)
            return StoredPixels(pixels, (0, np.iinfo(pixels.dtype).max))
        return StoredPixels(pixels, _stored_limits(dataset, header))


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


def _dataset(file: BinaryIO, path: str, **options: object) -> Dataset:
    _check_inflated_size(file, path)
    return pydicom.dcmread(file, **options)


def _dataset_of_frames(file: BinaryIO, path: str) -> tuple[Dataset, int]:
    """Return a dataset and how many bytes of pixel data it has.

    Several uncompressed frames are not read: the element of the pixel data holds the file itself,
    which stands where they start, and pydicom reads the one frame that it is asked for.
    """
    start = _dataset(file, path, **_OF_A_HEADER)
    file.seek(0)
    header = _header(start, path)
    is_uncompressed = start.file_meta.get("TransferSyntaxUID") in _UNCOMPRESSED
    # Whether YBR_FULL_422 is subsampled as it should be, pydicom only checks in memory.
    if header.frames == 1 or not is_uncompressed or header.photometric == "YBR_FULL_422":
        dataset = _dataset(file, path)
        return dataset, _pixel_bytes(dataset)
    places = []

    def is_pixel_data(tag: int, vr: str | None, length: int) -> bool:
        is_found = tag == _PIXEL_TAG and length != _UNDEFINED and vr in (None, "OB", "OW")
        if is_found:
            places.append((vr or "OW", file.tell(), length))
        return is_found

    dataset = read_partial(file, is_pixel_data)
    if not places:
        return dataset, _pixel_bytes(dataset)
    vr, position, length = places[0]
    found = min(length, file.seek(0, io.SEEK_END) - position)
    file.seek(position)
    dataset.add(DataElement(_PIXEL_TAG, vr, file))
    return dataset, found


def _pixel_bytes(dataset: Dataset) -> int:
    return sum(len(dataset[name].value) for name in _PIXELS if name in dataset)


def _check_inflated_size(file: BinaryIO, path: str) -> None:
    """Refuse a deflated file that would inflate beyond the size limit; pydicom sets none."""
    start = file.read(4096)
    file.seek(0)
    if _DEFLATED not in start:
        return
    if not start.startswith(_META_GROUP_LENGTH, _META_START):
        raise undecodable(path, "deflated, without the length of its file meta information")
    length_at = _META_START + len(_META_GROUP_LENGTH)
    length = int.from_bytes(start[length_at : length_at + 4], "little")
    data = file.read()[length_at + 4 + length :]
    file.seek(0)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = 0
    while data and not inflater.eof:
        inflated += len(inflater.decompress(data, 2**20))
        data = inflater.unconsumed_tail
        if inflated > MAX_FILE_BYTES:
            raise undecodable(path, f"it inflates to more than {MAX_FILE_BYTES:,} bytes")


def _header(dataset: Dataset, path: str) -> DicomHeader:
    with _silently(path, "truncated or no image: its header has no usable size or bit depth"):
        rows, columns, samples, allocated, stored = (int(dataset[name].value) for name in _NUMBERS)
        frames = int(dataset.get("NumberOfFrames") or 1)
        is_whole = allocated == 1 or allocated % 8 == 0
        if not (rows > 0 and columns > 0 and frames > 0 and is_whole):
            raise ValueError
        if not 0 < stored <= allocated <= 64:
            raise ValueError
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric not in (*_GREY, _PALETTE, *_COLOUR):
        kinds = ", ".join((*_GREY, _PALETTE, *_COLOUR))
        raise undecodable(path, f"its photometric interpretation is none of {kinds}")
    if (samples == 3) != (photometric in _COLOUR) or samples not in (1, 3):
        raise undecodable(path, f"{samples} samples a pixel do not suit {photometric}")
    check_pixel_count(path, rows, columns)
    has_window = any(name in dataset and dataset[name].value for name in _OWN_RANGE)
    return DicomHeader(rows, columns, frames, samples, allocated, stored, photometric, has_window)


def _check_readable(dataset: Dataset, header: DicomHeader, found: int, path: str) -> bool:
    """Refuse what lacks its data or its codec; tell whether the frames are compressed."""
    if not any(name in dataset for name in _PIXELS):
        raise undecodable(path, "truncated or no image: it has no pixel data")
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


def _check_frames(dataset: Dataset, found: int, path: str) -> None:
    """Refuse a dataset whose pixel data cannot hold as many frames as its header states."""
    header = _header(dataset, path)
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
    """Compare the size in the JPEG (2000) image inside with the header's, before decoding it."""
    encoded = get_frame(dataset.PixelData, frame, number_of_frames=header.frames)
    try:
        width, height = Image.open(io.BytesIO(encoded)).size
    except Image.DecompressionBombError:
        raise undecodable(path, "the compressed image inside is too large") from None
    except Exception:  # no JPEG, or none that Pillow knows: a decoder may
        return
    if (height, width) != (header.height, header.width):
        reason = (
            f"its header says {header.width} x {header.height} pixels, the compressed image "
            f"inside {width} x {height}"
        )
        raise undecodable(path, reason)


def _grey(
    dataset: Dataset, pixels: np.ndarray, header: DicomHeader, apply_voi: bool
) -> StoredPixels:
    inverted = header.photometric == "MONOCHROME1"
    padding = None if apply_voi else _padding(dataset, pixels)
    limits = _stored_limits(dataset, header)
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if dataset.get("ModalityLUTSequence"):
        pixels = apply_modality_lut(pixels, dataset)
        limits = _table_limits(dataset.ModalityLUTSequence[0])
    elif slope is not None and intercept is not None and (slope, intercept) != (1, 0):
        pixels = apply_modality_lut(pixels, dataset)
        limits = tuple(sorted(limit * float(slope) + float(intercept) for limit in limits))
    if apply_voi:
        tables = dataset.get("VOILUTSequence")
        has_table = tables and tables[0].get("LUTDescriptor") and tables[0].get("LUTData")
        windowed = apply_voi_lut(pixels, dataset)
        if has_table:
            limits = _table_limits(tables[0])
        elif windowed is not pixels and (slope or 0) < 0:
            windowed = sum(limits) - windowed  # pydicom takes its ends in the stored order
        pixels = windowed
    return StoredPixels(pixels, limits, inverted, padding)


def _stored_limits(dataset: Dataset, header: DicomHeader) -> tuple[float, float] | None:
    if "PixelData" not in dataset:
        return None
    if dataset.get("PixelRepresentation"):
        return -(2.0 ** (header.bits - 1)), 2.0 ** (header.bits - 1) - 1
    return 0.0, 2.0**header.bits - 1


def _table_limits(table: Dataset) -> tuple[float, float]:
    return 0.0, 2.0 ** int(table.LUTDescriptor[2]) - 1


def _padding(dataset: Dataset, pixels: np.ndarray) -> np.ndarray | None:
    """Return where the stored pixels are padding, or None where there is none."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    ends = sorted((value, dataset.get("PixelPaddingRangeLimit", value)))
    padding = (pixels >= ends[0]) & (pixels <= ends[1])
    return padding if padding.any() and not padding.all() else None
