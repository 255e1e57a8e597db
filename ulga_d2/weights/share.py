"""Weights to share: a .safetensors file that says what they are, and holds no code."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import UserError
from ..io import without_repeats
from .digest import KEY, content_sha256, file_sha256

SUFFIX = ".safetensors"
MARK, VERSION = "ulga_d2", "weights 1"  # in the metadata of such a file
ABOUT = "about"
RESERVED = "__metadata__"  # in the header of such a file, beside the names of tensors
MOST_HEADER = 8 * 2**20  # bytes; about 100 a tensor


@dataclass(frozen=True)
class SharedInfo:
    """What shared weights are.

    Attributes:
        config: of the run, as YAML.
        class_names: in the order of the model's outputs.
        iteration: steps that were taken.
        metrics: figures of the run's last evaluation, by group and name.
        data: fingerprint of the sets that the run read, by their names.
    """

    config: str
    class_names: tuple[str, ...]
    iteration: int
    metrics: Mapping[str, float | None]
    data: Mapping[str, Any]


def write_shared(path: str | Path, weights: Mapping[str, Tensor], info: SharedInfo) -> str:
    """Write weights and what they are to a new file; return the file's sha256.

    Raises:
        UserError: a file that exists, has another suffix or cannot be written. Nothing is left
            half-written.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    about = json.dumps(asdict(info), allow_nan=False)
    metadata = {"format": "pt", MARK: VERSION, ABOUT: about, KEY: _sha256(tensors, about)}
    save_new(path, tensors, metadata)
    return file_sha256(path)


def save_new(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a .safetensors file that was not there, whole or not at all.

    Raises:
        UserError: a file that exists, has another suffix or cannot be written.
    """
    check_new(path)
    path = Path(path)
    if RESERVED in tensors:
        raise UserError(
            f"{path} cannot be written: a tensor is called {RESERVED}, a name that the format "
            "keeps for itself; rename it where it comes from"
        )
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".weights_") as folder:
            unfinished = Path(folder) / path.name
            save_file(tensors, unfinished, metadata)
            unfinished.chmod(0o644)  # the library writes for its user alone
            os.replace(unfinished, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error  # without the unfinished file's name
        raise UserError(f"{path} cannot be written: {reason}") from None


def check_new(path: str | Path) -> None:
    """Refuse what `save_new` would, before any work.

    Raises:
        UserError: a file that exists, or has another suffix.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise UserError(f"{path}: give the new file the suffix {SUFFIX}")
    if path.exists():
        raise UserError(f"{path} exists; remove it or give another name")


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], SharedInfo | None]:
    """Read a .safetensors file of ours, with what it is, or any other, with None.

    Args:
        path: a local file.

    Raises:
        UserError: it is damaged, the weights are not those that were written, or the file does not
            say what it should.
        OSError: it cannot be opened.
    """
    _check_header(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, AttributeError, KeyError) as error:  # the latter: no such type here
        raise UserError(f"{path} cannot be read, it is damaged: {error}") from None
    if MARK not in metadata:
        return tensors, None
    if metadata[MARK] != VERSION:
        raise UserError(
            f"{path} is of the kind {metadata[MARK]!r}, which another version of ulga_d2 has "
            f"written; this one reads {VERSION!r}"
        )
    about = metadata.get(ABOUT, "")
    if metadata.get(KEY) != _sha256(tensors, about):
        raise UserError(f"{path} is damaged: its content is not that of its sha256. Use another")
    return tensors, _info(path, about)


def _check_header(path: str | Path) -> None:
    """Refuse, before the library reads it, a header that is too long or names a thing twice."""
    with open(path, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > os.fstat(file.fileno()).st_size - 8:
            raise UserError(f"{path} cannot be read, it is damaged: its header is cut")
        if length > MOST_HEADER:
            raise UserError(
                f"{path} cannot be read: its header has {length:,} bytes, and {MOST_HEADER:,} are "
                "read at most"
            )
        text = file.read(length)
    try:
        json.loads(text, object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        reason = str(error)[:200]
        raise UserError(f"{path} cannot be read, it is damaged: its header: {reason}") from None


def _sha256(tensors: Mapping[str, Tensor], about: str) -> str:
    return content_sha256({"weights": dict(sorted(tensors.items())), ABOUT: about})


def _info(path: str | Path, about: str) -> SharedInfo:
    """Read the metadata; a file can be made by anyone, and its sha256, too."""
    wanted = {field.name for field in fields(SharedInfo)}
    try:
        found = json.loads(about)
        if not isinstance(found, dict) or found.keys() != wanted:
            raise ValueError(f"not the keys {', '.join(sorted(wanted))}")
        names, iteration = found["class_names"], found["iteration"]
        if not isinstance(found["config"], str) or not isinstance(names, list):
            raise ValueError("no config or no list of classes")
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError("classes that are no names")
        if type(iteration) is not int or iteration < 0:
            raise ValueError(f"the iteration {iteration!r}")
        if not isinstance(found["metrics"], dict) or not isinstance(found["data"], dict):
            raise ValueError("no metrics or no data")
        metrics = [value for name, value in found["metrics"].items() if name != "reasons"]
        if not all(value is None or _is_number(value) for value in metrics):
            raise ValueError("metrics that are no numbers")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} does not say what it holds: its metadata have {error}") from None
    return SharedInfo(**{**found, "class_names": tuple(names)})


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) < sys.float_info.max
