"""Keep of a PNG what its pixels need, so that no decoder unpacks text, profiles or animations."""

from __future__ import annotations

from .image_file import undecodable

_START = b"\x89PNG\r\n\x1a\n"
# Header, palette, transparency, pixels, end.
_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def essential_png(data: bytes, path: str) -> bytes:
    """Return a PNG without the chunks that do not change its pixels.

    Args:
        data: the file.
        path: of the file, for messages.

    Raises:
        UserError: a chunk reaches beyond the end of the file, or one that is needed is unknown.
    """
    view = memoryview(data)
    parts = [view[: len(_START)]]
    position = len(_START)
    while position + 12 <= len(data):
        length = int.from_bytes(view[position : position + 4], "big")
        kind = bytes(view[position + 4 : position + 8])
        end = position + 12 + length
        if end > len(data):
            raise undecodable(path, "truncated: a PNG chunk is cut off")
        if kind in _KEPT:
            parts.append(view[position:end])
        elif kind[:1].isupper():
            raise undecodable(path, "it has a PNG chunk of an unknown kind that decoding needs")
        if kind == b"IEND":
            break
        position = end
    return b"".join(parts)
