"""Result files with values that are no detections: refused with the file and the record."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ulga_d2.cli.main import main
from ulga_d2.data.builtin import load_split

NAME = "brain_tumor_val"
HUGE = 10**400


def evaluate_file(path: Path) -> int:
    return main(["evaluate", str(path), "--dataset", NAME, "--bootstrap", "0"])


def detection(**changes: Any) -> dict[str, Any]:
    first = load_split(NAME).records[0]["image_id"]
    good = {"image_id": first, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5}
    return {**good, **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "is not finite"),
        ({"score": float("-inf")}, "is not finite"),
        ({"score": "0.5"}, "must be numbers"),
        ({"score": True}, "must be numbers"),
        ({"score": None}, "must be numbers"),
        ({"score": [0.5]}, "must be numbers"),
        ({"score": HUGE}, "is above 2,147,483,648"),
        ({"score": 1e300}, "is above 2,147,483,648"),
        ({"bbox": [1, 1, float("inf"), 5]}, "is not finite"),
        ({"bbox": [1, 1, HUGE, 5]}, "is above 2,147,483,648"),
        ({"bbox": [1, 1, True, 5]}, "must be numbers"),
        ({"bbox": [1, 1, "5", 5]}, "must be numbers"),
        ({"bbox": "1155"}, "must be numbers"),
        ({"bbox": None}, "must be numbers"),
        ({"bbox": 5}, "must be numbers"),
        ({"bbox": {"x": 1}}, "must be numbers"),
        ({"bbox": []}, "is not .x, y, width, height."),
        ({"bbox": [1, 2, 3]}, "is not .x, y, width, height."),
        ({"bbox": [[1], [2], [3], [4]]}, "must be numbers"),
        ({"image_id": None}, "an image_id is a whole number or a text"),
        ({"image_id": [1]}, "an image_id is a whole number or a text"),
        ({"image_id": True}, "an image_id is a whole number or a text"),
        ({"image_id": 1.5}, "an image_id is a whole number or a text"),
        ({"image_id": HUGE}, "no such image"),
        ({"category_id": True}, "category_id True is none of"),
        ({"category_id": HUGE}, "which are neither the dataset's"),
        ({"category_id": [1]}, "category_id .1. is none of"),
        ({"category_id": 1.0}, "category_id 1.0 is none of"),
        ({"segmentation": 5}, "its mask: "),
        ({"segmentation": [[1, 1, 5, 1, 5, 5]]}, "its mask: "),
        ({"segmentation": {"size": [9, 9], "counts": "ab"}}, "its mask: "),
        ({"segmentation": {"size": [64, 64], "counts": "PPPP"}}, "its mask: "),
        ({"segmentation": {"size": [64, 64], "counts": "\u00e9\0"}}, "its mask: "),
    ],
)
def test_an_odd_value_is_refused_with_the_file_and_the_record(
    sample_data, tmp_path, capsys, change, message
):
    path = tmp_path / "found.json"
    path.write_text(json.dumps([detection(), detection(**change)]))
    assert evaluate_file(path) == 2
    told = capsys.readouterr().err
    assert str(path) in told and "Traceback" not in told
    assert "number 2" in told or "neither the dataset's" in told
    assert re.search(message, told), told


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'[{"a":' * 50_000,
        b"\xff\xfe",
        b"\x1f\x8b broken",
        gzip.compress(b"[]")[:-5],
        gzip.compress(b"[" + b" " * 2**26 + b"]"),
        b"[1" + b"0" * 5000 + b"]",
        b"{}",
        b"[5]",
        b"",
    ],
    ids=["lists", "dicts", "bytes", "no gzip", "cut", "bomb", "digits", "dict", "number", "empty"],
)
def test_a_file_that_is_no_result_list_is_named(sample_data, tmp_path, capsys, content):
    path = tmp_path / "found.json"
    path.write_bytes(content)
    assert evaluate_file(path) == 2
    told = capsys.readouterr().err
    assert str(path) in told and "Traceback" not in told
