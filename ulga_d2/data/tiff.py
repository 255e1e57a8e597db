"""Read the directory of a TIFF: its pages and what each says, before any decoder sees the file.

Everything that could make a decoder allocate or loop without end is compared with the size of the
file here: the chain of pages, the values of tags, and the strips or tiles of the pixels.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

import numpy as np

from .image_file import file_identity, undecodable

# Values of SampleFormat.
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
# Values of PhotometricInterpretation.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2

MAX_PAGES = 65_536
_MAX_SAMPLES = 64
# What a TIFF says in its first bytes when its offsets have 64 bits.
_BIG_TIFF = 43
# numpy's code and the bytes of each type of value.
_TYPES = {
    **{1: ("u1", 1), 2: ("u1", 1), 3: ("u2", 2), 4: ("u4", 4), 5: ("u4", 8), 6: ("i1", 1)},
    **{7: ("u1", 1), 8: ("i2", 2), 9: ("i4", 4), 10: ("i4", 8), 11: ("f4", 4), 12: ("f8", 8)},
    **{13: ("u4", 4), 16: ("u8", 8), 17: ("i8", 8), 18: ("u8", 8)},
}
_SUBFILE, _OLD_SUBFILE = 254, 255
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 262, 274
_SAMPLES, _ROWS_PER_STRIP, _PLANAR, _EXTRA, _FORMAT = 277, 278, 284, 338, 339
_STRIPS, _STRIP_BYTES = 273, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_COMPRESSION, _UNCOMPRESSED, _OLD_JPEG = 259, 1, 6
_PARTS = frozenset([_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES])
# What a decoder needs of a page besides where its strips or tiles are: sizes and kinds, the order
# of bits, predictors, palettes, JPEG tables, inks and the weights of YCbCr.
_DECODED = frozenset(
    [
        *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, 266, _ORIENTATION),
        *(_SAMPLES, _ROWS_PER_STRIP, _PLANAR, 292, 293, 317, 320, _TILE_WIDTH, _TILE_HEIGHT),
        *(332, 334, _EXTRA, _FORMAT, 347, 529, 530, 531, 532, 50674),
    ]
)
# Bits of NewSubfileType: a smaller copy of another page, or its mask.
_NO_FRAME = 0b101
_SMALLER_COPY = 2  # of the old SubfileType

Content = tuple[int, int, bytes]  # type, count and bytes of a tag's values


@dataclass(frozen=True, slots=True)
class Tag:
    """A value of a page, not yet read: its type, how many there are, and where."""

    kind: int
    count: int
    position: int

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return self.count * _TYPES.get(self.kind, ("u1", 1))[1]


@dataclass(frozen=True, slots=True)
class TiffPage:
    """One page of a TIFF.

    Attributes:
        number: of the page in the file, from 0, smaller copies and masks counted.
        offset: of its directory in the file.
        height, width: in pixels, as stored.
        bits: of a sample.
        samples: of a pixel.
        sample_format: UNSIGNED, SIGNED, FLOAT or another.
        photometric: what the samples mean.
        orientation: 1 (upright) to 8.
        has_alpha: a sample beyond the colors is declared as opacity.
    """

    number: int
    offset: int
    height: int
    width: int
    bits: int
    samples: int
    sample_format: int
    photometric: int
    orientation: int
    has_alpha: bool


class TiffFile:
    """The directory of a TIFF; that of the last file of several pages is kept for its next frame.

    Args:
        file: open for reading; it is left anywhere.
        path: for messages.

    Attributes:
        size: of the file, in bytes.
        frames: the pages that are images of their own: not the smaller copies of a pyramid, no
            thumbnails, no masks.

    Raises:
        UserError: the chain of pages or a tag is damaged, or leads nowhere.
    """

    _last: ClassVar[tuple[object, tuple[TiffPage, ...]]] = (None, ())

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path
        self.size = file.seek(0, io.SEEK_END)
        start = self._at(0, 8)
        self._order = "<" if start.startswith(b"II") else ">"
        self._is_big = struct.unpack(self._order + "H", start[2:4])[0] == _BIG_TIFF
        # Offsets, counts of entries and of values, and what an entry takes.
        self._offset, self._count = ("Q", "Q") if self._is_big else ("I", "H")
        self._entry = struct.Struct(self._order + "HH" + self._offset * 2)
        self._link = struct.calcsize("=" + self._offset)
        identity = file_identity(file)
        kept, self.frames = TiffFile._last
        if identity is None or kept != identity:
            self.frames = self._frames()
            if len(self.frames) > 1:
                TiffFile._last = (identity, self.frames)

    def header_alone(self, page: TiffPage) -> bytes:
        """Return a page's directory as a TIFF without pixels, for who opens it and decodes none."""
        tags = self._tags_at(page.offset)
        return self._header(self._contents(tags, _DECODED | _PARTS))

    def page_alone(self, page: TiffPage) -> bytes | bytearray:
        """Return a page as a TIFF of its own, with the tags that decoding needs and no others.

        Only the page is read of the file, unless it is old or odd: decoders have rules of their
        own for lengths that are wrong, and these look at the whole file.
        """
        tags = self._tags_at(page.offset)
        places, lengths = (_TILES, _TILE_BYTES) if _TILES in tags else (_STRIPS, _STRIP_BYTES)
        offsets, sizes = (self._values(tags, tag).astype(object) for tag in (places, lengths))
        is_whole = (
            len(offsets) == len(sizes) and all(sizes) and (offsets + sizes).max() <= self.size
        )
        if self._one(tags, _COMPRESSION, 1) == _UNCOMPRESSED:
            pixels = page.height * page.width * page.samples * page.bits // 8
            is_whole = is_whole and sum(sizes) >= pixels
        if not is_whole or self._one(tags, _COMPRESSION, 1) == _OLD_JPEG:
            return self._relinked(page)
        contents = self._contents(tags, _DECODED)
        kind, layout = (16, f"{len(sizes)}Q") if self._is_big else (4, f"{len(sizes)}I")
        starts = np.cumsum([0, *sizes[:-1]], dtype=object)
        for _ in range(2):  # where the pixels start is known once the header is written
            for tag, numbers in ((places, starts), (lengths, sizes)):
                contents[tag] = (kind, len(sizes), struct.pack(self._order + layout, *numbers))
            data = bytearray(self._header(contents))
            starts += len(data) - starts[0]
        data += bytes(sum(sizes))
        view = memoryview(data)
        for offset, start, size in zip(offsets, starts, sizes, strict=True):
            self._file.seek(offset)
            self._file.readinto(view[start : start + size])  # type: ignore[attr-defined]
        return data

    def _contents(self, tags: dict[int, Tag], codes: frozenset[int]) -> dict[int, Content]:
        return {
            code: (tag.kind, tag.count, self._at(tag.position, tag.size))
            for code, tag in tags.items()
            if code in codes
        }

    def _header(self, contents: dict[int, Content]) -> bytes:
        """Return the start of a TIFF of one page with these tags; its pixels follow."""
        order, first = self._order, 2 * self._link
        version = (_BIG_TIFF, self._link, 0) if self._is_big else (42,)
        data = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}{len(version)}H", *version)
        data += struct.pack(order + self._offset, first)
        data += struct.pack(order + self._count, len(contents))
        behind = len(data) + self._entry.size * len(contents) + self._link
        outside = b""
        for code, (kind, count, content) in sorted(contents.items()):
            data += struct.pack(order + "HH" + self._offset, code, kind, count)
            if len(content) > self._link:
                data += struct.pack(order + self._offset, behind + len(outside))
                outside += content + bytes(len(content) % 2)
            else:
                data += content.ljust(self._link, b"\0")
        return data + bytes(self._link) + outside

    def _relinked(self, page: TiffPage) -> bytes:
        """Return the file as one that starts with a page, so that decoders take it for the first.

        Pages are a chain: the file's start says where the first lies, and each where the next does.
        """
        data = self._at(0, self.size)
        if page.number == 0:
            return data
        link = struct.pack(self._order + self._offset, page.offset)
        return data[: self._link] + link + data[2 * self._link :]

    def check_pixels(self, page: TiffPage) -> None:
        """Compare what a page says of its pixel data with the size of the file.

        Raises:
            UserError: more strips or tiles than the file can hold, or of more bytes.
        """
        tags = self._tags_at(page.offset)
        of_tags = sum(tag.size for tag in tags.values() if tag.size > self._link)
        if of_tags > self.size:
            raise self._damaged("its tags state more bytes than the file has")
        is_tiled = _TILES in tags
        offsets = self._values(tags, _TILES if is_tiled else _STRIPS)
        lengths = self._values(tags, _TILE_BYTES if is_tiled else _STRIP_BYTES)
        width, height = page.width, page.height
        if is_tiled:
            width, height = (self._one(tags, tag, 0) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
            # Writers round tiles up to a multiple of 16, and viewers' tiles have 256 to 1,024.
            if not (0 < width <= page.width + 4096 and 0 < height <= page.height + 4096):
                raise self._damaged("its tiles are larger than the image")
        else:
            height = min(height, self._one(tags, _ROWS_PER_STRIP, height))
        if height < 1:
            raise self._damaged("its strips have no rows")
        planes = page.samples if self._one(tags, _PLANAR, 1) == 2 else 1
        needed = -(-page.width // width) * -(-page.height // height) * planes
        if len(offsets) < needed:
            raise self._damaged(f"it has {len(offsets):,} of {needed:,} strips or tiles")
        if len(lengths):
            count = min(len(offsets), len(lengths))
            left = np.maximum(self.size - offsets[:count].astype(np.float64), 0)
            stated = np.minimum(lengths[:count].astype(np.float64), left).sum()
            if stated > 2 * self.size:
                raise self._damaged("its strips or tiles state more bytes than the file has")

    def _frames(self) -> tuple[TiffPage, ...]:
        """Return the pages that are images of their own; of none, the first."""
        first, frames = None, []
        for number, offset in self._chain():
            tags = self._tags_at(offset)
            page = self._page(number, offset, tags)
            first = first or page
            if self._is_frame(tags):
                frames.append(page)
        if first is None:
            raise self._damaged("it has no page")
        return tuple(frames or [first])

    def _chain(self) -> Iterator[tuple[int, int]]:
        """Yield number and offset of each page."""
        offset = self._number(self._link, self._offset)
        seen: set[int] = set()
        entry_bytes = 0
        while offset:
            if offset in seen or not offset < self.size:
                raise self._damaged("its chain of pages is damaged")
            if len(seen) == MAX_PAGES:
                raise self._damaged(f"it has more than {MAX_PAGES:,} pages")
            seen.add(offset)
            length = self._number(offset, self._count) * self._entry.size
            entry_bytes += length
            if entry_bytes > self.size:
                raise self._damaged("its pages state more tags than the file can hold")
            yield len(seen) - 1, offset
            behind = offset + struct.calcsize("=" + self._count) + length
            offset = self._number(behind, self._offset)

    def _tags_at(self, offset: int) -> dict[int, Tag]:
        length = self._number(offset, self._count) * self._entry.size
        start = offset + struct.calcsize("=" + self._count)
        return self._entries(start, self._at(start, length))

    def _entries(self, start: int, block: bytes) -> dict[int, Tag]:
        tags: dict[int, Tag] = {}
        for index, (code, kind, count, value) in enumerate(self._entry.iter_unpack(block)):
            # A value that fits stands in the entry itself, in its last field.
            is_inside = Tag(kind, count, 0).size <= self._link
            inside = start + (index + 1) * self._entry.size - self._link
            tags.setdefault(code, Tag(kind, count, inside if is_inside else value))
        return tags

    def _page(self, number: int, offset: int, tags: dict[int, Tag]) -> TiffPage:
        height, width = self._one(tags, _HEIGHT, 0), self._one(tags, _WIDTH, 0)
        bits = self._values(tags, _BITS, _MAX_SAMPLES)
        samples = self._one(tags, _SAMPLES, 1)
        if not (0 < height < 2**32 and 0 < width < 2**32 and 0 < samples <= _MAX_SAMPLES):
            raise self._damaged(f"page {number} has no usable size")
        extra = self._values(tags, _EXTRA, _MAX_SAMPLES)
        orientation = self._one(tags, _ORIENTATION, 1)
        return TiffPage(
            number=number,
            offset=offset,
            height=height,
            width=width,
            bits=int(bits.max()) if len(bits) else 1,
            samples=samples,
            sample_format=self._one(tags, _FORMAT, UNSIGNED),
            photometric=self._one(tags, _PHOTOMETRIC, BLACK_IS_ZERO),
            orientation=orientation if 1 <= orientation <= 8 else 1,
            has_alpha=bool(np.isin(extra, (1, 2)).any()),
        )

    def _is_frame(self, tags: dict[int, Tag]) -> bool:
        is_copy = self._one(tags, _OLD_SUBFILE, 0) == _SMALLER_COPY
        return not is_copy and not self._one(tags, _SUBFILE, 0) & _NO_FRAME

    def _one(self, tags: dict[int, Tag], code: int, default: int) -> int:
        values = self._values(tags, code, 1)
        return int(values[0]) if len(values) else default

    def _values(self, tags: dict[int, Tag], code: int, most: int | None = None) -> np.ndarray:
        """Return the whole numbers of a tag, at most so many; none where it is missing."""
        tag = tags.get(code)
        if tag is None or tag.kind not in _TYPES:
            return np.empty(0, np.int64)
        name, size = _TYPES[tag.kind]
        if tag.size > self.size:
            raise self._damaged("its tags state more bytes than the file has")
        count = tag.count if most is None else min(tag.count, most)
        data = self._at(tag.position, count * size)
        values = np.frombuffer(data, np.dtype(self._order + name))
        return values if values.dtype.kind in "ui" else np.empty(0, np.int64)

    def _number(self, position: int, kind: str) -> int:
        layout = struct.Struct(self._order + kind)
        return layout.unpack(self._at(position, layout.size))[0]

    def _at(self, position: int, length: int) -> bytes:
        if position + length > self.size:
            raise self._damaged("truncated: a part of its directory is missing")
        self._file.seek(position)
        return self._file.read(length)

    def _damaged(self, reason: str) -> Exception:
        return undecodable(self._path, reason)
