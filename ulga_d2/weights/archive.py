"""How weights are pickled to files: torch's zip, what it wrote before, and plain pickles.

What is read takes memory in proportion to the file: its tensors may lie in one storage, and are not
more than a few times as large together.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from detectron2.utils.file_io import PathManager
from torch import Tensor

from ..errors import UserError
from .unpickle import ADMITTED, PLAIN, Array, RefusedError, Storage, Stored, Unpickler

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # what torch.save wrote first before it wrote zip files

MOST_COPIES = 8  # bytes of tensors to those of the file, above MOST_FREE bytes
MOST_FREE = 64 * 2**20
MOST_LEVELS = 50  # of containers within containers
MOST_SHARED = 100_000  # values of containers that stand in several others
MOST_DIRECTORY = 16 * 2**20  # bytes of a zip file's directory; 100 a tensor


class PickleError(Exception):
    """A file is a pickle that torch did not write."""


class Archive:
    """What a file holds, with descriptions in the place of tensors.

    Args:
        tree: plain containers, strings, numbers and descriptions.
        read: returns the bytes of a storage.
        size: of the file, in bytes.
        values: the number of values in the tree, at least.
    """

    def __init__(self, tree: Any, read: Callable[[Storage], bytes], size: int, values: int) -> None:
        self.tree = tree
        self._read = read
        self._bytes_left = MOST_COPIES * size + MOST_FREE
        self._values_left = MOST_SHARED + values
        self._rows: dict[Storage, Tensor] = {}
        self._made: dict[Any, Tensor | None] = {}

    def tensor(self, value: Any) -> Tensor | None:
        """Return the tensor that `value` describes, or None if it describes none.

        The same description gives the same tensor.

        Raises:
            ValueError: it reaches out of its storage, repeats values, or is one too many.
        """
        if not isinstance(value, (Array, Stored)):
            return None
        key = value if isinstance(value, Stored) else id(value)
        if key not in self._made:
            self._made[key] = self._array(value) if isinstance(value, Array) else self._view(value)
        return self._made[key]

    def take(self, nbytes: int) -> None:
        """Count bytes of tensors that are made from the file.

        Raises:
            ValueError: they are far more than the file has.
        """
        self._bytes_left -= nbytes
        if self._bytes_left < 0:
            raise ValueError(
                f"its tensors are more than {MOST_COPIES} times as large as the file, because they "
                "share their values"
            )

    def _array(self, array: Array) -> Tensor | None:
        self.take(array.nbytes())
        return array.tensor()

    def _view(self, stored: Stored) -> Tensor:
        storage, offset, size, stride = stored
        count = math.prod(size)
        if min((offset, *size, *stride)) < 0:
            raise ValueError("a tensor that reaches out of its storage")
        if count == 0:
            return torch.empty(size, dtype=storage.dtype)
        if any(step == 0 and n > 1 for n, step in zip(size, stride, strict=True)):
            raise ValueError(
                "a tensor that repeats its values (a stride of 0); save a .contiguous() copy"
            )
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if max(last + 1, count) > storage.length:
            raise ValueError("a tensor that reaches out of its storage")
        self.take(count * storage.dtype.itemsize)
        if storage not in self._rows:
            self._rows[storage] = self._row(storage)
        view = torch.as_strided(self._rows[storage], size, stride, offset)
        if count == storage.length and view.is_contiguous():
            return view
        return view.clone(memory_format=torch.contiguous_format)

    def _row(self, storage: Storage) -> Tensor:
        data = self._read(storage)
        if len(data) != storage.length * storage.dtype.itemsize:
            raise ValueError(f"storage {storage.key} has another length than its tensor")
        return torch.frombuffer(bytearray(data), dtype=storage.dtype)

    def plain(self) -> Any:
        """Return the tree with tensors in their places, and no container in two places.

        Raises:
            ValueError: it holds itself, or is far larger written out than in the file.
        """
        return self._plain(self.tree, 0)

    def _plain(self, value: Any, level: int) -> Any:
        self._values_left -= 1
        if level > MOST_LEVELS:
            raise ValueError(
                f"its values are nested more than {MOST_LEVELS} levels deep, or hold themselves"
            )
        if self._values_left < 0:
            raise ValueError("its lists hold each other many times over")
        if isinstance(value, dict):
            items = dict.items(value)
            return {self._plain(k, level + 1): self._plain(v, level + 1) for k, v in items}
        if isinstance(value, (Array, Stored)):
            return self.tensor(value)
        if type(value) in (list, tuple, set):
            return type(value)(self._plain(item, level + 1) for item in value)
        is_plain = value is None or isinstance(value, (bool, int, float, str, bytes, bytearray))
        return value if is_plain or isinstance(value, torch.dtype) else None


@contextlib.contextmanager
def open_archive(path: str | Path) -> Iterator[Archive]:
    """Open a pickled file of weights for reading; nothing in it is imported or run.

    Raises:
        UserError: a missing or damaged file, or one that names an object that is neither a tensor,
            an array, a plain container nor known settings; also while tensors are read.
    """
    try:
        with PathManager.open(str(path), "rb") as file:
            yield from _archives(file, is_plain=False)
    except UserError:
        raise
    except RefusedError as error:
        raise UserError(
            f"{path} holds the Python object {error}, which is no tensor, array, plain container "
            "or known namespace of settings. Nothing of the file was run. Save the weights alone "
            "(model.state_dict()) where the file comes from"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {error.strerror or error}") from None
    except Exception as error:  # a crafted or cut stream can end in any of them
        raise UserError(f"{path} is damaged, or holds no weights: {error}") from None


def read_saved(file: BinaryIO) -> Any:
    """Return what torch.save wrote to a file: tensors and plain containers, and nothing else.

    Raises:
        RefusedError: it names another object.
        PickleError: it is a pickle that torch did not write.
        Exception: of whatever kind, for a file that is damaged or crafted.
    """
    for archive in _archives(file, is_plain=True):
        return archive.plain()


def _archives(file: BinaryIO, *, is_plain: bool) -> Iterator[Archive]:
    """Yield the one archive in a file, which is open until the iteration goes on."""
    admitted = PLAIN if is_plain else ADMITTED
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    file.seek(0)
    if not is_zip:
        yield _from_pickles(file, size, admitted)
        return
    if _directory_size(file, size) > MOST_DIRECTORY:
        raise ValueError(f"a zip file whose directory has more than {MOST_DIRECTORY:,} bytes")
    with zipfile.ZipFile(file) as archive:
        yield _from_zip(archive, size, admitted)


def _directory_size(file: BinaryIO, size: int) -> int:
    """Return the length of a zip file's directory as its last record states it; 0 without one."""
    file.seek(max(0, size - 2**16 - 22))
    tail = file.read()
    file.seek(0)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 22 > len(tail):
        return 0
    (length,) = struct.unpack_from("<L", tail, at + 12)
    if tail[at - 20 : at - 16] == b"PK\x06\x07":  # the one of 64 bits has its own record
        (start,) = struct.unpack_from("<Q", tail, at - 12)
        file.seek(min(start, size))
        record = file.read(56)
        file.seek(0)
        if len(record) == 56:
            length = max(
                0 if length == 2**32 - 1 else length, *struct.unpack_from("<Q", record, 40)
            )
    return length


def _from_zip(archive: zipfile.ZipFile, size: int, admitted: dict[str, Any]) -> Archive:
    members = archive.infolist()
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise ValueError("a zip file that torch did not write")
    if any(
        member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size
        for member in members
    ):
        raise ValueError("it is compressed, which torch never does; unpack it, or save it again")
    if sum(member.file_size for member in members) > size:
        raise ValueError("its members are longer than the file, so they overlap")
    if len(set(archive.namelist())) < len(members):
        raise ValueError("two of its members have the same name")
    root = names[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in archive.NameToInfo and archive.read(order) != b"little":
        raise ValueError("it was written on a big-endian machine")

    def read(storage: Storage) -> bytes:
        name, length = f"{root}data/{storage.key}", storage.length * storage.dtype.itemsize
        if archive.getinfo(name).file_size != length:
            raise ValueError(f"{name} has another length than its tensor")
        return archive.read(name)

    with archive.open(names[0]) as file:
        unpickler = Unpickler(file, archive.getinfo(names[0]).file_size, admitted)
        return Archive(unpickler.load(), read, size, unpickler.reads)


def _from_pickles(file: BinaryIO, size: int, admitted: dict[str, Any]) -> Archive:
    def unpickler() -> Unpickler:
        return Unpickler(file, size - file.tell(), admitted)

    reader = unpickler()
    first = reader.load()
    if type(first) is not int or first != LEGACY_MAGIC:
        if admitted is PLAIN:
            raise PickleError
        return Archive(first, lambda storage: b"", size, reader.reads)
    for _ in ("version", "machine"):
        unpickler().load()
    reader = unpickler()
    tree = reader.load()
    start = {}
    for key in unpickler().load():
        (length,) = struct.unpack("<q", file.read(8))
        start[key] = file.tell()
        if length != reader.storages[key].length:
            raise ValueError(f"storage {key} has another length than its tensor")
        end = file.seek(length * reader.storages[key].dtype.itemsize, os.SEEK_CUR)
        if end > size:
            raise EOFError("it ends in the middle")

    def read(storage: Storage) -> bytes:
        file.seek(start[storage.key])
        return file.read(storage.length * storage.dtype.itemsize)

    return Archive(tree, read, size, reader.reads)
