"""Checkpoints of this project, read back: one file, or the last one of a run folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from .load import FORMAT, is_own, read_plain

logger = logging.getLogger(__name__)

# detectron2's name: a text file that holds the latest checkpoint's file name.
LAST_CHECKPOINT = "last_checkpoint"
CHECKPOINTS = "model_*.pth"


def holds_checkpoint(folder: str | Path) -> bool:
    """Tell whether a run has left anything in a folder that it could be gone on with from."""
    return (Path(folder) / LAST_CHECKPOINT).exists() or any(Path(folder).glob(CHECKPOINTS))


def last_checkpoint_name(folder: str | Path) -> str:
    """Return what `last_checkpoint` names, or "" where it cannot be read."""
    try:
        return (Path(folder) / LAST_CHECKPOINT).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


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
        raise UserError("no checkpoint can be gone on with:", *damages)
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
        raise UserError(
            f"the weights in {place} do not fit the model of this config:",
            *(line.replace("\t", "  ")[:300] for line in lines[1:6]),
            "Use the MODEL keys of the run that wrote them; they are in its config.yaml.",
        ) from None


def evaluated_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights of a checkpoint that its run evaluated: the mean where it has one."""
    return state.get("ema", state["model"])
