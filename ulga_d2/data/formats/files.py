"""Walk the folders of a dataset, and find the image files that annotations name."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from ...errors import UserError, did_you_mean
from ..image_file import DICOM, kind_of
from ..report import DataReport, Faults
from ..root import IMAGE_SUFFIXES

# What a custom dataset may hold: besides pictures, DICOM under its usual suffixes.
READABLE_SUFFIXES = IMAGE_SUFFIXES | {".dcm", ".dicom"}
# An image may have any other suffix or none; these files are known not to be images.
_OTHER_SUFFIXES = frozenset(
    ".txt .xml .json .jsonl .csv .tsv .yaml .yml .md .html .pdf .zip .tar .gz .npy .npz .mat .h5 "
    ".pt .pth .py .ipynb .cache .db .log .gif".split()
)
# What systems, viewers and archivers leave behind, without regard to case. `DICOMDIR` lists the
# files of a folder and holds no image.
_SYSTEM_NAMES = frozenset(
    "@eadir @tmp @recycle #recycle #snapshot __macosx __pycache__ lost+found $recycle.bin recycler "
    "thumbs.db ehthumbs.db desktop.ini icon\r dicomdir".split(" ")
) | {"system volume information"}
_PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*")
_DRIVE = re.compile(r"[A-Za-z]:")
# Suffixes of one format: a name may have the one and its file the other.
_SAME_FORMAT = {".jpeg": ".jpg", ".tiff": ".tif", ".dicom": ".dcm"}

HIDDEN = "hidden and system files skipped, with all files in such folders"
BROKEN = "links that lead nowhere skipped"
SPECIAL = "entries that are no regular files skipped"
LOOP = "links to a folder that holds them skipped"
TWICE = "second links to a folder that is read already skipped"
UNREADABLE = "folders that cannot be read skipped"
AMENDED = "image names matched to the one file that differs in case, suffix, slashes or folder"
SWAPPED = "image names whose suffix no file has resolved by the rest; are these images, not masks?"

# So many suffixes of unread files are counted by name; the rest together.
_SHOWN_SUFFIXES = 20
_LONGEST_SUFFIX = 12
_LONGEST_PATH = 4096
# Names to compare with a missing one: so many before and after it in alphabetical order.
_NEIGHBORS = 200


@dataclass
class FolderFiles:
    """What a walk of a folder met: every file is in `files`, or counted in `skipped`.

    Attributes:
        folder: that was walked.
        files: regular files by path, linked folders included; no hidden or system files.
        skipped: (reason, path, number of files) of everything else.
    """

    folder: Path
    files: list[Path] = field(default_factory=list)
    skipped: list[tuple[str, Path, int]] = field(default_factory=list)

    def images(self) -> list[Path]:
        """Return the image files, by suffix or else by content."""
        return [path for path in self.files if is_image_file(path)]

    def note_unread(self, read: Iterable[Path], report: DataReport) -> None:
        """Note every file that is not among those `read`, by reason or by suffix, and once.

        Args:
            read: files that this reader or another one of the dataset takes.
            report: takes the counts, in place.
        """
        for reason, path, count in self.skipped:
            if os.path.abspath(path) not in report.unread_files:
                report.note(reason, str(path), count)
        taken = report.unread_files | set(map(os.path.abspath, read))
        unread = [path for path in self.files if os.path.abspath(path) not in taken]
        skipped = (path for _, path, _ in self.skipped)
        report.unread_files.update(map(os.path.abspath, [*skipped, *unread]))
        counts = Counter(map(_shown_suffix, unread))
        shown = {suffix for suffix, _ in counts.most_common(_SHOWN_SUFFIXES)}
        for path in unread:
            suffix = _shown_suffix(path)
            report.note(f"files not read ({suffix if suffix in shown else 'other'})", str(path))


def walk_folder(folder: Path) -> FolderFiles:
    """Return the files under a folder, sorted by path within it.

    Linked folders are followed; each real folder is read once, under its own name where it has one
    below `folder`, so links cannot lead in circles. Hidden and system files and folders are
    skipped, and their files counted.
    """
    found = FolderFiles(folder)
    root = os.path.realpath(folder)
    seen = {root}
    folders, links = [str(folder)], []
    while folders or links:
        # Real folders first: a link to one of them is the second name of its files.
        if folders:
            _scan(folders.pop(), found, folders, links, seen)
            continue
        link = links.pop(0)
        real = os.path.realpath(link)
        if _holds(real, root) or _holds(real, os.path.realpath(os.path.dirname(link))):
            found.skipped.append((LOOP, Path(link), 1))
        elif real in seen:
            found.skipped.append((TWICE, Path(link), 1))
        else:
            seen.add(real)
            folders.append(link)
    found.files.sort(key=lambda path: path.relative_to(folder).parts)
    return found


def _scan(
    current: str, found: FolderFiles, folders: list[str], links: list[str], seen: set[str]
) -> None:
    """Sort the entries of one folder into files, skipped entries, folders and links to folders."""
    try:
        entries = sorted(os.scandir(current), key=lambda entry: entry.name)
    except OSError:
        found.skipped.append((UNREADABLE, Path(current), 1))
        return
    for entry in entries:
        path = Path(entry.path)
        is_folder = os.path.isdir(entry.path)
        if is_hidden(entry.name):
            count = 1 if not is_folder or entry.is_symlink() else _number_of_files(entry.path)
            if count:
                found.skipped.append((HIDDEN, path, count))
        elif is_folder and entry.is_symlink():
            links.append(entry.path)
        elif is_folder:
            real = os.path.realpath(entry.path)
            if real in seen:
                found.skipped.append((TWICE, path, 1))
            else:
                seen.add(real)
                folders.append(entry.path)
        elif os.path.isfile(entry.path):
            found.files.append(path)
        else:
            is_broken = entry.is_symlink() and not os.path.exists(entry.path)
            found.skipped.append((BROKEN if is_broken else SPECIAL, path, 1))


def _holds(folder: str, inner: str) -> bool:
    return inner == folder or inner.startswith(folder.rstrip(os.sep) + os.sep)


def _number_of_files(folder: str) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden or belongs to a system, by its name."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def is_image_file(path: Path) -> bool:
    """Tell whether a regular file is an image: by its suffix, else by its content."""
    suffix = path.suffix.lower()
    if suffix in READABLE_SUFFIXES or suffix in _OTHER_SUFFIXES:
        return suffix in READABLE_SUFFIXES
    try:
        with open(path, "rb") as file:
            return kind_of(file) == DICOM or file.read(8).startswith(_PICTURE_STARTS)
    except OSError:
        return False


def _format_of(suffix: str) -> str:
    return _SAME_FORMAT.get(suffix, suffix)


def _shown_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if not suffix:
        return "no suffix"
    return suffix if len(suffix) <= _LONGEST_SUFFIX and suffix.isprintable() else "other"


def files_by_stem(
    folder: Path,
    suffixes: Collection[str] | None,
    report: DataReport | None = None,
    others: Collection[str] = (),
) -> dict[str, Path]:
    """Return the files under `folder` by path within it, without suffix; no hidden ones.

    Args:
        folder: to walk; see `walk_folder`.
        suffixes: of the files that are wanted, in lower case; None for images.
        report: takes the counts of what is not returned, in place.
        others: suffixes of files that another reader of the dataset takes.

    Raises:
        UserError: two files differ in their suffix alone, so a stem does not tell them apart.
    """
    walk = walk_folder(folder)
    if suffixes is None:
        wanted = walk.images()
    else:
        wanted = [path for path in walk.files if path.suffix.lower() in suffixes]
    files: dict[str, Path] = {}
    for path in wanted:
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in files:
            raise UserError(
                f"{files[stem]} and {path} have one name, so one label file would serve both; "
                "rename one"
            )
        files[stem] = path
    if report is not None:
        taken = [path for path in walk.files if path.suffix.lower() in others]
        walk.note_unread([*wanted, *taken], report)
    return files


class ImageFolder:
    """The images of a folder, asked for by the names that annotations give them.

    The name of a file is taken as it is where the file exists. Else the one file is taken whose
    name is the same but for slashes, a leading slash or drive, %20, Unicode form, case, blanks, the
    folder's own name in front, and last the suffix. Each such name is noted. An image's suffix is
    not swapped for that of another format where the folder has files of the first one: there the
    image is missing, and what has its name may be its mask. The folder is walked when the first
    name needs it.

    Args:
        folder: that names are relative to.
        report: takes the notes, in place.
        faults: takes the names that fit two files or lead out of the folder, in place.
    """

    def __init__(self, folder: Path, report: DataReport, faults: Faults) -> None:
        self.folder = folder
        self._report = report
        self._faults = faults
        self._above = [plain_name(part) for part in Path(os.path.abspath(folder)).parts[1:]]

    @cached_property
    def walk(self) -> FolderFiles:
        """The files of the folder."""
        return walk_folder(self.folder)

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """The files by their plain name."""
        index: dict[str, list[Path]] = defaultdict(list)
        prefix = len(str(self.folder / "x")) - 1
        for path in self.walk.files:
            index[plain_name(str(path)[prefix:].replace(os.sep, "/"))].append(path)
        return dict(index)

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        """The files by their plain name without suffix."""
        index: dict[str, list[Path]] = defaultdict(list)
        for key, paths in self._by_name.items():
            index[posixpath.splitext(key)[0]] += paths
        return dict(index)

    @cached_property
    def _formats(self) -> set[str]:
        """The suffixes of the files, one for each format."""
        return {_format_of(path.suffix.lower()) for path in self.walk.files}

    def find(
        self, name: str, place: str, *, is_stem: bool = False, is_listed: bool = False
    ) -> Path:
        """Return the image of a name: a path within the folder, with suffix or without.

        A file that is not there is returned as the name gives it. A name that fits two files, or
        leads to a file outside the folder, becomes a fault.

        Args:
            name: as the annotations give it.
            place: where they do, for messages.
            is_stem: the format's names have no suffix, so a missing one is not worth a note.
            is_listed: the name is a path in a list, which may start at any folder above this one,
                so such a start is not worth a note.
        """
        path = self.folder / name
        if len(name) > _LONGEST_PATH:
            return path
        is_outside = not self._is_inside(name)
        if ".." in name and not is_outside:
            path = Path(os.path.abspath(path))  # a linked folder's parent is not where it leads
        if not is_outside and os.path.isfile(path):
            return path
        candidates, reason = self._candidates(name)
        if len(candidates) == 1:
            found = candidates[0]
            inner = found.relative_to(self.folder).with_suffix("").as_posix()
            if not (is_stem and inner == name or is_listed and is_end_of(name, found)):
                self._report.note(reason, f"{place}: {name} is {found}")
            return found
        if candidates:
            shown = " and ".join(map(str, candidates[:2]))
            self._faults.add(place, f"{name} could be {shown}; write the name of one, or rename it")
        elif is_outside and os.path.isfile(path):
            self._faults.add(
                place,
                f"{name} leads to a file outside {self.folder}; write a name within that folder, "
                "or give a folder that holds all images",
            )
        return path

    def suggestion(self, name: str) -> str:
        """Return "; did you mean X?" for the name of a missing file, "" where none is like it."""
        base = plain_name(name.replace("\\", "/").rpartition("/")[2])
        same = self._by_base.get(base) or self._by_base.get(posixpath.splitext(base)[0])
        if same:  # in another folder, or with another suffix
            return f"; did you mean {same[0]}?"
        names = self._sorted_names
        at = bisect_left(names, plain_name(name))
        near = names[max(0, at - _NEIGHBORS) : at + _NEIGHBORS]
        hint = did_you_mean(plain_name(name)[:200], near)
        return f"; {hint}" if hint else ""

    @cached_property
    def _sorted_names(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.walk.files)

    @cached_property
    def _by_base(self) -> dict[str, list[str]]:
        """The names by the last part, those of images also without suffix."""
        index: dict[str, list[str]] = defaultdict(list)
        for name in self._sorted_names:
            base = plain_name(posixpath.basename(name))
            stem, suffix = posixpath.splitext(base)
            for key in (base, stem) if suffix in READABLE_SUFFIXES else (base,):
                index[key].append(name)
        return dict(index)

    def _is_inside(self, name: str) -> bool:
        if ".." not in name and not os.path.isabs(name):
            return True
        target = os.path.abspath(self.folder / name)
        roots = (os.path.abspath(self.folder), os.path.realpath(self.folder))
        return any(_holds(root, target) for root in roots)

    def _candidates(self, name: str) -> tuple[list[Path], str]:
        """Return the images that a name can mean, of those that are most like it, and its note."""
        for key in self._keys(name):
            stem, suffix = posixpath.splitext(key)
            longer, others = self._by_stem.get(key, []), self._by_stem.get(stem, [])
            found = [(self._by_name.get(key, []), AMENDED)]
            if suffix in READABLE_SUFFIXES:
                own = _format_of(suffix)
                same = [path for path in others if _format_of(path.suffix.lower()) == own]
                found.append((same, AMENDED))
                if own not in self._formats:
                    found += [(longer, SWAPPED), (others, SWAPPED)]
            else:
                found.append((longer, AMENDED))
                if suffix in _OTHER_SUFFIXES:
                    found.append((others, AMENDED))
            for paths, reason in found:
                images = [path for path in paths if is_image_file(path)]
                if images:
                    return images, reason
        return [], AMENDED

    def _keys(self, name: str) -> Iterator[str]:
        """Yield the plain name, and what is left of it behind the folder's own name."""
        text = _DRIVE.sub("", name.strip().replace("\\", "/"), count=1)
        is_absolute = text.startswith("/")
        key = posixpath.normpath(plain_name(text)).lstrip("/")
        yield key
        parts = key.split("/")
        for number in range(len(parts) - 1, 0, -1):
            if self._is_own(parts[:number], is_absolute):
                yield "/".join(parts[number:])

    def _is_own(self, parts: list[str], is_absolute: bool) -> bool:
        """Tell whether folders in front of a name are this folder's.

        An absolute name may come from another machine, where folders further up have other names;
        but a name that leads to a folder beside this one, such as val/ beside train/, does not mean
        this one.
        """
        above = Path(os.path.abspath(self.folder))
        for count, (part, own) in enumerate(
            zip(reversed(parts), reversed(self._above), strict=False)
        ):
            if part != own:
                return is_absolute and count > 0 and not (above.parent / part).is_dir()
            above = above.parent
        return len(parts) <= len(self._above) or is_absolute


def is_end_of(name: str, path: Path) -> bool:
    """Tell whether a name is the end of a file's absolute path, which needs no guess."""
    parts = Path(posixpath.normpath(name)).parts
    return parts == Path(os.path.abspath(path)).parts[-len(parts) :]


def plain_name(name: str) -> str:
    """Return a name without what differs between machines: case, Unicode form, %20, blanks."""
    if "%" in name:
        name = unquote(name)
    if not name.isascii():
        name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    name = name.lower()
    if " " in name or "\t" in name:
        name = "/".join(part.strip() for part in name.split("/"))
    return name
