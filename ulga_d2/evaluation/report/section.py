"""What a section of a report is made of."""

from __future__ import annotations

from dataclasses import dataclass

from .chart import Chart


@dataclass(frozen=True)
class Table:
    """Words and numbers in rows; the first column names them.

    Attributes:
        headers: of the columns.
        rows: as many cells as headers.
        bars: lengths from 0 to 1, one a row, that are drawn behind the last column; or none.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bars: tuple[float, ...] = ()


@dataclass(frozen=True)
class Section:
    """A part of the report under a heading of its own."""

    title: str
    words: str
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
