"""Write the YOLO layout's label files and class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import yaml

# Steps of a thousandth of a pixel in an image of 10,000.
DECIMALS = 7


def write_yolo(label_dir: Path, records: Sequence[dict], names: Mapping[str, str]) -> None:
    """Write one label file an image, empty where it has no box: `class cx cy w h`, normalised.

    Args:
        label_dir: the folder of the split's label files.
        records: the split's records.
        names: per `file_name` of a record, the image's path within the split's image folder.
    """
    for record in records:
        name = PurePosixPath(names[record["file_name"]])
        write_yolo_label(label_dir / name.with_suffix(".txt"), record)


def write_yolo_label(label_file: Path, record: dict) -> None:
    """Write the label file of one image; see `write_yolo`."""
    label_file.parent.mkdir(parents=True, exist_ok=True)
    lines = (_line(item, record["width"], record["height"]) for item in record["annotations"])
    label_file.write_text("".join(lines), encoding="utf-8")


def write_yolo_classes(
    class_file: Path, class_names: Sequence[str], image_dirs: Mapping[str, str]
) -> None:
    """Write `data.yaml`: the class names by number, and where each split's images are."""
    content = {**image_dirs, "names": dict(enumerate(class_names))}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    class_file.write_text(text, encoding="utf-8")


def _line(item: dict, width: int, height: int) -> str:
    x0, y0, x1, y1 = item["bbox"]
    shares = (
        (x0 + x1) / 2 / width,
        (y0 + y1) / 2 / height,
        (x1 - x0) / width,
        (y1 - y0) / height,
    )
    return f"{item['category_id']} {' '.join(f'{share:.{DECIMALS}f}' for share in shares)}\n"
