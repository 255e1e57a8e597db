"""Where a zoo is, what its index says, and how a file of it comes here."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from detectron2.utils.file_io import PathHandler, PathManager

from ..errors import UserError
from .digest import file_sha256

VARIABLE = "ULGA_ZOO"
INDEX = "index.json"


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
            local = _local_path(url, folder)
            content = json.loads(Path(local).read_text(encoding="utf-8"))
            return {name: _entry(name, given) for name, given in content["entries"].items()}
        except OSError as error:
            raise UserError(f"{url} cannot be had: {error}; check {VARIABLE}") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{url} is no index of a zoo: {error!r}") from None


def _entry(name: str, given: dict[str, Any]) -> Entry:
    entry = Entry(name, given["file"], given["sha256"], given["bytes"], given["metrics"])
    parts = Path(entry.file).parts
    if not parts or ".." in parts or entry.file.startswith("/") or "\\" in entry.file:
        raise ValueError(f"{name}: the file {entry.file!r} is not inside the zoo")
    return entry


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
            local = Path(_local_path(url))
            found = file_sha256(local)
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
        f"{url} is not the file of the zoo's index: its sha256 is {found}, and {entry.sha256} was "
        "expected. Nothing of it was read; tell whoever keeps the zoo"
    )


def _local_path(url: str, cache: str | None = None) -> str:
    if url.startswith("hf://"):
        from .hub import local_path

        return local_path(url)
    is_local = "://" not in url
    return PathManager.get_local_path(url, **({} if is_local else {"cache_dir": cache}))


class ZooHandler(PathHandler):
    """Lets `zoo://NAME` stand wherever detectron2's PathManager takes a path."""

    PREFIX = "zoo://"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **_: Any) -> str:
        return str(fetch(path.removeprefix(self.PREFIX)))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **_: Any) -> IO[Any]:
        return open(self._get_local_path(path), mode, buffering)
