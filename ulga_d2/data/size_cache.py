"""Keep what is slow to learn about files (sizes, boxes of masks) between runs.

The cache lies in `$XDG_CACHE_HOME/ulga_d2` (default: `~/.cache/ulga_d2`), never beside the data.
A file that changed in size or time is looked at again. Where the cache cannot be read or written,
everything works as without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .image_header import image_facts
from .report import DataReport

logger = logging.getLogger(__name__)

Value = TypeVar("Value")
# Raised when a cached size would come out otherwise for the same file.
_SIZES = "sizes-2"


@contextlib.contextmanager
def cached_sizes(folder: Path, report: DataReport) -> Iterator[Callable[[str], tuple[int, int]]]:
    """Yield `image_size`, which here remembers every image of a data set.

    Args:
        folder: of the data set.
        report: takes the files with several frames or pages, in place.
    """
    with cached(folder, _SIZES, _size_and_frames, _as_size) as size_of:

        def look_up(path: str) -> tuple[int, int]:
            height, width, frames = size_of(path)
            report.note_frames(path, frames)
            return height, width

        yield look_up


def _size_and_frames(path: str) -> tuple[int, int, int]:
    facts = image_facts(path)
    return facts.height, facts.width, facts.frames


def _as_size(stored: Any) -> tuple[int, int, int]:
    height, width, frames = map(int, stored)
    return height, width, frames


@contextlib.contextmanager
def cached(
    folder: Path,
    kind: str,
    compute: Callable[[str], Value],
    revive: Callable[[Any], Value],
) -> Iterator[Callable[[str], Value]]:
    """Yield `compute` with a memory that outlasts the run; it is written on leaving.

    Args:
        folder: of the data set; each has a cache of its own.
        kind: name of what is kept, with a version.
        compute: from a file's path to a value that JSON can hold; what it raises is not kept.
        revive: from what JSON makes of that value back to it; it raises `TypeError`, `KeyError` or
            `ValueError` where that is not possible.
    """
    place = _place(folder, kind)
    known = _read(place) if place else {}
    is_new = False

    def look_up(path: str) -> Value:
        nonlocal is_new
        state = _state(path)
        entry = known.get(path)
        if state and isinstance(entry, list) and entry[:2] == state and len(entry) == 3:
            with contextlib.suppress(TypeError, KeyError, ValueError):
                return revive(entry[2])
        value = compute(path)
        if state:
            known[path] = [*state, value]
            is_new = True
        return value

    try:
        yield look_up
    finally:
        if is_new and place:
            _write(place, known)


def _place(folder: Path, kind: str) -> Path | None:
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # a user without a home, as in some containers
        return None
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    return root / "ulga_d2" / f"{name}-{kind}.json"


def _state(path: str) -> list[int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None  # not a file of this machine: nothing tells whether it changed
    return [status.st_size, status.st_mtime_ns]


def _read(place: Path) -> dict:
    try:
        content = json.loads(place.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(place: Path, content: dict) -> None:
    """Replace the cache at once; several processes may do so, each with a complete file."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=place.parent, prefix=place.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file)
            os.replace(unfinished, place)
        except BaseException:
            os.unlink(unfinished)
            raise
    except OSError as error:
        logger.debug("%s cannot be written (%s); nothing is remembered", place, error)
