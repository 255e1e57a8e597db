"""Write sample images of the brain tumour data set in its YOLO layout."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import cv2
import yaml

from ..progress import with_progress
from .difficulty import Difficulty
from .lesion import CLASS_NAMES
from .scene import Scene, SceneObject, make_scene

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
COLUMNS = ("split", "image", "class", "x0", "y0", "x1", "y1", "area", "contrast", "cnr")


def write_images(
    out: Path, *, counts: dict[str, int], size: int, difficulty: Difficulty, seed: int
) -> None:
    """Write images, labels, `difficulty.csv` (one row a lesion) and `data.yaml` into `out`.

    Args:
        out: an existing folder.
        counts: number of images per split.
        size: side of an image in pixels.
        difficulty: how lesions and look-alikes appear.
        seed: every image is a function of this, its split and its number.
    """
    rows: list[list[object]] = []
    for number, split in enumerate(SPLITS):
        for kind in ("images", "labels"):
            (out / kind / split).mkdir(parents=True, exist_ok=True)
        for index in with_progress(range(counts[split]), f"writing {split} images", logger):
            scene = make_scene(
                seed=seed, split_number=number, index=index, size=size, difficulty=difficulty
            )
            name = f"{split}_{index:05d}"
            _write_scene(out, split, name, scene)
            rows += [[split, name, *_measures(item)] for item in scene.objects]
    with open(out / "difficulty.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    content = {
        "path": ".",
        "train": "images/train",
        "val": "images/val",
        "names": dict(enumerate(CLASS_NAMES)),
    }
    (out / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _write_scene(out: Path, split: str, name: str, scene: Scene) -> None:
    # cv2.imwrite would swallow a full disk.
    png = cv2.imencode(".png", scene.image)[1].tobytes()
    (out / "images" / split / f"{name}.png").write_bytes(png)
    lines = [_label(item, scene.image.shape[0]) for item in scene.objects]
    (out / "labels" / split / f"{name}.txt").write_text("".join(lines), encoding="utf-8")


def _label(item: SceneObject, size: int) -> str:
    x0, y0, x1, y1 = item.box
    numbers = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
    fields = " ".join(f"{number / size:.6f}" for number in numbers)
    return f"{CLASS_NAMES.index(item.class_name)} {fields}\n"


def _measures(item: SceneObject) -> list[object]:
    return [item.class_name, *item.box, item.area, f"{item.contrast:.1f}", f"{item.cnr:.2f}"]
