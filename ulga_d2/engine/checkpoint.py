"""Checkpoints that are written whole or not at all, and loaded without running code."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from detectron2.utils import comm

from ..errors import UserError
from ..evaluation.atomic import unfinished_path
from ..weights.checkpoint import LAST_CHECKPOINT
from ..weights.digest import KEY, content_sha256, file_sha256
from ..weights.load import FORMAT
from .signals import working

logger = logging.getLogger(__name__)


def checkpoint_name(done: int, max_iter: int) -> str:
    """Return the file name of the checkpoint after `done` iterations of `max_iter`."""
    return "model_final.pth" if done == max_iter else f"model_{done:07d}.pth"


def save_checkpoint(
    folder: str | Path, name: str, state: dict[str, Any], *, is_last: bool = True
) -> Path:
    """Write `state` to `folder/name`; point `last_checkpoint` at it unless told not to.

    A file is written beside the old one, flushed, read back (as the system gives it, which may be
    from memory) and compared, and only then put in its place: a kill or a full disk at any moment
    leaves the previous checkpoint in force. The sha256 of the content is in the file.

    Raises:
        UserError: the file could not be written, or is not on the disk as it was written.
    """
    path = Path(folder) / name
    content = {"format": FORMAT, **state}
    try:
        with working():
            content[KEY] = content_sha256(content)
            _replace(path, lambda file: torch.save(content, file))
            if is_last:
                _replace(Path(folder) / LAST_CHECKPOINT, lambda file: file.write(name.encode()))
    except (OSError, RuntimeError) as error:  # the latter is torch's
        reason = getattr(error, "strerror", None) or error
        pointer = Path(folder) / LAST_CHECKPOINT
        cure = "None has been written before: make room, and start anew in an empty folder"
        if pointer.is_file():
            before = pointer.read_text(errors="replace")
            cure = f"{before} is still in force: make room, and --resume goes on from there"
        raise UserError(f"checkpoint {path} could not be written: {reason}. {cure}") from None
    return path


def save_together(
    folder: str | Path, name: str, state: dict[str, Any], *, is_last: bool = True
) -> None:
    """Have the main process call `save_checkpoint`; every rank must call this, and learns of it.

    Raises:
        UserError: on every rank, if the file could not be written.
    """
    fault: tuple[str, ...] = ()
    with working():  # on every rank: the others wait for the main one
        if comm.is_main_process():
            try:
                save_checkpoint(folder, name, state, is_last=is_last)
            except UserError as error:
                fault = error.args
        fault = comm.all_gather(fault)[0]
    if fault:
        raise UserError(*fault)


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Put a new file in the place of `path`, whole or not at all."""
    temporary = unfinished_path(path)
    try:
        with open(temporary, "wb") as raw:
            file = _Hashing(raw)
            try:
                write(file)
            except RuntimeError as error:
                raise file.fault or error from None
            raw.flush()
            os.fsync(raw.fileno())
        if file_sha256(temporary) != file.sha256.hexdigest():
            raise OSError(errno.EIO, "the disk gives back other bytes than were written")
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class _Hashing:
    """A file that keeps the sha256 of what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.fault: OSError | None = None

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.fault = error  # torch raises another in its place
            raise

    def flush(self) -> None:
        self._file.flush()


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can (Windows cannot)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_old(folder: str | Path, keep: int, latest: int) -> None:
    """Delete all but the last `keep` periodic checkpoints up to iteration `latest`.

    Later ones are not this run's: they are left alone and do not count.
    """
    name = f"model_{latest:07d}.pth"
    periodic = [path for path in sorted(Path(folder).glob("model_[0-9]*.pth")) if path.name <= name]
    for path in periodic[: max(0, len(periodic) - max(1, keep))]:
        path.unlink(missing_ok=True)
