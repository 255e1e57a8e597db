"""Small image files that stand for far more than they hold, each written by one function."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
from dicom_files import dicom_of
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

GREY = np.arange(126, dtype=np.uint8).reshape(9, 14)


def repeated(block: bytes, times: int) -> bytes:
    """Return a block so many times over, deflated without a header; quickly, for it is done once.

    Behind a full flush, deflated data do not refer to what was before.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    return packed * times + zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS).flush()


def zeros(count: int) -> bytes:
    """Return so many zero bytes in zlib's format."""
    whole, rest = divmod(count, 2**20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = packer.compress(bytes(rest)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = (count % 65_521) << 16 | 1  # Adler-32 of zeros
    return b"\x78\xda" + first + repeated(bytes(2**20), whole) + checksum.to_bytes(4, "big")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + crc


def png(
    width: int, height: int, bits: int, color: int, body: bytes = b"\0" * 9, *, before: bytes = b""
) -> bytes:
    """Return a PNG whose header says this; `color` is 0 grey, 2 RGB, 3 palette, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + before
        + png_chunk(b"IDAT", body)
        + png_chunk(b"IEND", b"")
    )


def black_png(width: int, height: int, bits: int, color: int, *, before: bytes = b"") -> bytes:
    """Return a PNG of zeros in all its size, a thousandth of it on disk."""
    samples = {0: 1, 2: 3, 3: 1, 6: 4}[color]
    row = 1 + -(-width * samples * bits // 8)
    return png(width, height, bits, color, zeros(row * height), before=before)


def small_png(before: bytes) -> bytes:
    return black_png(14, 9, 8, 2, before=before)


def jpeg(width: int, height: int, *, progressive: bool = False, scans: int = 1) -> bytes:
    """Return a JPEG whose frame header says this, with the body of a small one."""
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([GREY] * 3)).save(buffer, "JPEG", progressive=progressive)
    data = buffer.getvalue()
    marker = b"\xff\xc2" if progressive else b"\xff\xc0"
    at = data.index(marker) + 5
    data = data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]
    scan = data.index(b"\xff\xda")
    return data[:scan] + data[scan:-2] * scans + data[-2:]


Entry = tuple[int, int, int, int]  # tag, type, count, value


def tiff(entries: list[Entry], *, rest: bytes = b"", link: int = 0) -> bytes:
    """Return a TIFF of one page whose directory stands at 8; what follows it is `rest`."""
    data = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    for tag, kind, count, value in sorted(entries):
        data += struct.pack("<HHII", tag, kind, count, value)
    return data + struct.pack("<I", link) + rest


def grey_tiff(width: int = 14, height: int = 9, **changes: Entry) -> list[Entry]:
    """Return the entries of a grey 8-bit TIFF whose one strip starts at 2,000."""
    entries = {
        "width": (256, 4, 1, width),
        "height": (257, 4, 1, height),
        "bits": (258, 3, 1, 8),
        "compression": (259, 3, 1, 1),
        "photometric": (262, 3, 1, 1),
        "strips": (273, 4, 1, 2000),
        "samples": (277, 3, 1, 1),
        "rows": (278, 4, 1, height),
        "lengths": (279, 4, 1, width * height),
    }
    return list((entries | changes).values())


def padded(data: bytes, rest: bytes = bytes(GREY)) -> bytes:
    return data.ljust(2000, b"\0") + rest


def deflated_dicom(data: bytes, *, meta: int = 0) -> bytes:
    """Return a deflated DICOM file; `meta` bytes stand in its file meta information before."""
    syntax = DeflatedExplicitVRLittleEndian.encode()
    elements = b"\x02\0\x02\0OB\0\0" + struct.pack("<I", meta) + bytes(meta)
    elements += b"\x02\0\x10\0UI" + struct.pack("<H", len(syntax)) + syntax
    length = b"\x02\0\0\0UL\x04\0" + struct.pack("<I", len(elements))
    return bytes(128) + b"DICM" + length + elements + data


def dicom(**elements: object) -> bytes:
    """Return a DICOM file of 14 x 9 grey pixels, with other elements."""
    return written(dicom_of(GREY, **elements))


def written(dataset: object) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def encapsulated(syntax: str, frame: bytes, **elements: object) -> bytes:
    """Return a DICOM file with a compressed frame as it is given."""
    dataset = dicom_of(GREY, **elements)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    return written(dataset)


def jpeg2000(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "JPEG2000", no_jp2=True)
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\x51") + 6
    data[at : at + 8] = struct.pack(">II", width, height)
    data[at + 16 : at + 24] = struct.pack(">II", width, height)
    return bytes(data)


def jpeg_ls(width: int, height: int) -> bytes:
    frame = struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\0"
    return b"\xff\xd8\xff\xf7" + frame + b"\xff\xda\0\x08\x01\x01\0\0\0\0" + bytes(9) + b"\xff\xd9"


def sequence(tag: tuple[int, int], content: bytes, *, length: int | None = None) -> bytes:
    group, element = tag
    size = len(content) if length is None else length
    return struct.pack("<HH2sHI", group, element, b"SQ", 0, size) + content


ITEM = b"\xfe\xff\x00\xe0\0\0\0\0"
OPEN_ITEM = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def plain_dicom(elements: bytes) -> bytes:
    """Return a DICOM file with elements in front of those of `dicom`."""
    data = dicom()
    at = data.index(b"\x28\0\x02\0US")
    return data[:at] + elements + data[at:]


def mat(image: Callable[[h5py.Group], object]) -> Callable[[Path], None]:
    """Return what writes a MATLAB slice whose image `image` makes."""

    def write(path: Path) -> None:
        with h5py.File(path, "w", userblock_size=512) as file:
            image(file.create_group("cjdata"))
        with open(path, "r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")

    return write


def _gzip_bomb(group: h5py.Group) -> None:
    """A chunk that inflates to more than its size: HDF5 lets it."""
    found = group.create_dataset("image", (100, 100), "i2", chunks=(100, 100), compression="gzip")
    found.id.write_direct_chunk((0, 0), zeros(500 * 2**20))


def _two_gzips(group: h5py.Group) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((100, 100))
    properties.set_deflate(9)
    properties.set_deflate(9)
    space = h5py.h5s.create_simple((100, 100))
    found = h5py.h5d.create(group.id, b"image", h5py.h5t.NATIVE_INT16, space, properties)
    found.write_direct_chunk((0, 0), zlib.compress(zeros(500 * 2**20), 9))


def _rows_over_one_strip() -> bytes:
    """100,000 strips that each claim the whole file."""
    count = 100_000
    arrays = struct.pack("<I", 2000) * count + struct.pack("<I", 4 * count * 2) * count
    entries = grey_tiff(
        14,
        count,
        strips=(273, 4, count, 2000),
        rows=(278, 4, 1, 1),
        lengths=(279, 4, count, 2000 + 4 * count),
    )
    return padded(tiff(entries), arrays)


def _many_tags() -> bytes:
    """Twenty thousand tags that all name the same 240 kB."""
    own = grey_tiff()
    others = [(tag, 1, 240_000, 8) for tag in range(30_000, 50_000)]
    data = tiff([*own, *others])
    return data.ljust(260_000, b"\0")


def _loop(length: int) -> bytes:
    """A chain of pages that comes back to its first."""
    page = (
        struct.pack("<H", 2)
        + struct.pack("<HHII", 256, 4, 1, 1)
        + struct.pack("<HHII", 257, 4, 1, 1)
    )
    data = struct.pack("<2sHI", b"II", 42, 8)
    for number in range(length):
        here = 8 + 30 * number
        data += page + struct.pack("<I", 8 if number == length - 1 else here + 30)
    return data


# By name: how each file is written, and what the message about it says.
HOSTILE: dict[str, tuple[bytes | Callable[[], bytes] | Callable[[Path], None], str]] = {
    "pixels.png": (lambda: png(60_000, 60_000, 1, 0), "more than the 200,000,000 that are decoded"),
    "too_large.png": (lambda: black_png(5_500, 5_500, 16, 6), "bytes in memory"),
    "ztxt.png": (
        lambda: small_png(png_chunk(b"zTXt", b"a\0\0" + zeros(400 * 2**20))),
        "Decompressed data too large|read",
    ),
    "itxt.png": (
        lambda: small_png(png_chunk(b"iTXt", b"a\0\1\0\0\0" + zeros(400 * 2**20))),
        "Decompressed data too large|read",
    ),
    "iccp.png": (
        lambda: small_png(png_chunk(b"iCCP", b"a\0\0" + zeros(400 * 2**20))),
        "Decompressed data too large|read",
    ),
    "chunks.png": (lambda: small_png(png_chunk(b"tEXt", b"a\0b") * 50_000), "read|text"),
    "huge.jpg": (lambda: jpeg(65_500, 65_500), "more than the 200,000,000 that are decoded"),
    "coefficients.jpg": (lambda: jpeg(10_000, 10_000, progressive=True), "bytes in memory"),
    "scans.jpg": (lambda: jpeg(1000, 1000, progressive=True, scans=200), "more than 100 scans"),
    "canvas.gif": (
        lambda: b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b";",
        "cannot be decoded|more than the 200,000,000",
    ),
    "huge.bmp": (
        lambda: (
            b"BM"
            + struct.pack(
                "<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0
            )
        ),
        "more than the 200,000,000 that are decoded",
    ),
    "loop.tif": (lambda: _loop(1), "its chain of pages is damaged"),
    "long_loop.tif": (lambda: _loop(20_000), "its chain of pages is damaged"),
    "tags.tif": (_many_tags, "its tags state more bytes than the file has"),
    "strips.tif": (_rows_over_one_strip, "its strips or tiles state more bytes"),
    "samples.tif": (
        lambda: padded(tiff(grey_tiff(samples=(277, 3, 1, 60_000)))),
        "page 0 has no usable size",
    ),
    "count.tif": (
        lambda: padded(tiff(grey_tiff(strips=(273, 4, 2**32 - 1, 2000)))),
        "its tags state more bytes than the file has",
    ),
    "length.tif": (
        lambda: padded(tiff(grey_tiff(lengths=(279, 4, 1, 2**32 - 1)))),
        "read",
    ),
    "tile.tif": (
        lambda: padded(
            tiff(
                [
                    *grey_tiff(),
                    (322, 4, 1, 2**24),
                    (323, 4, 1, 2**24),
                    (324, 4, 1, 2000),
                    (325, 4, 1, 126),
                ]
            )
        ),
        "its tiles are larger than the image",
    ),
    "deflate.tif": (
        lambda: padded(
            tiff(
                grey_tiff(
                    15_000,
                    12_000,
                    compression=(259, 3, 1, 8),
                    lengths=(279, 4, 1, 200_000),
                )
            ),
            zeros(180_000_000),
        ),
        "bytes in memory",
    ),
    "meta.dcm": (
        lambda: deflated_dicom(repeated(bytes(2**20), 1000), meta=8000),
        "it inflates to more than",
    ),
    "plain_meta.dcm": (
        lambda: deflated_dicom(repeated(bytes(2**20), 1000)),
        "it inflates to more than",
    ),
    "elements.dcm": (
        lambda: deflated_dicom(
            repeated(struct.pack("<HH2sH", 0x0009, 0x1001, b"LO", 0) * 100_000, 100)
        ),
        "it has too many DICOM elements",
    ),
    "items.dcm": (
        lambda: plain_dicom(sequence((0x08, 0x1140), ITEM * 400_000, length=0xFFFFFFFF)),
        "it has too many DICOM elements",
    ),
    "luts.dcm": (
        lambda: plain_dicom(sequence((0x28, 0x3010), ITEM * 400_000)),
        "its VOILUTSequence is too large|cannot be decoded",
    ),
    "nested.dcm": (
        lambda: plain_dicom(
            (sequence((0x08, 0x1140), b"", length=0xFFFFFFFF) + OPEN_ITEM) * 20_000
        ),
        "its DICOM elements are damaged",
    ),
    "rows.dcm": (
        lambda: dicom(Rows=65_535, Columns=65_535),
        "more than the 200,000,000 that are decoded",
    ),
    "rle.dcm": (
        lambda: encapsulated(
            RLELossless, b"\x01\0\0\0\x40" + bytes(59), Rows=12_000, Columns=12_000
        ),
        "bytes in memory",
    ),
    "inside.dcm": (
        lambda: encapsulated(JPEGBaseline8Bit, jpeg(65_500, 65_500)),
        "its header says 14 x 9 pixels, the compressed image inside 65500 x 65500",
    ),
    "jpeg2000.dcm": (
        lambda: encapsulated(JPEG2000, jpeg2000(60_000, 60_000)),
        "the compressed image inside 60000 x 60000",
    ),
    "jpeg_ls.dcm": (
        lambda: encapsulated(JPEGLSLossless, jpeg_ls(60_000, 60_000)),
        "the compressed image inside 60000 x 60000|no installed codec",
    ),
    "float128.mat": (
        mat(lambda group: group.create_dataset("image", (14_000, 14_000), "f16", chunks=(64, 64))),
        "no matrix of numbers of at most 64 bits",
    ),
    "zeros.mat": (
        mat(lambda group: group.create_dataset("image", (14_000, 14_000), "i2", chunks=(64, 64))),
        "bytes in memory",
    ),
    "chunk.mat": (
        mat(
            lambda group: group.create_dataset(
                "image", (9, 14), "i2", chunks=(30_000, 30_000), maxshape=(None, None)
            )
        ),
        "has chunks of 1,800,000,000 bytes",
    ),
    "gzip.mat": (mat(_gzip_bomb), "inflates to more than 20,000 bytes a chunk"),
    "gzips.mat": (mat(_two_gzips), "is packed by other filters than MATLAB's"),
}


# As large as the limits allow: what these take is what decoding takes at most.
LARGEST: dict[str, Callable[[], bytes]] = {
    "rgb.png": lambda: black_png(10_000, 10_000, 8, 2),
    "grey.png": lambda: black_png(13_200, 13_200, 8, 0),
    "rgba.png": lambda: black_png(9_350, 9_350, 8, 6),
    "rgb16.png": lambda: black_png(6_230, 6_230, 16, 2),
    "rgba16.png": lambda: black_png(5_400, 5_400, 16, 6),
    "grey16.png": lambda: black_png(7_070, 7_070, 16, 0),
    "deflate16.tif": lambda: _large_tiff(),
    "progressive.jpg": lambda: jpeg(8_365, 8_365, progressive=True),
    "baseline.jpg": lambda: jpeg(10_000, 10_000),
    "window.dcm": lambda: _large_dicom(),
    "ybr.dcm": lambda: ybr_dicom(7_070, 7_070),
    "progressive.dcm": lambda: ybr_dicom(7_070, 7_070, progressive=True),
}


def _large_tiff() -> bytes:
    """16-bit grey in 100 strips that are one and the same."""
    side, rows = 7_000, 70
    strip = zlib.compress(bytes(2 * side * rows))
    entries = grey_tiff(
        side,
        side,
        bits=(258, 3, 1, 16),
        compression=(259, 3, 1, 8),
        strips=(273, 4, 100, 2000),
        rows=(278, 4, 1, rows),
        lengths=(279, 4, 100, 2400),
    )
    places = struct.pack("<100I", *(2800 + len(strip) * part for part in range(100)))
    lengths = struct.pack("<I", len(strip)) * 100
    return padded(tiff(entries), places + lengths + strip * 100)


def ybr_dicom(width: int, height: int, *, progressive: bool = False) -> bytes:
    return encapsulated(
        JPEGBaseline8Bit,
        jpeg(width, height, progressive=progressive),
        Rows=height,
        Columns=width,
        SamplesPerPixel=3,
        PlanarConfiguration=0,
        PhotometricInterpretation="YBR_FULL_422",
    )


def _large_dicom() -> bytes:
    pixels = np.zeros((5_400, 5_400), np.uint16)
    dataset = dicom_of(pixels, WindowCenter=40, WindowWidth=400, RescaleSlope=2, RescaleIntercept=1)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return written(dataset)


def write_all(folder: Path, files: dict[str, object]) -> Iterator[Path]:
    """Write the files of `HOSTILE` or `LARGEST` into a folder."""
    for name, made in files.items():
        path = folder / name
        write = made[0] if isinstance(made, tuple) else made
        if name.endswith(".mat"):
            write(path)
        else:
            path.write_bytes(write())
        yield path
