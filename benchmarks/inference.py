"""`ulga predict` beside its own model: `python -m benchmarks.inference [--images N]`.

Images/s from JPEG files to written results, as a share of what the bare model does in a loop on
prepared tensors, in the same process and the same batches; the same for tiles. Rounds take turns.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from ulga_d2 import Predictor
from ulga_d2.config import resolve_classes, resolve_test_size
from ulga_d2.engine.checkpoint import save_checkpoint
from ulga_d2.engine.launch import read_config
from ulga_d2.inference.batch import Job, join_parts, prepare_output, run_shard
from ulga_d2.inference.files import find_files
from ulga_d2.inference.model import build_seeded_model

from .timing import take_turns

CONFIGS = ("configs/brain_tumor_swin_ulga.yaml", "configs/brain_tumor_swin_ulga_nano.yaml")
SCORE = 0.011  # of random weights: each image has detections, as trained ones have


def main() -> None:
    """Print a table: a row a config and kind of output."""
    parser = argparse.ArgumentParser(description="ulga predict beside its own model.")
    parser.add_argument("--config", action="append", help=f"default: {' '.join(CONFIGS)}")
    parser.add_argument("--images", type=int, default=300, help="of all rounds together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--what", nargs="+", default=["json", "images", "tiles"])
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {args.images} images in {args.rounds} rounds\n")
    print(
        "| config | what | bare model | with everything around it | share |\n|---|---|---|---|---|"
    )
    for config in args.config or CONFIGS:
        with tempfile.TemporaryDirectory() as folder:
            _measure(config, Path(folder), args)


def _measure(config: str, folder: Path, args: argparse.Namespace) -> None:
    checkpoint, side = _random_checkpoint(config, folder)
    count = max(args.batch, args.images // args.rounds)
    _write_images(folder / "images", count, side)
    tiles_a_side = 3
    large = max(1, count // tiles_a_side**2)
    _write_images(folder / "large", large, int(side * (1 + 0.8 * (tiles_a_side - 1))))
    options = {"batch_size": args.batch, "score": SCORE, "max_detections": 30}
    predictor = Predictor(checkpoint, **options)
    tiled = Predictor(checkpoint, tile=side, **options)
    rows = {
        "json": ("--save json", predictor, folder / "images", ("json",)),
        "images": ("--save images", predictor, folder / "images", ("images",)),
        "tiles": ("tiles, --save json", tiled, folder / "large", ("json",)),
    }
    for what, one, images, kinds in (rows[name] for name in args.what):
        bare, views = _bare(one, images)
        candidates = {"bare": bare, "predict": _command(one, images, folder / "out", kinds)}
        times = take_turns(candidates, args.rounds)
        unit = "tiles" if "tiles" in what else "images"
        rates = [f"{views / times.median(name):.2f} {unit}/s" for name in candidates]
        share = times.ratio("bare", "predict")
        print(f"| {Path(config).stem} | {what} | {rates[0]} | {rates[1]} | {share} |", flush=True)


def _random_checkpoint(config: str, folder: Path) -> tuple[Path, int]:
    opts = ["INPUT.INTENSITY", "full"]  # of the 8-bit images below
    cfg = read_config(argparse.Namespace(config_file=config, opts=opts, eval_only=True))
    resolve_classes(cfg, ("a", "b", "c"), (1, 2, 3))
    resolve_test_size(cfg)
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED = "cpu", False
    state = {
        "model": build_seeded_model(cfg).state_dict(),
        "iteration": 0,
        "class_names": ["a", "b", "c"],
        "config": cfg.dump(),
    }
    return save_checkpoint(folder, "model.pth", state), cfg.INPUT.SQUARE_SIZE


def _write_images(folder: Path, count: int, side: int) -> None:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        small = generator.integers(0, 256, (side // 16, side // 16, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), cv2.resize(small, (side, side)))


def _bare(predictor: Predictor, images: Path) -> tuple[Callable[[], None], int]:
    """Return the model's loop over prepared tensors, and their number."""
    views = [
        view
        for path in sorted(images.iterdir())
        for view in predictor.preprocessing.views(predictor.preprocessing.read(str(path)))
    ]
    inputs = [{"image": view.image, "height": 512, "width": 512} for view in views]
    step = predictor.options.batch_size

    def call() -> None:
        with torch.inference_mode():
            for start in range(0, len(inputs), step):
                predictor.loaded.model(inputs[start : start + step])

    return call, len(views)


def _command(
    predictor: Predictor, images: Path, out: Path, kinds: tuple[str, ...]
) -> Callable[[], None]:
    def call() -> None:
        job = Job(find_files([str(images)], recursive=False).files, out, kinds)
        prepare_output(out, overwrite=True)
        run_shard(predictor, job)
        join_parts(out, [out])

    return call


if __name__ == "__main__":
    main()
