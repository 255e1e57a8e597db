"""Whatever an annotation file has suffered, it loads cleanly or ends in a clear error.

Sound files are damaged at random, by bytes and by words that are known to trouble readers. A reader
may then return records or raise UserError; anything else, or five seconds, or a gigabyte, is a bug.
"""

from __future__ import annotations

import json
import math
import re
import resource
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from annotation_files import (
    POLYGON,
    RECT,
    via_file,
    via_region,
    voc_file,
    voc_object,
    write_voc_set,
)
from data_files import GOOD, HEIGHT, NAMES, WIDTH, coco_content, write_coco, write_image, write_yolo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ulga_d2.data.custom import load_custom
from ulga_d2.data.formats.coco import read_coco
from ulga_d2.data.formats.csv_boxes import read_csv
from ulga_d2.data.formats.via import read_via
from ulga_d2.data.formats.voc import read_voc
from ulga_d2.data.formats.yolo import read_yolo
from ulga_d2.data.record import LoadedSplit
from ulga_d2.errors import UserError

SECONDS = 5
KILOBYTES = 1_000_000
LONGEST_MESSAGE = 10_000

# Numbers, words, marks and brackets, as bytes.
WORDS = re.compile(rb"[\w.+-]+|\s+|.", re.DOTALL)
NASTY = [
    b"1e400", b"-1e400", b"NaN", b"-Infinity", b"inf", b"1e308", b"5e-324", b"-0", b"-7", b"0",
    b"1_0", b"0x10", b"1,5", b"2.5", b"9" * 400, b"9" * 5000, b"1" + b"0" * 30, b"null", b"true",
    b"[]", b"{}", b'""', b'"x"', b"[" * 100_000, b'{"a":' * 20_000, b"\0", b"\xff\xfe", b"\xc3",
    b"\xef\xbb\xbf", b"\r", b"\n", b'"', b"'", b",", b";", b"\t", b"\\ud800", b"\\u0000",
    b"../" * 3, b"/dev/zero", b"a" * 300, b"a.png", b"b.png", b"name", b"ring", b"dot",
    b"polyline", b"&a;", b"<!DOCTYPE a [<!ENTITY a 'a'>]>", b"<object>" * 5000, b"]]>", b"<!--",
    b"*a", b"&a ", b"!!python/name:os.system", b"{<<: 1}", b"2026-99-99", b": ", b"- ",
]  # fmt: skip

# A damaged value is the likeliest: it passes the parsers and meets the readers themselves.
KINDS = ["value"] * 8 + ["word", "insert", "delete", "repeat", "byte", "cut"]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(0, 10_000),
        st.integers(1, 40),
        st.sampled_from(NASTY),
    ),
    min_size=1,
    max_size=5,
)


def damaged(data: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    for kind, place, length, word in edits:
        words = WORDS.findall(data)
        if not words:
            return word
        at = place % len(words)
        if kind == "value":
            values = [n for n, old in enumerate(words) if old[:1].isalnum()] or [at]
            words[values[place % len(values)]] = word
        elif kind == "word":
            words[at] = word
        elif kind == "insert":
            words.insert(at, word)
        elif kind == "delete":
            del words[at : at + length]
        elif kind == "repeat":
            words[at:at] = words[at : at + length] * (1 + place % 3)
        elif kind == "byte":
            words[at] = bytes([(words[at][0] + length) % 256]) + words[at][1:]
        else:
            del words[at:]
        data = b"".join(words)
    return data


def coco(root: Path) -> tuple[Path, Callable[[], LoadedSplit]]:
    content = coco_content()
    counts = [100, 50, WIDTH * HEIGHT - 150]
    for number, segmentation in enumerate(
        [[[4, 2, 12, 2, 12, 12]], {"size": [HEIGHT, WIDTH], "counts": counts}], start=2
    ):
        entry = {"bbox": [1.5, 2.0, 8.25, number], "segmentation": segmentation}
        content["annotations"].append({"id": number, "image_id": 9, "category_id": 1, **entry})
    write_coco(root, content)
    path = root / "train" / "_annotations.coco.json"
    return path, lambda: read_coco(path, root / "train")


def yolo(root: Path) -> tuple[Path, Callable[[], LoadedSplit]]:
    write_yolo(root, {"a": f"{GOOD}\n1 0.25 0.5 0.125 0.75\n1 0.9 .9 0.5 5e-1\n", "b": ""})
    path = root / "labels" / "train" / "a.txt"
    return path, lambda: read_yolo(root / "images" / "train", path.parent, root / "data.yaml")


def yolo_names(root: Path) -> tuple[Path, Callable[[], LoadedSplit]]:
    _, load = yolo(root)
    (root / "data.yaml").write_text(f"nc: 2\npath: .\ntrain: images/train\n{NAMES}")
    return root / "data.yaml", load


def voc(root: Path) -> tuple[Path, Callable[[], LoadedSplit]]:
    write_voc_set(root, a=voc_file(voc_object(), voc_object("dot", (1, 2.5, 40, 20))), b=voc_file())
    path = root / "Annotations" / "a.xml"
    return path, lambda: read_voc(path.parent, root / "JPEGImages")


def csv(root: Path) -> tuple[Path, Callable[[], LoadedSplit]]:
    write_image(root / "a.png")
    write_image(root / "b.png")
    path = root / "boxes.csv"
    path.write_text(
        "filename,width,height,class,xmin,ymin,xmax,ymax\r\na.png,40,20,ring,4,2,12,12\r\n"
        'a.png,40,20,"dot",1.5,2,"40",20\r\nb.png,40,20,,,,,\r\n'
    )
    return path, lambda: read_csv(path, root)


def via(root: Path) -> tuple[Path, Callable[[], LoadedSplit]]:
    ellipse = {"name": "ellipse", "cx": 20, "cy": 10, "rx": 9, "ry": 4, "theta": 0.5}
    regions = [via_region(shape, kind="ring") for shape in (RECT, POLYGON, ellipse)]
    for name in ("a.png", "b.png"):
        write_image(root / name)
    path = root / "via.json"
    path.write_text(json.dumps(via_file(*regions) | via_file(name="b.png")))
    return path, lambda: read_via(path, root)


def custom(root: Path) -> tuple[Path, Callable[[], LoadedSplit]]:
    csv(root)
    path = root / "own.yaml"
    path.write_text(
        "name: own\nformat: csv\nroot: .\npatient: '^(.)'\nclass_names: [ring, dot]\n"
        "columns: {image: filename}\nsplits:\n  train: {images: ., annotations: boxes.csv}\n"
    )
    return path, lambda: load_custom(path, "train")


def check(loaded: LoadedSplit) -> None:
    for record in loaded.records:
        for item in record["annotations"]:
            x0, y0, x1, y1 = item["bbox"]
            assert all(map(math.isfinite, item["bbox"]))
            assert 0 <= x0 < x1 <= record["width"] and 0 <= y0 < y1 <= record["height"]
            assert 0 <= item["category_id"] < len(loaded.class_names)
            assert "segmentation" not in item or item["segmentation"]["size"] == [HEIGHT, WIDTH]


# Few of the YAML files, whose reader is slow on brackets without end.
QUICK = [
    (coco, 100),
    (yolo, 100),
    (voc, 100),
    (csv, 100),
    (via, 100),
    (yolo_names, 20),
    (custom, 20),
]
SLOW = [pytest.param(make, 1000, marks=pytest.mark.slow) for make, _ in QUICK]


@pytest.mark.parametrize(("make", "examples"), [*QUICK, *SLOW])
def test_a_damaged_file_loads_or_ends_in_a_clear_error(tmp_path, make, examples):
    path, load = make(tmp_path)
    sound = path.read_bytes()
    check(load())

    @settings(
        max_examples=examples,
        deadline=timedelta(seconds=SECONDS),
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(EDITS)
    def damage_and_load(edits: list[tuple[str, int, int, bytes]]) -> None:
        path.write_bytes(damaged(sound, edits))
        try:
            check(load())
        except UserError as error:
            assert str(tmp_path) in str(error) and len(str(error)) < LONGEST_MESSAGE

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    damage_and_load()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES
