"""Read the elements of a DICOM file that an image needs, in memory and time that are bounded.

pydicom sets no bounds: a deflated file may inflate, and nested sequences may grow, to a thousand
times their size.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import pydicom
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_partial, read_preamble
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from .image_file import MAX_EXPANSION, MAX_INFLATED_BYTES, undecodable

HEADER = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "NumberOfFrames",
    "PhotometricInterpretation",
)
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# What decides how stored values become grey levels.
TABLES = (
    "BitsAllocated",
    "BitsStored",
    "PhotometricInterpretation",
    "PixelRepresentation",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
)
SEQUENCES = (
    "ModalityLUTSequence",
    "VOILUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
_COLORS = ("Red", "Green", "Blue", "Alpha")
_PALETTE = [
    f"{kind}{color}PaletteColorLookupTable{part}"
    for color in _COLORS
    for kind, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
_OTHERS = (
    "HighBit",
    "PlanarConfiguration",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)
_WANTED = [*HEADER, *TABLES, *SEQUENCES, *_PALETTE, *_OTHERS, *PIXELS]
_WANTED_TAGS = [tag for tag in map(pydicom.datadict.tag_for_keyword, _WANTED) if tag is not None]
_HEADER_TAGS = [pydicom.datadict.tag_for_keyword(name) for name in (*HEADER, *TABLES, *SEQUENCES)]
_PIXEL_TAG = 0x7FE00010
_PIXEL_TAGS = frozenset([0x7FE00008, 0x7FE00009, _PIXEL_TAG])
_META_GROUP = 0x0002
_UNDEFINED = 0xFFFFFFFF  # the length of an element that ends with a mark
_UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
_PREAMBLE = b"\0" * 128 + b"DICM"
# An element takes one to three reads; an enhanced file of 2,000 frames has some 100,000 elements.
MAX_READS = 300_000
# Of one sequence: an item becomes an object a hundred times its size.
MAX_SEQUENCE_BYTES = 16 * 2**20
MAX_ITEMS = 100_000
_ITEM_MARKS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")


@dataclass(frozen=True)
class PixelPlace:
    """Where a file has uncompressed pixel data: their VR, first byte and number of bytes."""

    vr: str
    position: int
    size: int

    def dataset(self, elements: Dataset, file: BinaryIO) -> Dataset:
        """Return a dataset with these elements and the pixel data left in the file.

        The element of the pixel data holds the file itself, which stands where they start, and
        pydicom reads the one frame that it is asked for.
        """
        dataset = Dataset({tag: elements.get_item(tag) for tag in elements.keys()})
        dataset.file_meta = elements.file_meta
        dataset.set_original_encoding(*elements.original_encoding, None)
        file.seek(self.position)
        dataset.add(DataElement(_PIXEL_TAG, self.vr, file))
        return dataset


class DicomFile:
    """The elements of a DICOM file; a deflated one is inflated once.

    Args:
        file: open for reading, at its start; with or without DICOM's preamble.
        path: of the file, for messages.

    Attributes:
        path: of the file, for messages.
        size: of the file as stored, in bytes.

    Raises:
        UserError: it inflates to too much. Damaged elements raise whatever pydicom does.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        self.path = path
        self.size = file.seek(0, io.SEEK_END)
        self._file = file
        file.seek(0)
        bounded = self._bounded()
        read_preamble(bounded, force=True)
        self._meta = read_dataset(bounded, False, True, stop_when=_is_behind_meta)
        self._is_deflated = self._meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
        if self._is_deflated:
            self._file = self._inflated(file.tell())

    def header(self) -> Dataset:
        """Return all elements that an image needs but palettes and the pixel data."""
        return self._read(lambda file: read_partial(file, _is_pixel_data, None, True, _HEADER_TAGS))

    def dataset(self) -> Dataset:
        """Return all elements that an image needs, its pixel data as well."""
        return self._read(lambda file: read_partial(file, None, None, True, _WANTED_TAGS))

    def dataset_without_pixels(self) -> tuple[Dataset, PixelPlace] | None:
        """Return the elements but the pixel data, and where the file has these.

        None where they are compressed, or the file is.
        """
        if self._is_deflated:
            return None
        places = []

        def is_plain_pixel_data(tag: BaseTag, vr: str | None, length: int) -> bool:
            if tag == _PIXEL_TAG and length != _UNDEFINED and vr in (None, "OB", "OW"):
                places.append((vr or "OW", self._file.tell(), length))
            return bool(places)

        dataset = self._read(
            lambda file: read_partial(file, is_plain_pixel_data, None, True, _WANTED_TAGS)
        )
        if not places or dataset.file_meta.TransferSyntaxUID not in _UNCOMPRESSED:
            return None
        vr, position, length = places[0]
        return dataset, PixelPlace(vr, position, min(length, self.size - position))

    def _read(self, read: Callable[[_Bounded], Dataset]) -> Dataset:
        self._file.seek(0)
        bounded = self._bounded()
        try:
            dataset = read(bounded)
        except Exception:  # pydicom turns some of what a file raises into its own errors
            bounded.check()
            raise
        if self._meta.get("TransferSyntaxUID") is None:
            dataset.file_meta.TransferSyntaxUID = _syntax_as_found(dataset)
        return dataset

    def _bounded(self) -> _Bounded:
        return _Bounded(self._file, self.path)

    def _inflated(self, position: int) -> BinaryIO:
        """Return the file as if it had been written without deflating."""
        self._file.seek(position)
        limit = max(MAX_INFLATED_BYTES, MAX_EXPANSION * self.size)
        syntax = ExplicitVRLittleEndian.encode() + b"\0"
        inflated = io.BytesIO()
        inflated.write(_PREAMBLE + b"\x02\0\x10\0UI" + len(syntax).to_bytes(2, "little") + syntax)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        while not inflater.eof:
            data = inflater.unconsumed_tail or self._file.read(2**16)
            if not data:
                break
            inflated.write(inflater.decompress(data, 2**20))
            if inflated.tell() > limit:
                raise undecodable(self.path, f"it inflates to more than {limit:,} bytes")
        return inflated


class _Bounded:
    """A file that allows so many reads; each that pydicom makes stands for an element or an item.

    Args:
        file: where it reads.
        path: for the message.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path
        self._left = MAX_READS
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Read as the file does.

        Raises:
            UserError: it was too often.
        """
        self._left -= 1
        self.check()
        return self._file.read(size)

    def check(self) -> None:
        """Refuse what was read too often.

        Raises:
            UserError: it was.
        """
        if self._left < 0:
            raise undecodable(self._path, "it has too many DICOM elements")


def check_sequence(dataset: Dataset, name: str, path: str) -> None:
    """Refuse a sequence, before it is parsed, that would take far more memory than it has bytes.

    Raises:
        UserError: naming the file.
    """
    element = dataset.get_item(Tag(name))
    if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
        return
    items = max(map(element.value.count, _ITEM_MARKS))
    if len(element.value) > MAX_SEQUENCE_BYTES or items > MAX_ITEMS:
        raise undecodable(path, f"its {name} is too large")


def _is_behind_meta(tag: BaseTag | int, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != _META_GROUP


def _is_pixel_data(tag: BaseTag | int, _vr: str | None, _length: int) -> bool:
    return tag in _PIXEL_TAGS


def _syntax_as_found(dataset: Dataset) -> UID:
    """Return how a file without file meta information is encoded; never a compressed one."""
    is_implicit, is_little = dataset.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
