"""Tiny COD10K data sets on disk, and the scene that every image of them shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ulga_d2.data.cod10k import SHARES
from ulga_d2.data.release import SAMPLE_FILE
from ulga_d2.data.split import split_of

SIZE = (60, 90)
RED, BLUE = (200, 30, 30), (40, 60, 220)
FISH = "COD10K-CAM-1-Aquatic-1-BatFish-{}"
OTHERS = (
    "COD10K-NonCAM-1-Amphibian-3",
    "COD10K-NonCAM-3-Flying-1515",
    "COD10K-NonCAM-5-Background-5-Vegetation-4854",
)


def stems_of(split: str, number: int, pattern: str = FISH) -> list[str]:
    names = (pattern.format(n) for n in range(1, 500))
    return [n for n in names if split_of(n, SHARES) == split][:number]


def scene() -> np.ndarray:
    """Return two objects' colours; a third part of the first lies apart, the second is cut."""
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[10:30, 20:50] = RED
    pixels[25:40, 40:70] = BLUE
    pixels[50:55, 5:12] = RED
    return pixels


SCENE_BOXES = [[5, 10, 50, 55], [40, 25, 70, 40]]


def save(path: Path, image: Image.Image | np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    image.save(path, **options)


def write(root: Path, stems: list[str], part: str = "Train", nested: bool = False) -> Path:
    """Write the second release with the scene for each image."""
    for stem in stems:
        for kind, suffix in (("Image", "jpg"), ("GT_Instance", "png"), ("GT_Object", "png")):
            folder = root / part / (f"{kind}s/{kind}" if nested else kind)
            pixels = scene()
            if kind == "GT_Object":
                pixels = 255 * pixels.any(axis=2).astype(np.uint8)
            if "NonCAM" in stem:
                pixels[:] = 0
            save(folder / f"{stem}.{suffix}", pixels)
    (root / SAMPLE_FILE).write_text("{}")
    return root


def write_json(root: Path, stems: list[str], **changes: object) -> None:
    annotation = {"id": 1, "category_id": 1, "bbox": [5, 6, 20, 10], "iscrowd": 0}
    annotation |= {"segmentation": [[5, 6, 25, 6, 25, 16, 5, 16]]} | changes
    images = [
        {"id": n, "file_name": f"{stem}.jpg", "height": SIZE[0], "width": SIZE[1]}
        for n, stem in enumerate(stems, start=1)
    ]
    annotations = [{**annotation, "id": n + 100, "image_id": n} for n in range(1, len(stems) + 1)]
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "foreground"}]
    (root / "Train" / "CAM_Instance_Train.json").write_text(json.dumps(content))
