"""Read a small text file whatever its writer's habits: byte order mark, CRLF, old encodings."""

from __future__ import annotations

import logging

from detectron2.utils.file_io import PathManager

from ...errors import UserError

logger = logging.getLogger(__name__)


def read_bytes(path: str, limit: int | None = None) -> bytes:
    """Return the content of a file.

    Args:
        path: the file.
        limit: the most bytes that it may have; None for any number.

    Raises:
        UserError: the file cannot be read or is larger.
    """
    try:
        with PathManager.open(path, "rb") as file:
            data = file.read(-1 if limit is None else limit + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    if limit is not None and len(data) > limit:
        raise UserError(
            f"{path} has more than the {limit:,} bytes that are read; is it the right file?"
        )
    return data


def read_text(path: str) -> str:
    """Return the text of a file in UTF-8 (with or without mark), else in cp1252 with a warning.

    Raises:
        UserError: the file cannot be read or is not text.
    """
    data = read_bytes(path)
    if b"\0" in data:
        raise UserError(f"{path} is not a text file in UTF-8; save it as UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        logger.warning("%s is not UTF-8; read as cp1252, so check names with accents", path)
        return data.decode("cp1252", errors="replace")
