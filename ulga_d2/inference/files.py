"""Find the image files that a user points at: files, folders, patterns, lists."""

from __future__ import annotations

import codecs
import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..data.formats.files import READABLE_SUFFIXES, is_hidden, is_image_file
from ..errors import UserError
from .inputs import VIDEO_SUFFIXES

STDIN = "-"
LIST_SUFFIX = ".txt"
MAX_NAME_BYTES = 240  # of a file; what is written for it has a longer name, and systems allow 255
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
class InputFiles:
    """What the user's words stand for.

    Attributes:
        files: in the order of the words, those of a folder by name; none twice.
        skipped: (name, reason) of what cannot be a file of the output tree; names can be shown.
        others: number of files of folders that are no images, by suffix; hidden and system folders
            count as one.
    """

    files: list[InputFile] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def find_files(
    words: Sequence[str],
    *,
    recursive: bool,
    leave_out: Path | None = None,
    stdin: BinaryIO | None = None,
) -> InputFiles:
    """Find the files of paths, folders, patterns (`*`), lists (.txt) and of `-`, standard input.

    Folders give their images by suffix, and others by content; hidden and system files are left
    out.

    Args:
        words: from the command line.
        recursive: take the folders in folders, too.
        leave_out: a folder in a folder that is not taken, such as that of the output.
        stdin: where `-` reads paths from, one a line; by default standard input.

    Raises:
        UserError: nothing is found, or a list cannot be read.
    """
    found = InputFiles()
    roots: list[str] = []
    paths: dict[str, str] = {}  # as it was given, by absolute path
    above = {os.path.realpath(leave_out)} if leave_out else set()
    for word in words:
        for path in _expand(word, stdin or sys.stdin.buffer):
            if os.path.isdir(path):
                roots.append(os.path.abspath(path))
                folders = above | {os.path.realpath(path)}
                for inside in _walk(path, recursive, found, folders):
                    paths.setdefault(os.path.abspath(inside), inside)
            else:
                roots.append(os.path.dirname(os.path.abspath(path)))
                paths.setdefault(os.path.abspath(path), path)
    root = _common(roots)
    found.skipped = [(printable(_name_in(root, path)), why) for path, why in found.skipped]
    for path in paths.values():
        name = _name_in(root, path)
        fault = _name_fault(name)
        if fault:
            found.skipped.append((printable(name), fault))
        else:
            found.files.append(InputFile(path, name))
    if not found.files and not found.skipped:
        raise _nothing_found(words, found, recursive)
    return found


def printable(text: str) -> str:
    """Return a name as it can be shown: control characters and broken letters as escapes."""
    is_plain = text.isprintable() and not any(0xD800 <= ord(letter) < 0xE000 for letter in text)
    return text if is_plain else ascii(text)[1:-1]


def _name_in(root: str, path: str) -> str:
    return Path(os.path.relpath(os.path.abspath(path), root)).as_posix()


def _expand(word: str, stdin: BinaryIO) -> Iterator[str]:
    if word == STDIN:
        yield from _lines(stdin.read(), "standard input")
    elif word.lower().endswith(LIST_SUFFIX) and os.path.isfile(word):
        try:
            content = Path(word).read_bytes()
        except OSError as error:
            raise UserError(f"list {word} cannot be read: {error.strerror}") from None
        yield from _lines(content, f"list {word}")
    elif not os.path.exists(word) and glob.has_magic(word):
        matches = sorted(glob.glob(word, recursive=True))
        if not matches:
            raise UserError(f"no file matches the pattern {word}")
        yield from (match for match in matches if not os.path.isdir(match))
    else:
        yield word


def _lines(content: bytes, name: str) -> Iterator[str]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{name} is UTF-16 text; save it as UTF-8")
    text = os.fsdecode(content.removeprefix(codecs.BOM_UTF8))
    separator = "\0" if "\0" in text else "\n"
    yield from (line.removesuffix("\r") for line in text.split(separator) if line.strip())


def _walk(folder: str, recursive: bool, found: InputFiles, above: set[str]) -> Iterator[str]:
    """Yield the images of a folder by name; a link back to a folder `above` is left out."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        found.skipped.append((folder, f"the folder cannot be read: {error.strerror}"))
        return
    for entry in entries:
        if is_hidden(entry.name):
            found.others["hidden or system"] += 1
            continue
        if os.path.isdir(entry.path):  # unlike the entry itself, calm about a link to itself
            real = os.path.realpath(entry.path)
            if recursive and real not in above:
                yield from _walk(entry.path, recursive, found, above | {real})
            elif recursive and entry.is_symlink():
                found.skipped.append((entry.path, "a link to a folder that holds it"))
            elif not recursive and _has_image_suffix(entry.name):
                found.skipped.append((entry.path, "a folder; --recursive takes the images in it"))
        elif _is_image(entry.path):
            yield entry.path
        else:
            found.others[Path(entry.name).suffix.lower() or "no suffix"] += 1


def _has_image_suffix(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _is_image(path: str) -> bool:
    if _has_image_suffix(path):
        return True
    return os.path.isfile(path) and is_image_file(Path(path))


def _common(roots: Sequence[str]) -> str:
    try:
        return os.path.commonpath(roots) if roots else "."
    except ValueError:  # different drives
        return os.path.abspath(os.sep)


def _name_fault(name: str) -> str:
    is_text = not any(0xD800 <= ord(letter) < 0xE000 for letter in name)
    if any(ord(letter) < 32 for letter in name) or not is_text:
        return "its name holds characters that are not text; rename the file"
    if len(os.path.basename(name).encode()) > MAX_NAME_BYTES:
        return f"its name has more than {MAX_NAME_BYTES} bytes; rename the file"
    return ""


def _nothing_found(words: Sequence[str], found: InputFiles, recursive: bool) -> UserError:
    listed = ", ".join(f"{count} {suffix}" for suffix, count in found.others.most_common(5))
    others = f"; files that are no images: {listed}" if listed else ""
    fix = "" if recursive else "; --recursive takes the folders in folders, too"
    return UserError(f"no image in {', '.join(words)}{others}{fix}")
