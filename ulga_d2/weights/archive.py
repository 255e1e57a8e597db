"""How weights are pickled to files: torch's zip, what it wrote before, and plain pickles."""

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
from .unpickle import Array, RefusedError, Storage, Stored, Unpickler

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # what torch.save wrote first before it wrote zip files


class Archive:
    """What a file holds, with descriptions in the place of tensors.

    Attributes:
        tree: plain containers, strings, numbers and descriptions.
    """

    def __init__(self, tree: Any, read: Callable[[Storage], bytes]) -> None:
        self.tree = tree
        self._read = read

    def tensor(self, value: Any) -> Tensor | None:
        """Return the tensor that `value` describes, or None if it describes none."""
        if isinstance(value, Array):
            return value.tensor()
        if not isinstance(value, Stored):
            return None
        storage, offset, size, stride = value
        count = math.prod(size)
        if count == 0:
            return torch.empty(size, dtype=storage.dtype)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if min((offset, *size, *stride)) < 0 or max(last + 1, count) > storage.length:
            raise ValueError("a tensor that reaches out of its storage")
        row = torch.frombuffer(bytearray(self._read(storage)), dtype=storage.dtype)
        return torch.as_strided(row, size, stride, offset).clone(
            memory_format=torch.contiguous_format
        )


@contextlib.contextmanager
def open_archive(path: str | Path) -> Iterator[Archive]:
    """Open a pickled file of weights for reading; nothing in it is imported or run.

    Raises:
        UserError: a missing or damaged file, or one that names an object that is neither a tensor,
            an array, a plain container nor known settings; also while tensors are read.
    """
    try:
        with PathManager.open(str(path), "rb") as file:
            is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
            file.seek(0)
            if is_zip:
                with zipfile.ZipFile(file) as archive:
                    yield _from_zip(archive)
            else:
                yield _from_pickles(file)
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


def _from_zip(archive: zipfile.ZipFile) -> Archive:
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise ValueError("a zip file that torch did not write")
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise ValueError("it is compressed, which torch never does")
    root = names[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("it was written on a big-endian machine")

    def read(storage: Storage) -> bytes:
        name, length = f"{root}data/{storage.key}", storage.length * storage.dtype.itemsize
        if archive.getinfo(name).file_size != length:
            raise ValueError(f"{name} has another length than its tensor")
        return archive.read(name)

    with archive.open(names[0]) as file:
        return Archive(Unpickler(file).load(), read)


def _from_pickles(file: BinaryIO) -> Archive:
    first = Unpickler(file).load()
    if first != LEGACY_MAGIC:
        return Archive(first, lambda storage: b"")
    for _ in ("version", "machine"):
        Unpickler(file).load()
    unpickler = Unpickler(file)
    tree = unpickler.load()
    start = {}
    for key in Unpickler(file).load():
        (length,) = struct.unpack("<q", file.read(8))
        start[key] = file.tell()
        if length != unpickler.storages[key].length:
            raise ValueError(f"storage {key} has another length than its tensor")
        file.seek(length * unpickler.storages[key].dtype.itemsize, os.SEEK_CUR)

    def read(storage: Storage) -> bytes:
        file.seek(start[storage.key])
        return file.read(storage.length * storage.dtype.itemsize)

    return Archive(tree, read)
