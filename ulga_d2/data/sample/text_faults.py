"""Faults in annotation files as text: marks, line ends, headers, commas, ids, damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ..rsna_pneumonia import DETAIL_FILE
from .layout import SampleImage, Written
from .nih_chest_xray import BOX_HEADER
from .outcome import Defect, Fault, Outcome
from .row_faults import COCO, ROWS, YOLO

JSON = COCO | {"via", "v3"}
CSV = frozenset(["nih", "rsna"])


def _edited(
    change: Callable[[bytes], bytes], *, stops: str | None = None, reason: str | None = None
) -> Fault:
    """Return what rewrites an image's annotation file as a whole."""

    def put(written: Written, image: SampleImage, layout: str) -> Outcome:
        path = written.text_of(image)
        path.write_bytes(change(path.read_bytes()))
        return Outcome(reason, stops=stops)

    return put


def _with_line_ends(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n")


def _without_end(data: bytes) -> bytes:
    return data[: len(data) * 4 // 5]


def _with_other_header(data: bytes) -> bytes:
    return b"a,b,c\n" + data.split(b"\n", 1)[1]


def _with_quoted_header(data: bytes) -> bytes:
    quoted = BOX_HEADER.replace("Bbox [x,y,w,h]", '"Bbox [x,y,w,h]"')
    return data.replace(BOX_HEADER.encode(), quoted.encode())


def _with_field(path: Path, name: str, position: int, change: Callable[[str], str]) -> None:
    """Change one cell of the first row of an image."""
    lines = path.read_bytes().decode().split("\n")
    number = next(n for n, line in enumerate(lines) if line.startswith(name))
    cells = lines[number].split(",")
    cells[position] = change(cells[position])
    lines[number] = ",".join(cells)
    path.write_bytes("\n".join(lines).encode())


def _decimal_comma(written: Written, image: SampleImage, layout: str) -> Outcome:
    path = written.text_of(image)
    if layout in YOLO:
        path.write_bytes(path.read_bytes().replace(b".", b",", 1))
    else:
        _with_field(path, image.name, 3, lambda text: f'"{float(text):.1f}"'.replace(".", ","))
    return Outcome(stops="write a decimal point, not a comma")


def _empty_number(written: Written, image: SampleImage, layout: str) -> Outcome:
    _with_field(written.text_of(image), image.name, 3, lambda text: "")
    return Outcome(stops="is empty; write the number")


def _in_json(change: Callable[[dict, dict], None], outcome: Outcome) -> Fault:
    """Return what changes the entry of an image and the first of its annotations."""

    def put(written: Written, image: SampleImage, layout: str) -> Outcome:
        path = written.text_of(image)
        content = json.loads(path.read_bytes())
        entry = next(e for e in content["images"] if e["file_name"] == image.path.name)
        annotation = next(a for a in content["annotations"] if a["image_id"] == entry["id"])
        change(entry, annotation)
        path.write_text(json.dumps(content), encoding="utf-8")
        return outcome

    return put


def _swap(entry: dict, annotation: dict) -> None:
    entry["height"], entry["width"] = entry["width"], entry["height"]


def _repeat_id(entry: dict, annotation: dict) -> None:
    # The ids of the files start at 0 or 1 and have no gaps, so the neighbour's is taken.
    annotation["id"] = annotation["id"] - 1 if annotation["id"] > 1 else annotation["id"] + 1


def _repeated_negative(written: Written, image: SampleImage, layout: str) -> Outcome:
    negative = next(
        other for other in written.images if other.split == "train" and not other.labels
    )
    with open(written.text_of(image), "ab") as file:
        file.write(f"{negative.name},,,,,0\n".encode())
    return Outcome("repeated rows of images without boxes skipped")


def _contradiction(written: Written, image: SampleImage, layout: str) -> Outcome:
    path = written.text_of(image).with_name(DETAIL_FILE)
    rows = path.read_bytes().decode()
    path.write_bytes(rows.replace(f"{image.name},{image.kind}", f"{image.name},Normal").encode())
    return Outcome("detailed classes that contradict the target")


# In the order in which they can follow each other in one file.
TEXT_DEFECTS = {
    "repeated_negative": Defect(_repeated_negative, frozenset(["rsna"])),
    "contradicting_detail": Defect(_contradiction, frozenset(["rsna"])),
    "decimal_comma": Defect(_decimal_comma, YOLO | CSV),
    "empty_number": Defect(_empty_number, CSV),
    "null_iscrowd": Defect(
        _in_json(lambda entry, annotation: annotation.update(iscrowd=None), Outcome()), COCO
    ),
    "swapped_size": Defect(
        _in_json(_swap, Outcome(stops="height and width are swapped")), frozenset(["ours"])
    ),
    "repeated_id": Defect(_in_json(_repeat_id, Outcome(stops="this id stands twice")), COCO),
    "quoted_header": Defect(_edited(_with_quoted_header), frozenset(["nih"])),
    "wrong_header": Defect(_edited(_with_other_header, stops="the first line must be"), CSV),
    "line_ends": Defect(_edited(_with_line_ends), YOLO | CSV),
    "broken_json": Defect(_edited(_without_end, stops="not valid JSON"), JSON),
    "byte_order_mark": Defect(_edited(lambda data: b"\xef\xbb\xbf" + data), ROWS),
}
