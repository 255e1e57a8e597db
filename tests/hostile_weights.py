"""Files of weights that are small and would take all memory, or all time.

Run as a program, it gives each file it is told of to all readers of weights, and prints a line of
JSON for each: what happened, how long it took, and the most memory that the process has had.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import time
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

MEGABYTE = 2**20
FIRST = "patch_embed.proj.weight"  # a file with this name goes through all steps


class View:
    """Pickles to a tensor on a storage, of any offset, size and stride."""

    def __init__(self, storage: object, offset: int, size: tuple, stride: tuple) -> None:
        self.parts = (storage, offset, size, stride, False, OrderedDict())

    def __reduce__(self) -> tuple:
        import torch

        return (torch._utils._rebuild_tensor_v2, self.parts)


def saved(value: object, *, legacy: bool = False) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def views(count: int, size: tuple, stride: tuple, numbers: int, **options: bool) -> bytes:
    """Return a file of tensors that lie in one storage."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = torch.zeros(numbers).storage()
        made = {f"w{i}": View(storage, i % 2, size, stride) for i in range(count)}
        return saved({"model": made}, **options)


def zipped(pickled: bytes, *, compression: int = zipfile.ZIP_STORED, **more: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in more.items():
            archive.writestr(f"archive/data/{name.removeprefix('_')}", content)
    return buffer.getvalue()


def doubling(levels: int, *, as_key: bool = False, kind: bytes = b"t") -> bytes:
    """Return a pickle of containers that each hold the one before twice."""
    parts = [b"\x80\x02" + b"(K\x01" + kind + b"q\x00"]
    parts += [b"(h%ch%c%sq%c" % (i, i, kind, i + 1) for i in range(levels)]
    body = b"".join(parts)
    return body + b"}h%cK\x01s." % levels if as_key else body + b"."


def thousands(levels: int) -> bytes:
    """Return a pickle of lists that each hold the one before a thousand times."""
    parts = [b"(h%c" % i + b"h%c" % i * 999 + b"lq%c" % (i + 1) for i in range(levels)]
    return b"\x80\x02]q\x00" + b"".join(parts) + b"."


def many_members(count: int) -> bytes:
    """Return a zip file with a directory of many entries, all of which are one member."""
    first = zipped(pickle.dumps({}))
    at = first.rfind(b"PK\x01\x02")
    end = first.rfind(b"PK\x05\x06")
    entry = bytearray(first[at:end])
    body = first[:at] + bytes(entry) * count
    record = bytearray(first[end:])
    struct.pack_into("<HHLL", record, 8, 0xFFFF, 0xFFFF, len(entry) * count, at)
    return body + bytes(record)


def lying_zip() -> bytes:
    """Return a zip file whose directory states other sizes than the members have."""
    data = bytearray(zipped(pickle.dumps({}), _0=b"\0" * 64))
    at = data.rfind(b"PK\x01\x02")
    struct.pack_into("<LL", data, at + 20, 0xFFFFFF00, 0xFFFFFF00)
    return bytes(data)


def same_names() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/data/0", b"a" * 8)
        archive.writestr("archive/data/0", b"b" * 8)
    return buffer.getvalue()


def header(text: str | bytes, data: bytes = b"") -> bytes:
    text = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(text)) + text + data


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def holds_itself() -> dict:
    value: dict = {"format": "ulga_d2 checkpoint 1"}
    value["model"] = value
    return value


def numbers_that_collide() -> bytes:
    keys = b"".join(
        b"\x8a\x0a" + ((2**61 - 1) * i).to_bytes(10, "little") + b"K\x00" for i in range(1, 30_000)
    )
    return b"\x80\x02}(" + keys + b"u."


def many_backbones() -> bytes:
    import torch

    one = torch.zeros(1)
    return saved({f"p{i}.{FIRST}": one for i in range(20_000)})


FOUR = b"\0" * 4
ENTRY = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'

# Each as (suffix, the bytes, what the messages say, in the words of all readers).
FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "an index of 2**31": (".pkl", lambda: b"\x80\x02]r\xff\xff\xff\x7f.", "pickle|no dict"),
    "an index in a line": (".pkl", lambda: b"\x80\x02]p2147483647\n.", "pickle|no dict"),
    "an index in torch's zip": (
        ".pth", lambda: zipped(b"\x80\x02]r\xff\xff\xff\x7f."), "no public|by name|layout"),
    "a frame of exabytes": (".pkl", lambda: b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f.", "damaged"),
    "bytes of 8 GB": (
        ".pkl", lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**33) + b".", "damaged"),
    "a text of 8 GB": (
        ".pkl", lambda: b"\x80\x04\x8d" + struct.pack("<Q", 2**33) + b".", "damaged"),
    "a bytearray of 8 GB": (
        ".pkl", lambda: b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b".", "damaged"),
    "a number of 2 GB": (".pkl", lambda: b"\x80\x02\x8b\xff\xff\xff\x7f.", "damaged"),
    "a number of many digits": (".pkl", lambda: b"L" + b"9" * 100_000 + b"L\n.", "damaged"),
    "a text encoded again and again": (
        ".pkl",
        lambda: b"\x80\x02c_codecs\nencode\nq\x00X" + struct.pack("<L", MEGABYTE)
        + b"a" * MEGABYTE + b"q\x01X\x06\x00\x00\x00latin1q\x020]"
        + b"(h\x00h\x01h\x02\x86Re" * 20_000 + b".",
        "damaged"),
    "a set made again and again": (
        ".pkl",
        lambda: b"\x80\x02c__builtin__\nset\nq\x00](" + b"".join(
            b"J" + struct.pack("<i", i) for i in range(100_000)) + b"eq\x01\x85q\x02]"
        + b"(h\x00h\x02Re" * 20_000 + b".",
        "damaged"),
    "sets without end": (".pkl", lambda: b"\x80\x04](" + b"\x8f" * 2_000_000 + b"e.", "operations"),
    "keys that double": (".pkl", lambda: doubling(100, as_key=True), "damaged"),
    "keys that double, in torch's zip": (
        ".pth", lambda: zipped(doubling(100, as_key=True)), "damaged"),
    "keys that collide": (".pkl", numbers_that_collide, "damaged"),
    "lists that double": (".pth", lambda: zipped(doubling(60, kind=b"l")), "each other|by name"),
    "lists of a thousand lists": (".pth", lambda: zipped(thousands(8)), "each other|by name"),
    "tuples that double": (".pth", lambda: zipped(doubling(60)), "each other|by name"),
    "lists within lists": (".pth", lambda: saved(nested(400)), "levels deep|by name"),
    "a dict in itself": (".pth", lambda: saved(holds_itself()), "hold themselves|is a checkpoint"),
    "a stride of zero": (".pth", lambda: views(1, (46_000, 46_000), (0, 0), 2), "storage|repeats"),
    "a stride of zero, of old torch": (
        ".pth", lambda: views(1, (46_000, 46_000), (0, 0), 2, legacy=True), "storage|repeats"),
    "rows that repeat": (".pth", lambda: views(1, (2, 1000), (0, 1), 4000), "repeats"),
    "1,501 tensors on one storage": (
        ".pth", lambda: views(1501, (2_000_000,), (1,), 2_000_001), "times as large"),
    "1,501 tensors on one storage of old torch": (
        ".pth", lambda: views(1501, (2_000_000,), (1,), 2_000_001, legacy=True), "times as large"),
    "a deflated zip": (
        ".pth",
        lambda: zipped(
            b"\x80\x02}.", compression=zipfile.ZIP_DEFLATED, _0=b"\0" * (200 * MEGABYTE)),
        "compressed"),
    "a directory of 400,000 members": (".pth", lambda: many_members(400_000), "directory"),
    "a directory of 10,000 members": (
        ".pth", lambda: many_members(10_000), "torch did not|damaged"),
    "a directory that lies": (".pth", lying_zip, "overlap|compressed|damaged"),
    "two members of a name": (".pth", same_names, "same name"),
    "20,000 backbones": (".pth", many_backbones, "20,000 backbones"),
    "a name of 1 MB": (".pth", lambda: saved({"a" * MEGABYTE: zeros()}), "no weight is|layout"),
    "a name with a control character": (
        ".pth", lambda: saved({"a\x1b[2J": zeros()}), "no weight is|layout"),
    "a header beyond the file": (".safetensors", lambda: struct.pack("<Q", 2**40) + b"{}", "cut"),
    "a header of 30 MB": (
        ".safetensors", lambda: header('{"__metadata__": {"a": "' + "[" * (30 * MEGABYTE) + '"}}'),
        "at most"),
    "a deep header": (".safetensors", lambda: header("[" * 200_000), "header"),
    "a header of lists": (
        ".safetensors", lambda: header("[" + "[]," * 2_000_000 + "[]]"), "damaged"),
    "a header with a tensor twice": (
        ".safetensors", lambda: header("{" + ENTRY + ", " + ENTRY + "}", FOUR),
        "'a' stands twice"),
    "metadata twice": (
        ".safetensors",
        lambda: header('{"__metadata__": {}, "__metadata__": {}, ' + ENTRY + "}", FOUR),
        "twice"),
    "an unknown type": (
        ".safetensors", lambda: header("{" + ENTRY.replace("F32", "F3") + "}", FOUR), "damaged"),
    "overlapping tensors": (
        ".safetensors",
        lambda: header("{" + ENTRY + ", " + ENTRY.replace('"a"', '"b"') + "}", FOUR), "damaged"),
    "about without end": (
        ".safetensors", lambda: about("[" * 100_000), "damaged|does not say"),
    "one float8": (
        ".safetensors",
        lambda: header('{"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}', FOUR),
        "layout|float8"),
}  # fmt: skip


def zeros() -> object:
    import torch

    return torch.zeros(2)


def about(text: str) -> bytes:
    """Return shared weights whose description is a text, with the right sha256."""
    from safetensors.torch import save

    from ulga_d2.weights.share import ABOUT, KEY, MARK, VERSION, _sha256

    metadata = {MARK: VERSION, ABOUT: text, KEY: _sha256({"a": zeros()}, text)}
    return save({"a": zeros()}, metadata)


def main(folder: str) -> None:
    """Read every file in a folder by every reader of weights."""
    from ulga_d2.engine.initial import read_initial
    from ulga_d2.errors import UserError
    from ulga_d2.weights.checkpoint import load_checkpoint
    from ulga_d2.weights.convert import convert
    from ulga_d2.weights.load import read_plain

    target = Path(folder).parent / "out.safetensors"
    readers = {
        "plain": read_plain,
        "checkpoint": load_checkpoint,
        "initial": read_initial,
        "convert": lambda path: convert(path, target),
    }
    for path in sorted(Path(folder).iterdir()):
        for name, read in readers.items():
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            start = time.perf_counter()
            try:
                read(path)
                outcome = "read"
            except UserError as error:
                outcome = f"refused: {str(error)[-600:]}"
            except BaseException as error:
                outcome = f"{type(error).__name__}: {str(error)[:300]}"
            status = Path("/proc/self/status").read_text()
            peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
            seconds = time.perf_counter() - start
            line = {"file": path.stem, "reader": name, "outcome": outcome, "s": seconds, "MB": peak}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
