"""Checkpoints that are written whole or not at all, and loaded without running code."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from ..weights.load import FORMAT, is_own, read_plain

logger = logging.getLogger(__name__)

LAST_CHECKPOINT = (
    "last_checkpoint"  # detectron2's name: a text file that holds the latest's file name
)


def checkpoint_name(done: int, max_iter: int) -> str:
    """Return the file name of the checkpoint after `done` iterations of `max_iter`."""
    return "model_final.pth" if done == max_iter else f"model_{done:07d}.pth"


def save_checkpoint(
    folder: str | Path, name: str, state: dict[str, Any], *, is_last: bool = True
) -> Path:
    """Write `state` to `folder/name`; point `last_checkpoint` at it unless told not to.

    Each file is replaced atomically: a kill or a full disk at any moment leaves the previous
    checkpoint in force.
    """
    path = Path(folder) / name
    with _replacing(path) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)
    if is_last:
        with _replacing(Path(folder) / LAST_CHECKPOINT) as temporary:
            temporary.write_text(name)
    return path


class _replacing:
    """Write to a temporary file; on success flush it to disk and rename it to `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(path.name + ".tmp")

    def __enter__(self) -> Path:
        return self.temporary

    def __exit__(self, error_type: type | None, *_: object) -> None:
        if error_type is not None:
            self.temporary.unlink(missing_ok=True)
            return
        with open(self.temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self.temporary, self.path)


def last_checkpoint(folder: str | Path) -> Path | None:
    """Return the path that `last_checkpoint` names, or None if the folder holds no checkpoint."""
    pointer = Path(folder) / LAST_CHECKPOINT
    if not pointer.is_file():
        return None
    path = Path(folder) / pointer.read_text().strip()
    if not path.is_file():
        raise UserError(
            f"{pointer} names {path}, which does not exist; restore it or delete {pointer}"
        )
    return path


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
    for name in (".pth", LAST_CHECKPOINT):
        for path in Path(folder).glob(f"*{name}.tmp"):
            path.unlink(missing_ok=True)


def remove_old(folder: str | Path, keep: int, latest: int) -> None:
    """Delete all but the last `keep` periodic checkpoints up to iteration `latest`.

    Later ones are not this run's: they are left alone and do not count.
    """
    name = f"model_{latest:07d}.pth"
    periodic = [path for path in sorted(Path(folder).glob("model_[0-9]*.pth")) if path.name <= name]
    for path in periodic[: max(0, len(periodic) - max(1, keep))]:
        path.unlink(missing_ok=True)
