"""Tiny data sets on disk, in each layout that the readers know."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 40, 20
NAMES = "names: [solid, ring]\n"
IMAGES_FIRST = ("images/{}", "labels/{}")
SPLIT_FIRST = ("{}/images", "{}/labels")
GOOD = "0 0.5 0.5 0.2 0.2"  # a sound label line


def write_image(path: Path, width: int = WIDTH, height: int = HEIGHT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (width, height), 90).save(path)


def write_yolo(
    root: Path,
    labels: dict[str, str | bytes | None],
    *,
    split: str = "train",
    tree: tuple[str, str] = IMAGES_FIRST,
    names: str | None = NAMES,
) -> Path:
    """Write one 40 x 20 image a label file; None leaves the label file out."""
    images, texts = (root / part.format(split) for part in tree)
    texts.mkdir(parents=True, exist_ok=True)
    for stem, text in labels.items():
        write_image(images / f"{stem}.png")
        if text is not None:
            data = text if isinstance(text, bytes) else text.encode()
            label = texts / f"{stem}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_bytes(data)
    if names is not None:
        (root / "data.yaml").write_text(names)
    return root


def coco_content() -> dict:
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT},
            {"id": 9, "file_name": "b.jpg", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 2, "bbox": [4, 2, 8, 10], "iscrowd": None}
        ],
        "categories": [
            {"id": 0, "name": "brain-tumor", "supercategory": "none"},
            {"id": 2, "name": "label1", "supercategory": "brain-tumor"},
            {"id": 1, "name": "label0", "supercategory": "brain-tumor"},
        ],
    }


def write_coco(root: Path, content: dict | str, split: str = "train") -> Path:
    for name in ("a.jpg", "b.jpg"):
        write_image(root / split / name)
    text = content if isinstance(content, str) else json.dumps(content)
    (root / split / "_annotations.coco.json").write_text(text)
    return root


def boxes_of(record: dict) -> list[list[float]]:
    return [[round(value, 4) for value in item["bbox"]] for item in record["annotations"]]
