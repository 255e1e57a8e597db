"""Where a zoo is, what its index says, and how a file of it comes here."""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from detectron2.utils.file_io import PathHandler

from ..errors import UserError
from .digest import file_sha256
from .download import download, local_or_cached

VARIABLE = "ULGA_ZOO"
INDEX = "index.json"
MOST_INDEX = 4 * 2**20  # bytes; some 400 an entry
LONGEST_PATH = 500  # characters


@dataclass(frozen=True)
class Entry:
    """One model of a zoo.

    Attributes:
        name: of its config, without the suffix.
        file: path of its weights, relative to the zoo's root.
        sha256: of that file.
        bytes: length of that file.
        metrics: figures of the run.
    """

    name: str
    file: str
    sha256: str
    bytes: int
    metrics: dict[str, float | None]


def zoo_root() -> str:
    """Return the folder or URL that the environment variable ULGA_ZOO names.

    Raises:
        UserError: it is not set; this project hosts no weights of its own.
    """
    root = os.environ.get(VARIABLE, "").rstrip("/")
    if not root:
        raise UserError(
            f"the environment variable {VARIABLE} is not set; give it the folder, http(s) URL or "
            "hf://OWNER/REPOSITORY of a zoo that `ulga zoo publish` and `ulga zoo index` have made"
        )
    return root


def read_index(root: str) -> dict[str, Entry]:
    """Read a zoo's index anew: an index is small, and a remembered one may be old.

    Raises:
        UserError: it cannot be had, or is no index.
    """
    url = f"{root}/{INDEX}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            local = Path(folder) / INDEX
            if url.startswith(("http://", "https://")):
                download(url, local, most=MOST_INDEX)
            else:
                local = _local_path(url)
            with local.open("rb") as file:
                content = file.read(MOST_INDEX + 1)
        except OSError as error:
            raise UserError(f"{url} cannot be had: {error}; check {VARIABLE}") from None
    try:
        if len(content) > MOST_INDEX:
            raise ValueError(f"more than {MOST_INDEX:,} bytes")
        entries = json.loads(content)["entries"]
        return {str(name): _entry(name, given) for name, given in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{url} is no index of a zoo: {error!r:.200}") from None


def _entry(name: str, given: dict[str, Any]) -> Entry:
    file, sha256, size = given["file"], given["sha256"].lower(), given["bytes"]
    if not isinstance(file, str) or not file.isprintable() or len(file) > LONGEST_PATH:
        raise ValueError(f"{name}: no name of a file")
    parts = Path(file).parts
    if not parts or ".." in parts or file.startswith("/") or "\\" in file:
        raise ValueError(f"{name}: the file {file!r} is not inside the zoo")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"{name}: no sha256 of 64 digits")
    if type(size) is not int or size < 0:
        raise ValueError(f"{name}: no number of bytes")
    if not isinstance(given["metrics"], dict):
        raise ValueError(f"{name}: no metrics")
    return Entry(name, file, sha256, size, given["metrics"])


def find_entry(name: str) -> tuple[str, Entry]:
    """Return the root of the zoo and the entry of a config.

    Raises:
        UserError: no zoo, or one without it.
    """
    root = zoo_root()
    entries = read_index(root)
    if name not in entries:
        listed = ", ".join(sorted(entries)) or "nothing"
        raise UserError(f"the zoo {root} has no trained {name}; there is {listed}")
    return root, entries[name]


def fetch(name: str) -> Path:
    """Bring the weights of a config here, and return where they are.

    A file is compared with the index before anything opens it. A remembered one that differs is
    fetched once more.

    Raises:
        UserError: it cannot be had, or is not the file of the index.
    """
    root, entry = find_entry(name)
    url = f"{root}/{entry.file}"
    for is_last in (False, True):
        try:
            local = _local_path(url, entry.bytes)
            size = local.stat().st_size
            found = file_sha256(local) if size == entry.bytes else f"that of {size:,} bytes"
        except OSError as error:
            raise UserError(
                f"{url} cannot be had: {error}; try again, or check {VARIABLE}"
            ) from None
        if found == entry.sha256:
            return local
        if is_last or local == Path(url):
            break
        local.unlink()  # an old or a cut one
    raise UserError(
        f"{url} is not the file of the zoo's index: its sha256 is {found}, and {entry.sha256} (of "
        f"{entry.bytes:,} bytes) was expected. Nothing of it was read; tell whoever keeps the zoo"
    )


def _local_path(url: str, size: int | None = None) -> Path:
    if url.startswith("hf://"):
        from .hub import local_path

        return Path(local_path(url))
    return local_or_cached(url, size=size)


class ZooHandler(PathHandler):
    """Lets `zoo://NAME` stand wherever detectron2's PathManager takes a path."""

    PREFIX = "zoo://"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **_: Any) -> str:
        return str(fetch(path.removeprefix(self.PREFIX)))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **_: Any) -> IO[Any]:
        return open(self._get_local_path(path), mode, buffering)
