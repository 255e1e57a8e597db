"""What people read in a terminal or a log: words of files come with control characters escaped."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from .errors import printable

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")


def show(text: object = "", *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print text; its line breaks stay, other control characters become escapes."""
    print(printable_lines(str(text)), file=file or sys.stdout, flush=flush)


def printable_lines(text: str) -> str:
    """Return text of several lines, each as `printable` makes it."""
    return "\n".join(map(printable, text.split("\n")))


def csv_text(text: str) -> str:
    """Return text for a CSV file: what a spreadsheet would take for a formula gets an apostrophe.

    So does text that starts with an apostrophe, which makes it possible to take it away again.
    """
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def table(rows: Sequence[Sequence[Any]], headers: Sequence[str], **options: Any) -> str:
    """Lay out a table by tabulate; a cell of text stays in one line, and in its own column.

    Args:
        rows: of cells.
        headers: of the columns; a line break in one is meant.
        options: of `tabulate`.
    """
    from tabulate import tabulate

    has_bars = options.get("tablefmt") == "pipe"

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return printable(value).replace("|", "\\|") if has_bars else printable(value)

    shown = [[cell(value) for value in row] for row in rows]
    return tabulate(shown, [printable_lines(name) for name in headers], **options)


def log_to_stderr() -> None:
    """Let log messages of all libraries go to standard error, unless handlers are set already."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(escape_record)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


def escape_record(record: logging.LogRecord) -> bool:
    """Escape the control characters of a log record, in place; a filter for handlers.

    Line breaks are kept where the message has them before its arguments are filled in: so a table
    is laid out as it should be, and a file's name cannot look like a line of the log.
    """
    template = str(record.msg)
    text = record.getMessage()
    is_laid_out = "\n" in template or not record.args
    record.msg = printable_lines(text) if is_laid_out else printable(text)
    record.args = None
    return True
