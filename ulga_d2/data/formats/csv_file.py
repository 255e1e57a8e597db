"""Read a CSV file's rows whatever its writer's habits: separators, quotes, line ends, marks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ..report import Faults
from .text import read_text

# A comma is tried first; spreadsheets write semicolons where the comma is the decimal mark.
_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Row:
    """One row after the header.

    Attributes:
        line_number: of its first line in the file, from 1.
        fields: the cells without blanks around them.
    """

    line_number: int
    fields: tuple[str, ...]


def read_rows(path: Path, *, expected_headers: Sequence[Sequence[str]]) -> list[Row]:
    """Return the rows of a CSV file whose header is one of the known ones.

    The file may be in UTF-8 with or without a mark or in cp1252, have any line ends, and separate
    its cells by comma, semicolon or tab. Case and blanks around a column's name do not count, nor
    do empty cells at the end of the header. Empty lines are skipped.

    Args:
        path: of the file.
        expected_headers: the known headers. Empty names at the end of one stand for cells that its
            rows may leave out.

    Returns:
        rows of exactly as many fields as the header that matched has names, "" for what is missing.

    Raises:
        UserError: the file is no text or has none of the headers, or rows have too few or too many
            cells.
    """
    header, rows = _match(path, expected_headers)
    least, most = len(_without_end(header)), len(header)
    faults = Faults()
    kept = []
    for row in rows:
        fields = row.fields if len(row.fields) <= most else _without_end(row.fields)
        if least <= len(fields) <= most:
            kept.append(Row(row.line_number, (*fields, *[""] * (most - len(fields)))))
            continue
        faults.add(
            f"{path}, line {row.line_number}",
            f"{len(fields)} cells instead of {least}; complete the row or delete it"
            f"{_hint(row.fields, least)}",
        )
    faults.stop_if_any()
    return kept


def read_header(path: Path) -> tuple[str, ...]:
    """Return the column names of a CSV file, split by what separates most of them.

    Raises:
        UserError: the file is no text, or empty.
    """
    return _widest(read_text(str(path)), path)


def _widest(text: str, path: Path) -> tuple[str, ...]:
    headers = [next(_split(text, delimiter, path)).fields for delimiter in _DELIMITERS]
    return max(headers, key=len)


def _match(path: Path, expected: Sequence[Sequence[str]]) -> tuple[Sequence[str], Iterator[Row]]:
    """Return the header that the file has, and its rows."""
    text = read_text(str(path))
    for delimiter in _DELIMITERS:
        rows = _split(text, delimiter, path)
        found = _plain(next(rows).fields)
        for header in expected:
            if found == _plain(header):
                return header, rows
    known = " or ".join(",".join(_without_end(header)) for header in expected)
    raise UserError(
        f"{path}: the first line must be {known}, but is {','.join(_widest(text, path))[:200]}; "
        "fetch the file again, or correct its first line"
    )


def _plain(header: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip().casefold() for name in _without_end(header))


def _without_end(fields: Sequence[str]) -> Sequence[str]:
    """Return the cells up to the last that is not empty."""
    count = max((n for n, text in enumerate(fields, start=1) if text.strip()), default=0)
    return fields[:count]


def _split(text: str, delimiter: str, path: Path) -> Iterator[Row]:
    """Yield all rows that are not empty, the header first."""
    # The text layer makes every line end one of "\n", within quotes too.
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)
    line_number = 1
    is_empty = True
    try:
        for cells in reader:
            fields = tuple(map(str.strip, cells))
            if any(fields):
                is_empty = False
                yield Row(line_number, fields)
            line_number = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {line_number}: {error}; are the quotes closed?") from None
    if is_empty:
        raise UserError(f"{path} is empty; fetch or export the file again")


def _hint(fields: Sequence[str], expected: int) -> str:
    is_split = len(fields) > expected and sum(map(str.isdigit, fields)) > 1
    return "; write a decimal point, not a comma" if is_split else ""
