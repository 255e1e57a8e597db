"""Checkpoints of this project, read back: one file, or the last one of a run folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..config import parse_config
from ..errors import UserError
from .load import FORMAT, is_own, read_plain
from .tensor_checks import check_tensors, check_types

logger = logging.getLogger(__name__)

# detectron2's name: a text file that holds the latest checkpoint's file name.
LAST_CHECKPOINT = "last_checkpoint"
CHECKPOINTS = "model_*.pth"
_LONGEST_NAME = 4096  # bytes
_MOST_ITERATIONS = 2**53  # far more than any run has; whole numbers up to it are exact as floats
_WEIGHTS = {"model": "weight", "ema": "averaged weight"}


def holds_checkpoint(folder: str | Path) -> bool:
    """Tell whether a run has left anything in a folder that it could be gone on with from."""
    return (Path(folder) / LAST_CHECKPOINT).exists() or any(Path(folder).glob(CHECKPOINTS))


def last_checkpoint_name(folder: str | Path) -> str:
    """Return what `last_checkpoint` names, or "" where it cannot be read."""
    try:
        return (Path(folder) / LAST_CHECKPOINT).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def load_last(
    folder: str | Path, check: Callable[[dict[str, Any], Path], None] = lambda state, path: None
) -> tuple[Path, dict[str, Any]]:
    """Read the checkpoint that `last_checkpoint` names; if it is damaged, the newest that is not.

    Every damage is logged as a warning.

    Args:
        folder: of a run.
        check: raises UserError for a checkpoint that is whole, and still of no use to the caller.

    Raises:
        UserError: none can be used; every damage is named.
    """
    folder = Path(folder)

    def read(path: Path) -> tuple[Path, dict[str, Any]]:
        if not path.is_file():
            raise UserError(f"{path} is no file")
        state = load_checkpoint(path)
        check(state, path)
        return path, state

    damages: list[tuple[str, ...]] = []
    named = None
    try:
        named = _named_last(folder)
        return read(named)
    except UserError as error:
        damages.append(error.args)
    found: list[tuple[Path, dict[str, Any]]] = []
    for path in sorted(set(folder.glob(CHECKPOINTS)) - {named}):
        try:
            found.append(read(path))
        except UserError as error:
            damages.append(error.args)
        found = sorted(found, key=lambda pair: pair[1]["iteration"])[-1:]
    lines = [line for damage in damages for line in damage]
    if not found:
        raise UserError("no checkpoint can be gone on with:", *lines)
    (path, state) = found[0]
    for line in lines:
        logger.warning("%s", line)
    logger.warning("going on with %s instead (iteration %d)", path, state["iteration"])
    return path, state


def _named_last(folder: Path) -> Path:
    pointer = folder / LAST_CHECKPOINT
    if pointer.exists() and not pointer.is_file():
        raise UserError(f"{pointer} cannot be read: it is no file")
    try:
        with pointer.open("rb") as file:
            content = file.read(_LONGEST_NAME)
        name = content.decode().strip()
    except FileNotFoundError:
        raise UserError(f"{pointer} does not exist: the run ended before its first save") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{pointer} cannot be read: {error}") from None
    if not _is_name(name):
        raise UserError(f"{pointer} holds {name[:80]!r}, which is no name of a checkpoint")
    if not (folder / name).is_file():
        raise UserError(f"{pointer} names {name}, which does not exist")
    return folder / name


def _is_name(text: str) -> bool:
    """Tell whether a text is the name of a file in a folder, and of none elsewhere."""
    return text.isprintable() and text not in ("", "..") and Path(text).name == text


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; only tensors and plain containers are admitted.

    Raises:
        UserError: a missing or damaged file, one that would need code to load, not ours, or with a
            content that none of ours has; see `check_content`.
    """
    state = read_plain(path)
    if not is_own(state):
        raise UserError(
            f"{path} is not a checkpoint of this project (no '{FORMAT}' mark in it); public "
            "weights can start a training, and cannot be evaluated or resumed"
        )
    check_content(state, path)
    return state


def check_content(state: Mapping[str, Any], path: str | Path) -> None:
    """Refuse a checkpoint whose entries are not those of a trained detector.

    Its sha256 tells that it is as it was written, and not that a run has written it.

    Args:
        state: what the file holds.
        path: of the file, for messages.

    Raises:
        UserError: weights that are no dense tensors of finite numbers, or an iteration, a list of
            classes or a config that is none; the message names the entry.
    """
    for key in ("model", "ema"):
        if key in state or key == "model":
            check_tensors(state.get(key), str(path), what=_WEIGHTS[key])
    if "ema" in state and not _is_count(state.get("ema_steps")):
        raise _odd(path, state, "ema_steps", "a whole number from 0")
    if not _is_count(state.get("iteration")):
        raise _odd(path, state, "iteration", "a whole number from 0")
    names = state.get("class_names")
    is_list = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    if not names or not is_list or len(set(names)) < len(names):
        raise _odd(path, state, "class_names", "a list of different names")
    if not isinstance(state.get("config"), str):
        raise _odd(path, state, "config", "a text")
    parse_config(state["config"], str(path))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST_ITERATIONS


def _odd(path: str | Path, state: Mapping[str, Any], key: str, wanted: str) -> UserError:
    found = f"is a {type(state[key]).__name__}" if key in state else "is missing"
    if isinstance(state.get(key), (int, float, str)):
        found = f"is {state[key]!r:.80}"
    return UserError(f"{path}: its {key} {found}, and must be {wanted}; use another checkpoint")


def load_weights(model: nn.Module, state: dict[str, Any], place: str | Path) -> None:
    """Load the checkpoint's weights; every name and shape must match.

    Floating-point types are converted to the model's.

    Raises:
        UserError: the model of the config is another than the checkpoint's, or a weight is of a
            type that cannot be converted without loss of meaning.
    """
    check_types(state["model"], model.state_dict(), str(place))
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
