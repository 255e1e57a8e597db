"""A short run of a config on made-up images, in a process of its own: what it takes.

`measure` starts the process; `python -m ulga_d2.engine.trial FOLDER` is what it starts.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

STEPS = 4  # of which the first warms up
IMAGES = 8  # on disk, read over and over
DATA = "trial"


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        peak: bytes at the highest: a CPU process's whole resident set, or what torch had in use on
            a GPU.
        step_seconds: median of an optimizer step.
    """

    peak: int
    step_seconds: float


def measure(cfg: CfgNode, options: dict[str, Any], *, boxes: int, classes: int) -> Cost:
    """Train and evaluate a few steps in a fresh process.

    Args:
        cfg: a config whose device is resolved.
        options: settings that differ from it.
        boxes: objects in an image.
        classes: of the head.

    Raises:
        UserError: the run failed; with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.yaml").write_text(cfg.dump(), encoding="utf-8")
        words = [str(word) for pair in options.items() for word in pair]
        task = {"options": words, "boxes": boxes, "classes": classes}
        Path(folder, "task.json").write_text(json.dumps(task), encoding="utf-8")
        command = [sys.executable, "-m", "ulga_d2.engine.trial", folder]
        done = subprocess.run(command, capture_output=True, text=True)
        result = Path(folder, "cost.json")
        if done.returncode or not result.is_file():
            raise UserError(
                f"a trial with {' '.join(words) or 'the config as it is'} failed (exit code "
                f"{done.returncode}; -9 is what a machine without memory gives): "
                f"{done.stderr.strip()[-500:]}"
            )
        return Cost(**json.loads(result.read_text(encoding="utf-8")))


def main() -> None:
    """Run what the folder's `task.json` asks for; leave `cost.json` there."""
    folder = Path(sys.argv[1])
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    cost = _run(folder, task["options"], task["boxes"], task["classes"])
    (folder / "cost.json").write_text(json.dumps(cost), encoding="utf-8")


def _run(folder: Path, options: list[str], boxes: int, classes: int) -> dict[str, float]:
    from .. import get_cfg
    from ..config import default_category_ids, merge_config, resolve_classes
    from .datasets import RunData, resolve_intensity
    from .memory import peak_memory
    from .trainer import Trainer

    cfg = get_cfg()
    merge_config(cfg, str(folder / "config.yaml"), options)
    cfg.OUTPUT_DIR = str(folder / "run")
    (folder / "run").mkdir()
    cfg.MODEL.WEIGHTS = ""
    cfg.SOLVER.NUM_EPOCHS = 0
    cfg.SOLVER.MAX_ITER = cfg.SOLVER.CHECKPOINT_PERIOD = STEPS
    cfg.SOLVER.STEPS = ()
    cfg.TEST.EVAL_PERIOD = cfg.TEST.PATIENCE = 0
    cfg.INPUT.TILE.SIDE = 0  # a made-up image has the network's size, as a resized tile has
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (DATA,)
    names = tuple(f"class {number}" for number in range(classes))
    records = _records(cfg, folder, boxes)
    count = cfg.SOLVER.IMS_PER_BATCH
    # The evaluation reads as many images at once as a step does, and no more are needed.
    test = [{**records[i % IMAGES], "image_id": i} for i in range(count)]
    resolve_classes(cfg, names)
    resolve_intensity(cfg, records)
    trainer = Trainer(cfg, RunData(records, {DATA: test}, names, default_category_ids(classes)))
    moments: list[float] = []
    trainer.optimizer.register_step_post_hook(lambda *_: moments.append(time.perf_counter()))
    trainer.train()
    steps = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    return {"peak": peak_memory(cfg.MODEL.DEVICE), "step_seconds": statistics.median(steps)}


def _records(cfg: CfgNode, folder: Path, boxes: int) -> list[dict]:
    """Write square images of noise, each with `boxes` objects, and return their records."""
    import numpy as np
    from detectron2.structures import BoxMode
    from PIL import Image

    side = cfg.INPUT.SQUARE_SIZE
    generator = np.random.default_rng(0)
    records = []
    for number in range(IMAGES):
        path = folder / f"{number}.png"
        Image.fromarray(generator.integers(0, 256, (side, side, 3), np.uint8)).save(path)
        corners = generator.uniform(0.05, 0.6, (boxes, 2)) * side
        sides = generator.uniform(0.1, 0.35, (boxes, 2)) * side
        rows = np.hstack([corners, corners + sides]).tolist()
        annotations = [
            {
                "bbox": row,
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": 0,
                "iscrowd": 0,
                "segmentation": _rectangle(row, side),
            }
            for row in rows
        ]
        records.append(
            {
                "file_name": str(path),
                "image_id": number,
                "height": side,
                "width": side,
                "annotations": annotations,
            }
        )
    return records


def _rectangle(box: list[float], side: int) -> dict:
    """Return a filled box as run lengths."""
    import numpy as np
    from pycocotools import mask as run_lengths

    left, top, right, bottom = (round(value) for value in box)
    mask = np.zeros((side, side), np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    return run_lengths.encode(mask)


if __name__ == "__main__":
    main()
