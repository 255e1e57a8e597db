"""Broken inputs of every kind among good ones: each is named, none stops or hangs the command."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPOSITORY
from tests.dicom_files import write_dicom
from tests.predict_files import colored, pixels, write_checkpoint, write_png
from ulga_d2.data.dicom import _silently
from ulga_d2.data.image_header import own_pixel_limit
from ulga_d2.inference.files import find_files

SECONDS = 240


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(colored(0, 48, 64)).save(buffer, kind, **options)
    return buffer.getvalue()


def animation(kind: str) -> bytes:
    pages = [Image.fromarray(colored(seed, 40, 40)) for seed in range(3)]
    buffer = io.BytesIO()
    pages[0].save(buffer, kind, save_all=True, append_images=pages[1:])
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG whose header says a size that its pixels do not have."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(bytes(100)), b"IEND"]
    framed = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def damaged(content: bytes, seed: int = 0) -> bytes:
    """Return content whose second half is noise."""
    noise = np.random.default_rng(seed).integers(0, 256, len(content) // 2, np.uint8)
    return content[: len(content) - len(noise)] + noise.tobytes()


def dicom(folder: Path, *, cut: int = 0, frames: int = 1, **elements: object) -> bytes:
    film = np.tile(pixels(1, 48, 64, np.uint16), (1, 1))
    if frames > 1:
        elements["NumberOfFrames"] = frames
    path = write_dicom(folder / "whole.dcm", film, **elements)
    content = path.read_bytes()
    path.unlink()
    return content[: len(content) - cut]


def without_pixels(folder: Path) -> bytes:
    content = dicom(folder)
    return content[: content.index(b"\xe0\x7f\x10\x00")]


def broken_files(folder: Path) -> dict[str, bytes]:
    """Return names and contents of files that are no usable images."""
    png, jpeg, tiff = encoded("PNG"), encoded("JPEG"), encoded("TIFF", compression="tiff_lzw")
    return {
        "cut.png": png[: len(png) // 2],
        "cut_end.png": png[:-4],
        "cut_early.png": png[:20],
        "noise.png": damaged(png),
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut_early.jpg": jpeg[:30],
        "cut.tif": tiff[: len(tiff) // 2],
        "cut_early.tif": tiff[:6],
        "noise.tif": damaged(tiff),
        "cut.bmp": encoded("BMP")[:100],
        "cut.dcm": dicom(folder, cut=500),
        "cut_early.dcm": dicom(folder)[:200],
        "many.dcm": dicom(folder, frames=4),
        "no_pixels.dcm": without_pixels(folder),
        "odd.dcm": dicom(folder, PhotometricInterpretation="PURPLE"),
        "size.dcm": dicom(folder, Rows=60_000, Columns=60_000),
        "zero_rows.dcm": dicom(folder, Rows=0),
        "magic.dcm": bytes(128) + b"DICM",
        "text.png": b"this is a text\n" * 20,
        "empty.png": b"",
        "empty.dcm": b"",
        "empty.jpg": b"",
        "huge.png": png_of_size(100_000, 100_000),
        "lying.png": png_of_size(400, 400),
        "moving.gif": animation("GIF"),
        "moving.webp": animation("WEBP"),
        "moving.png": animation("PNG"),
        "hdf5.png": b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 8,
        "matlab.png": b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(3000),
        "json.jpg": json.dumps({"images": []}).encode(),
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9"/></svg>',
        "pdf.jpg": b"%PDF-1.4\n" + bytes(2000),
        "zip.png": b"PK\x03\x04" + bytes(2000),
        "nothing.avi": b"",
        "text.mp4": b"this is a text\n" * 20,
        "noise.avi": b"RIFF" + bytes(4000),
        "bad\nname.png": png,
        "n" * 246 + ".png": png,
    }


def write_broken(folder: Path) -> set[str]:
    """Write broken inputs of all kinds; return the names by which they must be reported."""
    files = broken_files(folder)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    names = set(files) - {"bad\nname.png"} | {"bad\\nname.png"}
    with open(os.fsencode(folder) + b"/latin\xff.png", "wb") as file:
        file.write(files["bad\nname.png"])
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe_without_suffix")
    with socket.socket(socket.AF_UNIX) as endpoint:
        before = Path.cwd()
        os.chdir(folder)  # a socket's path has a short limit
        endpoint.bind("socket.png")
        os.chdir(before)
    (folder / "broken_link.png").symlink_to("nowhere.png")
    (folder / "self_link.png").symlink_to("self_link.png")
    (folder / "sub").mkdir()
    (folder / "sub" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "inside.jpg").write_bytes(files["empty.jpg"])
    others = {"pipe.png", "socket.png", "broken_link.png", "self_link.png"}
    return names | others | {"latin\\udcff.png", "sub/up", "folder.png/inside.jpg"}


RUN = """
import sys
from ulga_d2.cli.main import main
from ulga_d2.inference import inputs
def count(path, read=inputs.count_frames):
    if path.endswith("vanishes.png"):
        import os
        os.remove(path)
    return read(path)
inputs.count_frames = count
code = main(sys.argv[1:])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_forty_broken_inputs_are_named_and_the_good_ones_predicted(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    broken = write_broken(folder)
    write_png(folder / "vanishes.png")
    broken.add("vanishes.png")
    good = {"a.png", "m.png", "z.png", "sub/b.png", "still.webp", "grey.dcm", "deep.png"}
    for name in sorted(good):
        write_png(folder / name) if name.endswith((".png", ".webp")) else None
    write_dicom(folder / "grey.dcm", pixels(0, 48, 64, np.uint16))
    cv2.imwrite(str(folder / "deep.png"), pixels(5, 60, 45, np.uint16))
    out, model = tmp_path / "out", write_checkpoint(tmp_path)
    words = ["predict", model, folder, "--recursive", "--out", out, "--save", "json", "images"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, words), "--device", "cpu"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 1, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    meta = json.loads((out / "predictions_meta.json").read_text())
    skipped = {item["file_name"]: item["reason"] for item in meta["info"]["skipped"]}
    several = {name.partition("#")[0] for name in skipped}
    assert several == broken
    assert len(broken) >= 40
    for name in broken:
        assert re.search(f"skipped: .*{re.escape(name)}", done.stderr), name
    listed = {image["file_name"] for image in meta["images"]}
    assert listed == good
    assert all((out / "images" / f"{Path(name).with_suffix('.png')}").is_file() for name in good)
    for name, reason in skipped.items():
        assert reason.isprintable() and str(tmp_path) not in reason, name
        assert not re.search(r"0x[0-9a-f]{6}", reason), reason  # an address in memory
    assert "animated GIF, which is not read" in skipped["moving.gif"]
    assert "animated PNG, which is not read" in skipped["moving.png"]
    assert "is no file" in skipped["pipe.png"] and "is no file" in skipped["socket.png"]
    assert "link to a file that does not exist" in skipped["broken_link.png"]
    assert "has no frame that can be decoded" in skipped["nothing.avi"]
    assert "files that are no images: 1 no suffix" in done.stderr  # the other pipe
    memory = int(re.search(r"VmHWM:\s+(\d+) kB", done.stdout)[1]) / 1024
    assert memory < 2000, f"{memory:.0f} MiB"


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    write_png(tmp_path / "a.png")
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        """Stand in for a folder's mode, which root is not bound by."""
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("ulga_d2.inference.files.os.scandir", refuse)
    found = find_files([str(tmp_path)], recursive=True)
    assert [file.name for file in found.files] == ["a.png"]
    assert found.skipped == [("closed", "the folder cannot be read: Permission denied")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_is_closed_is_named(tmp_path):
    write_png(tmp_path / "a.png")
    (tmp_path / "closed").mkdir(mode=0)
    found = find_files([str(tmp_path)], recursive=True)
    assert [name for name, _ in found.skipped] == ["closed"]


def test_a_folder_named_like_an_image_is_not_left_out_in_silence(tmp_path):
    write_png(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    found = find_files([str(tmp_path)], recursive=False)
    assert found.skipped == [("b.png", "a folder; --recursive takes the images in it")]


def state_of_dicom() -> object:
    logger = logging.getLogger("pydicom")
    return logger.propagate, logger.handlers


def state_of_pillow() -> object:
    return Image.MAX_IMAGE_PIXELS, list(warnings.filters)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (lambda: _silently("a.dcm", "damaged"), state_of_dicom),
        (lambda: own_pixel_limit, state_of_pillow),
    ],
)
def test_a_setting_holds_until_the_last_thread_and_no_longer(
    change: Callable[[], object], state: Callable[[], object]
):
    before = state()
    is_in, may_end = threading.Event(), threading.Event()

    def other() -> None:
        with change():
            is_in.set()
            may_end.wait()

    thread = threading.Thread(target=other)
    with change():
        inside = state()
        thread.start()
        is_in.wait()
    assert inside != before and state() == inside
    may_end.set()
    thread.join()
    assert state() == before
