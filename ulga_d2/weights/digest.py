"""A fingerprint of what a checkpoint holds, whatever file holds it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.file_io import PathManager
from torch import Tensor

KEY = "sha256"  # of the entry that keeps the fingerprint


def content_sha256(state: Mapping[str, Any]) -> str:
    """Return the sha256 of everything that a checkpoint holds, but for the entry of that name.

    It covers tensors (type, shape, bytes) and plain values, with their places and kinds. So it
    stands inside the file, which can be written, renamed and copied as one, and damage anywhere
    in the file is either found or without effect.

    Args:
        state: tensors on any device, numbers, texts, None, lists, tuples and dicts.

    Raises:
        TypeError: a value of another kind, such as a sparse tensor, or a list that holds itself.
    """
    digest = hashlib.sha256()
    try:
        _add(digest, {name: value for name, value in state.items() if name != KEY})
    except RecursionError:
        raise TypeError("a checkpoint holds a list or a dict that holds itself") from None
    return digest.hexdigest()


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """Return the sha256 of a model's weights, whatever file holds them, in whatever order."""
    return content_sha256(dict(sorted(weights.items())))


def _add(digest: Any, value: Any) -> None:
    # Each value says its kind and length first, so that no two contents give the same bytes.
    if isinstance(value, Tensor):
        if value.is_meta or value.is_quantized or value.layout is not torch.strided:
            raise TypeError("a checkpoint holds a tensor that is not dense")
        digest.update(f"tensor {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(_bytes(value))
    elif isinstance(value, Mapping):
        digest.update(f"dict {len(value)} ".encode())
        for name, item in value.items():
            _add(digest, name)
            _add(digest, item)
    elif isinstance(value, (list, tuple)):
        digest.update(f"{type(value).__name__} {len(value)} ".encode())
        for item in value:
            _add(digest, item)
    elif value is None or isinstance(value, (bool, int, float, str)):
        text = repr(value).encode()  # of a float: the shortest that gives the same number
        digest.update(f"{type(value).__name__} {len(text)} ".encode() + text)
    else:
        raise TypeError(f"a checkpoint holds a {type(value).__name__}, which is no plain value")


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


def file_sha256(path: str | Path) -> str:
    """Return the sha256 of a file's bytes.

    Args:
        path: whatever detectron2's PathManager opens.
    """
    digest = hashlib.sha256()
    with PathManager.open(str(path), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
