"""A small COCO dataset with ids of its own: categories 3, 7 and 12, areas of masks, many shapes."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
from data_files import write_image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

CATEGORIES = {3: "ring", 7: "star", 12: "solid"}
WIDTH, HEIGHT = 320, 240


def coco_dataset(seed: int = 0, *, images: int = 6, objects: int = 6) -> dict:
    """Return a COCO file's content: objects of all sizes whose `area` is not their box's."""
    rng = np.random.default_rng(seed)
    content: dict = {"images": [], "annotations": []}
    content["categories"] = [{"id": key, "name": name} for key, name in CATEGORIES.items()]
    for number in range(images):
        entry = {"id": 1000 - 7 * number, "file_name": f"sub{number % 2}/{number}.png"}
        content["images"].append({**entry, "width": WIDTH, "height": HEIGHT})
        for _ in range(objects):
            w, h = (int(side) for side in rng.integers(8, 140, 2))
            x, y = int(rng.integers(0, WIDTH - w)), int(rng.integers(0, HEIGHT - h))
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": entry["id"],
                    "category_id": int(rng.choice(list(CATEGORIES))),
                    "bbox": [x, y, w, h],
                    "area": float(rng.uniform(0.3, 1.0) * w * h),
                    "iscrowd": 0,
                }
            )
    return content


def write_dataset(folder: Path, splits: dict[str, dict]) -> Path:
    """Write the images and a COCO file a split; return the YAML that describes them."""
    lines = ["name: own", "format: coco", "root: .", "splits:"]
    for split, content in splits.items():
        for image in content["images"]:
            write_image(folder / split / image["file_name"], WIDTH, HEIGHT)
        (folder / f"{split}.json").write_text(json.dumps(content))
        lines.append(f"  {split}: {{images: {split}, annotations: {split}.json}}")
    (folder / "own.yaml").write_text("\n".join(lines) + "\n")
    return folder / "own.yaml"


def near_misses(content: dict, seed: int = 0, wrong: float = 0.15) -> list[dict]:
    """Return a result list in the file's own ids: shifted, some doubled, some wrong in class."""
    rng = np.random.default_rng(seed)
    found = []
    for item in content["annotations"]:
        for _ in range(int(rng.integers(1, 3))):
            x, y, w, h = item["bbox"]
            shift = [float(v) for v in rng.normal(0, 0.06, 2) * (w, h)]
            category = item["category_id"]
            if rng.random() < wrong:
                category = int(rng.choice(list(CATEGORIES)))
            found.append(
                {
                    "image_id": item["image_id"],
                    "category_id": category,
                    "bbox": [x + shift[0], y + shift[1], float(w), float(h)],
                    "score": float(rng.random()),
                }
            )
    return found


def plain_pycocotools(truth: Path, results: Path, limit: int = 100) -> dict[str, float]:
    """Score a result file against a COCO file with nothing but pycocotools, in percent."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        evaluation = COCOeval(coco, coco.loadRes(str(results)), "bbox")
        limits = sorted({min(1, limit), min(10, limit), limit})
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]

    def mean(values: np.ndarray) -> float:
        return 100 * float(np.mean(values[values > -1])) if (values > -1).any() else -100.0

    names = {"bbox/AP": precision[..., 0, -1], "bbox/AP50": precision[0, ..., 0, -1]}
    names |= {f"bbox/AP{size}": precision[..., area, -1] for area, size in enumerate("sml", 1)}
    names |= {f"bbox/AR{size}": recall[..., area, -1] for area, size in enumerate("sml", 1)}
    names |= {f"bbox/AR{one}": recall[..., 0, place] for place, one in enumerate(limits)}
    return {name: mean(values) for name, values in names.items()}
