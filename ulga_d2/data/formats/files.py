"""Find the files of a folder by their names, as annotations give them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from ...errors import UserError
from ..root import IMAGE_SUFFIXES

# What a user's own data set may hold: besides pictures, DICOM under its usual suffix.
READABLE_SUFFIXES = IMAGE_SUFFIXES | {".dcm"}


def files_by_stem(folder: Path, suffixes: frozenset[str]) -> dict[str, Path]:
    """Return the files under `folder` by path within it, without suffix; no hidden ones.

    Raises:
        UserError: two files differ in their suffix alone, so a stem does not tell them apart.
    """
    files: dict[str, Path] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() not in suffixes or name.startswith("."):
                continue
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in files:
                raise UserError(
                    f"{files[stem]} and {path} have one name, so one label file would serve both; "
                    "rename one"
                )
            files[stem] = path
    return files


class ImageFolder:
    """The images of a folder, asked for by the names that annotations give them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _by_stem(self) -> Mapping[str, Path]:
        return files_by_stem(self.folder, READABLE_SUFFIXES)

    def find(self, name: str) -> Path:
        """Return the image of a name: a path within the folder, with suffix or without.

        Backslashes separate folders like slashes do. A file that is not there is returned as the
        name gives it.
        """
        name = name.replace("\\", "/")
        path = self.folder / name
        if os.path.isfile(path) or path.suffix.lower() in READABLE_SUFFIXES:
            return path
        return self._by_stem.get(name, path)
