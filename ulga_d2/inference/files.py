"""Find the image files that a user points at: files, folders, patterns, lists."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from ..data.formats.files import READABLE_SUFFIXES
from ..data.image_file import DICOM, kind_of
from ..errors import UserError
from .inputs import VIDEO_SUFFIXES

STDIN = "-"
LIST_SUFFIX = ".txt"
SUFFIXES = READABLE_SUFFIXES | VIDEO_SUFFIXES | {".gif", ".webp"}  # the last two to be refused


@dataclass(frozen=True)
class InputFile:
    """An image file and its name in the output tree.

    Attributes:
        path: as it is opened.
        name: relative to the folder that all inputs have in common, with slashes.
    """

    path: str
    name: str


@dataclass
class FoundFiles:
    """What the user's words stand for.

    Attributes:
        files: in the order of the words, those of a folder by name; none twice.
        skipped: (name, reason) of what cannot be a file of the output tree.
        others: number of files of folders that are no images, by suffix.
    """

    files: list[InputFile] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def find_files(words: Sequence[str], *, recursive: bool, stdin: TextIO = sys.stdin) -> FoundFiles:
    """Find the files of paths, folders, patterns (`*`), lists (.txt) and of `-`, standard input.

    Folders give their images by suffix, and DICOM files by content; hidden files are left out.

    Args:
        words: from the command line.
        recursive: take the folders in folders, too.
        stdin: where `-` reads paths from, one a line.

    Raises:
        UserError: nothing is found, or a list cannot be read.
    """
    found = FoundFiles()
    roots: list[str] = []
    paths: dict[str, None] = {}
    for word in words:
        for path in _expand(word, stdin):
            if os.path.isdir(path):
                roots.append(os.path.abspath(path))
                paths.update(dict.fromkeys(_of_folder(path, recursive, found)))
            else:
                roots.append(os.path.dirname(os.path.abspath(path)))
                paths[path] = None
    root = _common(roots)
    for path in paths:
        name = Path(os.path.relpath(os.path.abspath(path), root)).as_posix()
        fault = _name_fault(name)
        if fault:
            found.skipped.append((name, fault))
        else:
            found.files.append(InputFile(path, name))
    if not found.files and not found.skipped:
        raise _nothing_found(words, found, recursive)
    return found


def printable(text: str) -> str:
    """Return a name as it can be shown: control characters and broken letters as escapes."""
    is_plain = text.isprintable() and not any(0xD800 <= ord(letter) < 0xE000 for letter in text)
    return text if is_plain else ascii(text)[1:-1]


def _expand(word: str, stdin: TextIO) -> Iterator[str]:
    if word == STDIN:
        yield from _lines(stdin.read())
    elif word.lower().endswith(LIST_SUFFIX) and os.path.isfile(word):
        try:
            yield from _lines(Path(word).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"list {word} cannot be read: {error}") from None
    elif not os.path.exists(word) and glob.has_magic(word):
        matches = sorted(glob.glob(word, recursive=True))
        if not matches:
            raise UserError(f"no file matches the pattern {word}")
        yield from (match for match in matches if not os.path.isdir(match))
    else:
        yield word


def _lines(text: str) -> Iterator[str]:
    separator = "\0" if "\0" in text else "\n"
    yield from (line.removesuffix("\r") for line in text.split(separator) if line.strip())


def _of_folder(folder: str, recursive: bool, found: FoundFiles) -> Iterator[str]:
    """Yield the images of a folder by name; a link back to a folder above is left out."""
    above = {os.path.realpath(folder)}
    yield from _walk(folder, recursive, found, above)


def _walk(folder: str, recursive: bool, found: FoundFiles, above: set[str]) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        found.skipped.append((folder, f"the folder cannot be read: {error.strerror}"))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            real = os.path.realpath(entry.path)
            if recursive and real in above:
                found.skipped.append((entry.path, "a link to a folder that holds it"))
            elif recursive:
                yield from _walk(entry.path, recursive, found, above | {real})
        elif _is_image(entry.path):
            yield entry.path
        else:
            found.others[Path(entry.name).suffix.lower() or "no suffix"] += 1


def _is_image(path: str) -> bool:
    if Path(path).suffix.lower() in SUFFIXES:
        return True
    try:
        with open(path, "rb") as file:
            return kind_of(file) == DICOM
    except OSError:
        return False


def _common(roots: Sequence[str]) -> str:
    try:
        return os.path.commonpath(roots) if roots else "."
    except ValueError:  # different drives
        return os.path.abspath(os.sep)


def _name_fault(name: str) -> str:
    is_text = not any(0xD800 <= ord(letter) < 0xE000 for letter in name)
    if any(ord(letter) < 32 for letter in name) or not is_text:
        return "its name holds characters that are not text; rename the file"
    return ""


def _nothing_found(words: Sequence[str], found: FoundFiles, recursive: bool) -> UserError:
    listed = ", ".join(f"{count} {suffix}" for suffix, count in found.others.most_common(5))
    others = f"; files that are no images: {listed}" if listed else ""
    fix = "" if recursive else "; --recursive takes the folders in folders, too"
    return UserError(f"no image in {', '.join(words)}{others}{fix}")
