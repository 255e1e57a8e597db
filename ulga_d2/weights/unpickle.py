"""Tensors out of pickles that hold other objects too, without importing or running any of them.

A pickle is a program, whose calls go to what it names. Here the names lead to a short fixed list of
our own functions and never to a module, and these only describe: where a tensor's values lie, or
which bytes an array has. The values are read afterwards. A name that is not listed refuses the
file.

What such a program makes is in proportion to its length: lengths in it are compared with what is
left of the file before anything is allocated, no value is copied, and nothing is hashed that takes
longer than reading it.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
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
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
BYTES = "UntypedStorage"  # whose tensors name their types themselves
UNTYPED = (
    *(torch.uint16, torch.uint32, torch.uint64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
)

MOST_READS = 1_500_000  # of a pickle: one or two an operation; some 50 a tensor
MOST_ARGUMENTS = 20
MOST_AXES = 64
MOST_SIDE = 2**62

# Settings that trainers save beside the weights. They become nothing.
NAMESPACES = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "detectron2.config.config.CfgNode",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
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

    def __init__(self, code: str | bytes, *_: object) -> None:
        if not isinstance(code, (str, bytes)) or len(code) > 8:
            raise pickle.UnpicklingError("an array of a type without a name")
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
        array = array.reshape(_sides(shape), order="F" if is_fortran else "C")
        return torch.from_numpy(array.astype(code, order="C"))

    def nbytes(self) -> int:
        """Return the length of its data."""
        return len(self.state[-1]) if self.state else 0


class _Function:
    """A function that a pickle may call and cannot change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: object) -> Any:
        return self._call(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a pickle that gives a function a state")


def _sides(given: Any) -> tuple[int, ...]:
    """Return a tensor's size, stride or shape if it is one."""
    is_one = type(given) is tuple and len(given) <= MOST_AXES
    if not is_one or not all(type(side) is int and abs(side) < MOST_SIDE for side in given):
        raise pickle.UnpicklingError("a tensor whose size is none")
    return given


def _stored(storage: Storage, offset: int, size: tuple, stride: tuple, *_: object) -> Stored:
    if type(storage) is not Storage:
        raise pickle.UnpicklingError("a tensor without a storage")
    _sides((offset,))
    if len(_sides(size)) != len(_sides(stride)):
        raise pickle.UnpicklingError("a tensor with another number of strides than of sides")
    return Stored(storage, offset, size, stride)


def _stored_untyped(
    storage: Storage, offset: int, size: tuple, stride: tuple, *more: object
) -> Stored:
    _, _, dtype, *_ = more
    if not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("a tensor without a type")
    length, rest = divmod(storage.length * storage.dtype.itemsize, dtype.itemsize)
    if rest:
        raise pickle.UnpicklingError("a storage with a part of a number")
    return _stored(Storage(storage.key, dtype, length), offset, size, stride)


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple, order: str) -> Array:
    if not isinstance(data, (bytes, bytearray)):
        raise pickle.UnpicklingError("an array whose buffer is no bytes")
    array = Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _size(sides: tuple = ()) -> tuple[int, ...]:
    return _sides(sides)


# What a file that torch saved may name: nothing but tensors and plain containers.
PLAIN: dict[str, Any] = {
    "torch.Size": _Function(_size),
    "torch._utils._rebuild_tensor": _Function(_stored),
    "torch._utils._rebuild_tensor_v2": _Function(_stored),
    "torch._utils._rebuild_tensor_v3": _Function(_stored_untyped),
    "torch._utils._rebuild_parameter": _Function(lambda stored, *_: stored),
    "torch.device": _Nothing,
    "collections.Counter": _Nothing,
    f"torch.{BYTES}": torch.uint8,
    f"torch.storage.{BYTES}": torch.uint8,
    **{f"torch.{name}": dtype for name, dtype in DTYPES.items()},
    **{f"torch.cuda.{name}": dtype for name, dtype in DTYPES.items()},
    **{str(dtype): dtype for dtype in (*DTYPES.values(), *UNTYPED)},
}
# What else can stand in a file of weights.
ADMITTED: dict[str, Any] = {
    **PLAIN,
    "numpy.ndarray": None,
    "numpy.dtype": _Function(_Dtype),
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


class _Rest:
    """What is left of a file, of which no more can be asked."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file = file
        self._left = left
        self.reads = 0

    def read(self, count: int) -> bytes:
        self.reads += 1
        if self.reads > MOST_READS:
            raise pickle.UnpicklingError(f"it has more than {MOST_READS:,} operations")
        if count > self._left:
            raise EOFError("it ends in the middle")
        self._left -= count
        return self._file.read(count)

    def readline(self) -> bytes:
        self.reads += 1
        line = self._file.readline(self._left)
        self._left -= len(line)
        return line


class Unpickler(pickle._Unpickler):
    """Reads descriptions of tensors; everything else that is no plain container is refused.

    It is Python's own reader in Python: its index of values takes the memory that they need,
    whatever their numbers are, and its operations can be replaced.

    Args:
        file: at the start of the pickle; afterwards, at its end.
        size: of the pickle, or of the file that it is in, from here on, in bytes.
        admitted: what names stand for.
    """

    def __init__(self, file: BinaryIO, size: int, admitted: Mapping[str, Any] = ADMITTED) -> None:
        self._rest = _Rest(file, size)
        super().__init__(self._rest, encoding="latin1")
        self._admitted = {
            **admitted,
            "collections.OrderedDict": _Function(self._ordered),
            "builtins.set": _Function(self._set),
            "__builtin__.set": _Function(self._set),
            "_codecs.encode": _Function(self._encode),
        }
        self._may_copy = size  # a call can name one value again and again
        self.storages: dict[str, Storage] = {}

    def load(self) -> Any:
        """Return what the pickle holds.

        Raises:
            RefusedError: it names an object that is not admitted.
            Exception: of whatever kind, for a pickle that is damaged or crafted.
        """
        try:
            return super().load()
        except (KeyError, IndexError):  # an operation that there is not, or without its values
            raise pickle.UnpicklingError("it is no whole pickle") from None

    @property
    def reads(self) -> int:
        """How often it has read from the file: at least once for each value."""
        return self._rest.reads

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle's name stands for; nothing is imported."""
        full_name = f"{module}.{name}"
        if full_name not in self._admitted:
            raise RefusedError(full_name[:200])
        return self._admitted[full_name]

    def persistent_load(self, saved: Any) -> Storage:
        """Return the description of a storage that torch wrote apart from the pickle."""
        kind, dtype, key, _location, length, *view = saved
        is_storage = isinstance(kind, str) and kind == "storage" and view in ([], [None])
        if not is_storage or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError("not a storage")
        if type(length) is not int or not 0 <= length < MOST_SIDE:
            raise pickle.UnpicklingError("a storage without a length")
        return self.storages.setdefault(key, Storage(key, dtype, length))

    def _copying(self, count: int) -> None:
        self._may_copy -= count
        if self._may_copy < 0:
            raise pickle.UnpicklingError("it copies values again and again")

    def _ordered(self, items: Any = ()) -> OrderedDict:
        if not isinstance(items, (list, tuple)):
            raise pickle.UnpicklingError("a dict of no list")
        self._copying(len(items))
        return OrderedDict((_key(key), value) for key, value in items)

    def _set(self, items: Any = ()) -> set:
        if not isinstance(items, (list, tuple)):
            raise pickle.UnpicklingError("a set of no list")
        self._copying(len(items))
        return {_key(key) for key in items}

    def _encode(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError("bytes in another encoding than latin1")
        self._copying(len(text))
        return text.encode("latin1")

    def _load_frame(self) -> None:
        self.read(8)  # its length is of no use: what it holds is read as it comes

    def _load_bytearray(self) -> None:
        (count,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(count)))

    def _load_reduce(self) -> None:
        args = self.stack.pop()
        if type(args) is not tuple or len(args) > MOST_ARGUMENTS:
            raise pickle.UnpicklingError("a call without arguments")
        self.stack[-1] = self.stack[-1](*args)

    def _load_newobj(self) -> None:
        args, cls = self.stack.pop(), self.stack.pop()
        if cls is not _Nothing or type(args) is not tuple:
            raise pickle.UnpicklingError("an object of no class")
        self.append(_Nothing())

    def _load_newobj_with_names(self) -> None:
        self.stack.pop()
        self._load_newobj()

    def _load_build(self) -> None:
        state, inst = self.stack.pop(), self.stack[-1]
        if isinstance(inst, (_Nothing, _Dtype, Array)):
            inst.__setstate__(state)
        elif not isinstance(inst, OrderedDict):  # torch's have a state that is not used
            raise pickle.UnpicklingError("a state for an object that takes none")

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items(self.stack[-1], [key, value])

    def _load_setitems(self) -> None:
        items = self.pop_mark()
        self._set_items(self.stack[-1], items)

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(self.stack[-1], items)

    def _set_items(self, target: Any, items: list) -> None:
        if not isinstance(target, (dict, _Nothing)):
            raise pickle.UnpicklingError("an item for what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def _load_additems(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update(map(_key, items))

    dispatch = {
        **{
            code: function
            for code, function in pickle._Unpickler.dispatch.items()
            if bytes([code])
            not in (
                *(pickle.PERSID, pickle.EXT1, pickle.EXT2, pickle.EXT4),
                *(pickle.FROZENSET, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
            )
        },
        pickle.FRAME[0]: _load_frame,
        pickle.BYTEARRAY8[0]: _load_bytearray,
        pickle.REDUCE[0]: _load_reduce,
        pickle.NEWOBJ[0]: _load_newobj,
        pickle.NEWOBJ_EX[0]: _load_newobj_with_names,
        pickle.BUILD[0]: _load_build,
        pickle.SETITEM[0]: _load_setitem,
        pickle.SETITEMS[0]: _load_setitems,
        pickle.DICT[0]: _load_dict,
        pickle.ADDITEMS[0]: _load_additems,
    }


def _key(value: Any) -> Any:
    """Return a key of a dict if it is a plain one; others can take for ever to hash or compare."""
    parts: Iterable[Any] = value if type(value) is tuple and len(value) < MOST_AXES else (value,)
    for part in parts:
        is_plain = part is None or isinstance(part, (str, bytes, float, bool))
        if not is_plain and not (type(part) is int and abs(part) < 2**60):
            raise pickle.UnpicklingError(f"a {type(part).__name__} as a key")
    return value
