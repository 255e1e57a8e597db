"""Files that try to run code when they are read."""

from __future__ import annotations

import io
import json
import os
import pickle
import runpy
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

FORMAT = "ulga_d2 checkpoint 1"


class Calls:
    """Pickles to a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def touch(canary: Path) -> Calls:
    return Calls(os.system, f"touch {canary}")


def by_exec(canary: Path) -> Calls:
    return Calls(exec, f"open({str(canary)!r}, 'w')")


def by_eval(canary: Path) -> Calls:
    return Calls(eval, f"open({str(canary)!r}, 'w')")


def by_open(canary: Path) -> Calls:
    return Calls(open, str(canary), "w")


def by_path(canary: Path) -> Calls:
    return Calls(Path.touch, canary)


def by_script(canary: Path) -> Calls:
    script = canary.with_suffix(".py")
    script.write_text(f"open({str(canary)!r}, 'w')")
    return Calls(runpy.run_path, str(script))


CALLS = (touch, by_exec, by_eval, by_open, by_path, by_script)
Writer = Callable[[object, Path], None]


def as_pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


def as_old_pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=0))


def as_zip(value: object, path: Path) -> None:
    torch.save(value, path)


def as_old_torch(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def as_tar(value: object, path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(value)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def as_npy(value: object, path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.array([value], dtype=object), allow_pickle=True)


def as_npz(value: object, path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, weight=np.array([value], dtype=object))


WRITERS: dict[str, Writer] = {
    "pkl": as_pickle,
    "protocol 0": as_old_pickle,
    "pth": as_zip,
    "legacy pth": as_old_torch,
    "tar": as_tar,
    "npy": as_npy,
    "npz": as_npz,
}
PLACES: dict[str, Callable[[object], object]] = {
    "alone": lambda call: call,
    "in the model": lambda call: {"format": FORMAT, "model": {"weight": call}, "iteration": 1},
    "as a key": lambda call: {"model": {"patch_embed.proj.weight": [call, {"x": (call,)}]}},
}
PICKLED = [
    (writer, place, call.__name__)
    for number, writer in enumerate(WRITERS)
    for index, place in enumerate(PLACES)
    for call in (CALLS[(number + index) % len(CALLS)], CALLS[(number + index + 3) % len(CALLS)])
]


def header(content: object, data: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def zip_with(path: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(path, content)
    return buffer.getvalue()


OTHERS: dict[str, bytes] = {
    "x.safetensors: a pickle": pickle.dumps({"weight": 1}),
    "y.safetensors: bytes after the end": header({"a": tensor(0, 4, [1])}, b"\0" * 4 + b"tail"),
    "z.safetensors: a huge header": struct.pack("<Q", 1 << 40) + b"{}",
    "a.safetensors: overlapping": header({n: tensor(0, 4, [1]) for n in "ab"}, b"\0" * 4),
    "b.safetensors: beyond the end": header({"a": tensor(0, 1 << 40, [1 << 38])}),
    "c.safetensors: negative": header({"a": tensor(-4, 0, [1])}, b"\0" * 4),
    "d.safetensors: overflowing shape": header({"a": tensor(0, 4, [1 << 62, 1 << 62])}, b"\0" * 4),
    "e.safetensors: an unknown type": header({"a": tensor(0, 4, [1], "OBJ")}, b"\0" * 4),
    "f.safetensors: NaN in the JSON": header({"a": float("nan")}),
    "g.pth: a path out of the folder": zip_with("../../canary", b"x"),
    "h.pth: a bomb": zip_with("archive/data.pkl", b"\0" * (1 << 26)),
    "i.pth: data.pkl with a name": zip_with("archive/data.pkl", b"cos\nsystem\n(S'true'\ntR."),
}
