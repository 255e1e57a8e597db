"""Tensors out of pickles that hold other objects too, without importing or running any of them.

A pickle is a program, whose calls go to what it names. Here the names lead to a short fixed list of
our own functions and never to a module, and these only describe: where a tensor's values lie, or
which bytes an array has. The values are read afterwards. A name that is not listed refuses the
file.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

# Settings that trainers save beside the weights. They become nothing.
NAMESPACES = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "detectron2.config.config.CfgNode",
    "collections.Counter",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "torch.device",
)


class Storage(NamedTuple):
    """A row of numbers in the file."""

    key: str
    dtype: torch.dtype
    length: int


class Stored(NamedTuple):
    """A tensor: where in a storage its values lie."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Nothing:
    """What becomes of an object that is dropped: it takes any state and keeps none."""

    def __new__(cls, *_: object, **__: object) -> _Nothing:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass


class _Dtype:
    """A numpy dtype, as its letter and size, and its byte order."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


class Array:
    """A numpy array, as its shape and bytes."""

    def __init__(self, *_: object) -> None:
        self.state: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        self.state = state

    def tensor(self) -> Tensor | None:
        """Return the array as a tensor, or None if it holds no numbers."""
        _, shape, dtype, is_fortran, data = self.state
        code = str(dtype.code)
        if not re.fullmatch(r"[iuf][1248]|b1", code):
            return None
        data = data.encode("latin1") if isinstance(data, str) else data  # from Python 2
        order = dtype.order if dtype.order in ("<", ">") else "="
        array = np.frombuffer(data, np.dtype(code).newbyteorder(order))
        array = array.reshape(shape, order="F" if is_fortran else "C")
        return torch.from_numpy(array.astype(code, order="C"))


class _Function:
    """A function that a pickle may call and cannot change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: object) -> Any:
        return self._call(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a pickle that gives a function a state")


def _stored(storage: Storage, offset: int, size: tuple, stride: tuple, *_: object) -> Stored:
    return Stored(storage, offset, tuple(size), tuple(stride))


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple, order: str) -> Array:
    if not isinstance(data, (bytes, bytearray)):
        raise pickle.UnpicklingError("an array whose buffer is no bytes")
    array = Array()
    array.__setstate__((1, shape, dtype, order == "F", bytes(data)))
    return array


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding}")
    return text.encode("latin1")


ADMITTED: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _Function(_stored),
    "torch._utils._rebuild_tensor_v2": _Function(_stored),
    "torch._utils._rebuild_parameter": _Function(lambda stored, *_: stored),
    "numpy.ndarray": None,
    "numpy.dtype": _Function(_Dtype),
    "_codecs.encode": _Function(_encode),
    **{f"torch.{name}": dtype for name, dtype in DTYPES.items()},
    **{f"torch.cuda.{name}": dtype for name, dtype in DTYPES.items()},
    **{str(dtype): dtype for dtype in DTYPES.values()},
    **{
        f"numpy.{core}.{name}": _Function(function)
        for core in ("core", "_core")
        for name, function in (
            ("multiarray._reconstruct", Array),
            ("multiarray.scalar", _Nothing),
            ("numeric._frombuffer", _from_buffer),
        )
    },
    **dict.fromkeys(NAMESPACES, _Nothing),
}


class RefusedError(Exception):
    """A pickle names an object that is not admitted."""


class Unpickler(pickle.Unpickler):
    """Reads descriptions of tensors; everything else that is no plain container is refused."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle's name stands for; nothing is imported."""
        full_name = f"{module}.{name}"
        if full_name not in ADMITTED:
            raise RefusedError(full_name)
        return ADMITTED[full_name]

    def persistent_load(self, saved: Any) -> Storage:
        """Return the description of a storage that torch wrote apart from the pickle."""
        kind, dtype, key, _location, length, *view = saved
        if kind != "storage" or any(view):
            raise pickle.UnpicklingError("not a storage")
        return self.storages.setdefault(key, Storage(key, dtype, length))
