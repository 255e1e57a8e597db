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
from torch import nn

from ..errors import UserError
from ..weights.digest import KEY, content_sha256, file_sha256
from ..weights.load import FORMAT, is_own, read_plain

logger = logging.getLogger(__name__)

# detectron2's name: a text file that holds the latest checkpoint's file name.
LAST_CHECKPOINT = "last_checkpoint"
CHECKPOINTS = "model_*.pth"
UNFINISHED = ".tmp"


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
    content[KEY] = content_sha256(content)
    try:
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
    fault = ""
    if comm.is_main_process():
        try:
            save_checkpoint(folder, name, state, is_last=is_last)
        except UserError as error:
            fault = str(error)
    fault = comm.all_gather(fault)[0]
    if fault:
        raise UserError(fault)


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Put a new file in the place of `path`, whole or not at all."""
    temporary = path.with_name(path.name + UNFINISHED)
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


def holds_checkpoint(folder: str | Path) -> bool:
    """Tell whether a run has left anything in a folder that it could be gone on with from."""
    return (Path(folder) / LAST_CHECKPOINT).exists() or any(Path(folder).glob(CHECKPOINTS))


def load_last(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """Read the checkpoint that `last_checkpoint` names; if it is damaged, the newest that is not.

    Every damage is logged as a warning.

    Raises:
        UserError: none can be read; every damage is named.
    """
    folder = Path(folder)
    damages: list[str] = []
    named = None
    try:
        named = _named_last(folder)
        return named, load_checkpoint(named)
    except UserError as error:
        damages.append(str(error))
    found: list[tuple[Path, dict[str, Any]]] = []
    for path in sorted(set(folder.glob(CHECKPOINTS)) - {named}):
        try:
            found.append((path, load_checkpoint(path)))
        except UserError as error:
            damages.append(str(error))
        found = sorted(found, key=lambda pair: pair[1]["iteration"])[-1:]
    if not found:
        raise UserError("\n".join(["no checkpoint can be gone on with:", *damages]))
    (path, state) = found[0]
    for damage in damages:
        logger.warning("%s", damage)
    logger.warning("going on with %s instead (iteration %d)", path, state["iteration"])
    return path, state


def _named_last(folder: Path) -> Path:
    pointer = folder / LAST_CHECKPOINT
    try:
        name = pointer.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise UserError(f"{pointer} does not exist: the run ended before its first save") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{pointer} cannot be read: {error}") from None
    if not name or Path(name).name != name:
        raise UserError(f"{pointer} holds {name[:80]!r}, which is no name of a checkpoint")
    if not (folder / name).is_file():
        raise UserError(f"{pointer} names {name}, which does not exist")
    return folder / name


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; only tensors and plain containers are admitted.

    Raises:
        UserError: a missing or damaged file, one that would need code to load, or not ours.
    """
    state = read_plain(path)
    if not is_own(state):
        raise UserError(
            f"{path} is not a checkpoint of this project (no '{FORMAT}' mark in it); public "
            "weights can start a training, and cannot be evaluated or resumed"
        )
    return state


def load_weights(model: nn.Module, state: dict[str, Any], place: str | Path) -> None:
    """Load the checkpoint's weights; every name and shape must match.

    Raises:
        UserError: the model of the config is another than the checkpoint's.
    """
    try:
        model.load_state_dict(state["model"], strict=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        listed = "\n".join(line[:300] for line in lines[1:6])
        raise UserError(
            f"the weights in {place} do not fit the model of this config:\n{listed}\n"
            "Evaluate and resume with the run's own config.yaml."
        ) from None


def remove_unfinished(folder: str | Path) -> None:
    """Delete the half-written files that a kill in the middle of a save has left."""
    for name in (CHECKPOINTS, LAST_CHECKPOINT):
        for path in Path(folder).glob(name + UNFINISHED):
            path.unlink(missing_ok=True)


def remove_old(folder: str | Path, keep: int, latest: int) -> None:
    """Delete all but the last `keep` periodic checkpoints up to iteration `latest`.

    Later ones are not this run's: they are left alone and do not count.
    """
    name = f"model_{latest:07d}.pth"
    periodic = [path for path in sorted(Path(folder).glob("model_[0-9]*.pth")) if path.name <= name]
    for path in periodic[: max(0, len(periodic) - max(1, keep))]:
        path.unlink(missing_ok=True)
