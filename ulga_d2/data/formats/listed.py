"""Read a list of a split's images, and find the file that each line means."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ...errors import UserError
from ..report import DataReport
from .files import is_end_of
from .text import read_text

# A list of a million images has less.
MAX_BYTES = 100_000_000
LONGEST_LINE = 4096
_DRIVE = re.compile(r"^[A-Za-z]:(?=[\\/])")
CUT = "listed paths matched without the folders in front of them"
TWICE = "images listed twice read once"


def read_list(path: Path) -> list[str]:
    """Return the lines of a list of images that are neither blank nor comments.

    Raises:
        UserError: the file cannot be read or lists nothing.
    """
    lines = [line.strip() for line in read_text(str(path), MAX_BYTES).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if any(len(line) > LONGEST_LINE for line in lines):
        raise UserError(
            f"{path} has a line of more than {LONGEST_LINE:,} characters, which is no path; is it "
            "the right file?"
        )
    if not lines:
        raise UserError(f"{path} lists no image; write one image a line")
    return lines


def possible_names(name: str, folders: Collection[str]) -> Iterator[str]:
    """Yield what a listed path can mean below a folder, the likeliest first.

    These are the path as it is, then what is left of it behind the name of one of the split's own
    folders, then what is left of it behind any folders, as long as a folder remains. A file's bare
    name would not do: it may be that of another split's image.

    Args:
        name: a path as a list gives it, with slashes or backslashes.
        folders: names of the folders in which the split's files lie.
    """
    text = _DRIVE.sub("", name.replace("\\", "/"))
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        yield name
        return
    rests = [parts[number:] for number in range(1, len(parts))]
    own = [rest for number, rest in enumerate(rests) if parts[number] in folders]
    yield from dict.fromkeys("/".join(some) for some in [parts, *own, *rests[:-1]])


def find_listed(name: str, bases: Sequence[Path], source: str, report: DataReport) -> Path | None:
    """Return the file that a line of a list means; a path of which folders were cut off is noted.

    Args:
        name: the line.
        bases: folders that it can be relative to, the likeliest first.
        source: the list and the line, for messages.
        report: takes the note, in place.

    Returns:
        None where no such file exists.
    """
    if os.path.isabs(name) and os.path.isfile(name):
        return Path(name)
    folders = [os.path.basename(os.path.abspath(base)) for base in bases]
    for number, text in enumerate(possible_names(name, folders)):
        for base in bases:
            if os.path.isfile(base / text):
                if number and not is_end_of(name, base / text):
                    report.note(CUT, f"{source} is {base / text}")
                return base / text
    return None
