"""Where a RetinaNet's time goes: `python -m benchmarks.detector [--config FILE] [--batch N]`.

Preprocessing, backbone, neck, head, losses and post-processing, in inference and in training.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from ulga_d2.engine.launch import read_config
from ulga_d2.inference.device import resolve_device

from .timing import wait_for_gpu

LEAF = "configs/brain_tumor_swin_baseline.yaml"


class Stopwatch:
    """Adds up the seconds spent in chosen calls of a detector."""

    def __init__(self, detector: nn.Module) -> None:
        self.seconds: dict[str, float] = {}
        for owner, method, name in (
            (detector, "preprocess_image", "preprocessing"),
            (detector.backbone, "forward", "backbone and neck"),
            (detector.backbone.bottom_up, "forward", "backbone"),
            (detector.head, "forward", "head"),
            (detector, "forward_training", "losses and matching"),
            (detector, "forward_inference", "post-processing"),
        ):
            setattr(owner, method, self._timed(getattr(owner, method), name))

    def _timed(self, call: Callable, name: str) -> Callable:
        def timed(*args: object, **options: object) -> object:
            wait_for_gpu()
            start = time.perf_counter()
            result = call(*args, **options)
            wait_for_gpu()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            return result

        return timed

    def lap(self, call: Callable[[], object]) -> dict[str, float]:
        """Return the seconds of each part of one call, and of the whole."""
        self.seconds = {}
        start = time.perf_counter()
        call()
        wait_for_gpu()
        total = time.perf_counter() - start
        found = dict(self.seconds)
        found["neck"] = found.pop("backbone and neck") - found["backbone"]
        return {**found, "all": total}


def report(title: str, laps: list[dict[str, float]]) -> None:
    """Print the medians and the shares."""
    medians = {name: statistics.median(lap[name] for lap in laps) for name in laps[0]}
    known = sum(value for name, value in medians.items() if name != "all")
    medians["backward" if "losses and matching" in medians else "rest"] = medians["all"] - known
    print(f"\n| {title} | ms | share |\n|---|---|---|")
    for name, value in medians.items():
        print(f"| {name} | {1e3 * value:.0f} | {value / medians['all']:.0%} |")


def main() -> None:
    """Time one detector in inference and in training."""
    parser = argparse.ArgumentParser(description="Where a RetinaNet's time goes.")
    parser.add_argument("--config", default=LEAF)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    cfg = read_config(argparse.Namespace(config_file=args.config, opts=[], eval_only=True))
    resolve_device(cfg)
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    torch.manual_seed(0)
    detector = build_model(cfg)
    size = cfg.INPUT.SQUARE_SIZE
    truth = Instances((size, size), gt_boxes=Boxes(torch.tensor([[50.0, 60.0, 150.0, 180.0]])))
    truth.gt_classes = torch.tensor([1])
    image = torch.randint(0, 255, (3, size, size), dtype=torch.uint8)
    batch = [{"image": image, "instances": truth, "height": size, "width": size}] * args.batch
    watch = Stopwatch(detector)

    def infer() -> None:
        with torch.inference_mode():
            detector(batch)

    def train() -> None:
        sum(detector(batch).values()).backward()
        detector.zero_grad(set_to_none=True)

    print(f"{args.config}, {args.batch} x {size} x {size}, {detector.device}")
    detector.eval()
    report("inference", [watch.lap(infer) for _ in range(args.rounds + 1)][1:])
    detector.train()
    with EventStorage():
        report("training step", [watch.lap(train) for _ in range(args.rounds + 1)][1:])


if __name__ == "__main__":
    main()
