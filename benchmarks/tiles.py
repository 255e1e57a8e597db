"""Merging of detections on tiles beside plain NMS and sahi: `python -m benchmarks.tiles`.

A made-up detector sees objects of 10 to 60 pixels once in each tile that shows enough of them, with
noisy boxes and scores. A third of the objects touch another. Every way of merging gets the same
detections. sahi is compared where it can be imported.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from ulga_d2.data.tiles import tile_grid
from ulga_d2.inference.merge import merge_tiles
from ulga_d2.inference.views import RawDetections, Region, join

HEIGHT, WIDTH, SIDE, OVERLAP = 1500, 2000, 512, 0.2
OBJECTS, SMALLEST, LARGEST = 600, 10, 60
THRESHOLD = 0.5
Parts = Sequence[tuple[Region, RawDetections]]
Merge = Callable[[Parts], RawDetections]


class Count(NamedTuple):
    """What a merge left of the objects: boxes, boxes too many, objects without a box."""

    left: int
    duplicates: int
    losses: int


def main() -> None:
    """Print a Markdown table: means over the seeds, time as the median of all calls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="simulations a row; default 5")
    parser.add_argument("--jitter", type=float, default=2.0, help="pixels; default 2")
    args = parser.parse_args()
    torch.set_num_threads(1)
    peers = sahi_merges()
    if not peers:
        print("sahi is absent: `pip install sahi` to compare with it")
    merges: dict[str, Merge] = {"merge_tiles": ours, "plain NMS, IoU 0.5": plain_nms, **peers}
    print(f"{OBJECTS} objects, box sides {args.jitter:g} px off, {args.seeds} seeds:\n")
    rows = []
    for objects, most_iou, what, least_visible in (
        ("apart", 0.0, "whole objects", 1.0),
        ("apart", 0.0, "parts from 25 %", 0.25),
        ("IoU to 0.4", 0.4, "whole objects", 1.0),
        ("IoU to 0.4", 0.4, "parts from 25 %", 0.25),
    ):
        for name, merge in merges.items():
            counts, times = [], []
            for seed in range(args.seeds):
                truth = place_objects(seed, most_iou)
                parts = detect(truth, seed, jitter=args.jitter, least_visible=least_visible)
                start = time.perf_counter()
                boxes = merge(parts)
                times.append(1e3 * (time.perf_counter() - start))
                counts.append(count(boxes, truth))
            mean = np.mean(counts, axis=0)
            rows.append([objects, what, name, *mean, statistics.median(times)])
    headers = ["objects", "tiles show", "merge", "boxes left", "duplicates", "losses", "ms"]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=".1f"))
    parts = many_detections()
    for name, merge in merges.items():
        start = time.perf_counter()
        merge(parts)
        seconds = time.perf_counter() - start
        print(f"{len(parts)} tiles of 100 detections, {name}: {seconds:.3f} s")


def place_objects(seed: int, most_iou: float) -> Tensor:
    """Return (600, 4) boxes of one class; a third touch another, no two have a higher IoU."""
    random = np.random.default_rng(seed)
    boxes = torch.zeros(0, 4)
    while len(boxes) < OBJECTS:
        width, height = random.integers(SMALLEST, LARGEST + 1, 2)
        x, y = random.integers(WIDTH - width), random.integers(HEIGHT - height)
        if len(boxes) % 3 == 2:
            _, y, x, _ = boxes[random.integers(len(boxes))].int().tolist()
        box = torch.tensor([[x, y, x + width, y + height]], dtype=torch.float32)
        inside = x + width <= WIDTH and y + height <= HEIGHT
        if inside and not (box_iou(box, boxes) > most_iou).any():
            boxes = torch.cat([boxes, box])
    return boxes


def detect(truth: Tensor, seed: int, *, jitter: float, least_visible: float) -> Parts:
    """Return what a detector finds on each tile: noisy boxes with random scores in 0.5..1.

    Args:
        truth: (N, 4) boxes in pixels.
        seed: of the noise.
        jitter: standard deviation of a box side, in pixels.
        least_visible: share of an object's area below which its tile does not show it.
    """
    random = torch.Generator().manual_seed(seed)
    parts = []
    for region in tile_grid(HEIGHT, WIDTH, SIDE, OVERLAP):
        visible = clip(truth, region)
        visible = visible[areas(visible) >= least_visible * areas(truth)]
        noisy = visible + jitter * torch.randn(visible.shape, generator=random)
        scores = 0.5 + 0.5 * torch.rand(len(noisy), generator=random)
        classes = torch.zeros(len(noisy), dtype=torch.int64)
        parts.append((region, RawDetections(clip(noisy, region), scores, classes)))
    return parts


def clip(boxes: Tensor, region: Region) -> Tensor:
    """Return boxes (N, 4) clipped to a region; those outside it have no area."""
    x0, y0, x1, y1 = region
    low, high = torch.tensor([x0, y0, x0, y0]), torch.tensor([x1, y1, x1, y1])
    return boxes.clamp(low.float(), high.float())


def areas(boxes: Tensor) -> Tensor:
    """Return the areas of boxes (N, 4)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def count(boxes: Tensor, truth: Tensor) -> Count:
    """Count boxes (N, 4); each belongs to the object with which its IoU is highest."""
    owners = box_iou(boxes, truth).argmax(dim=1)
    seen = len(owners.unique())
    return Count(len(boxes), len(boxes) - seen, len(truth) - seen)


def ours(parts: Parts) -> Tensor:
    """Merge with `merge_tiles`."""
    size = (max(region[3] for region, _ in parts), max(region[2] for region, _ in parts))
    merged = merge_tiles(parts, None, size, nms_threshold=THRESHOLD, max_detections=10**6)
    return merged.boxes


def plain_nms(parts: Parts) -> Tensor:
    """Merge with class-wise NMS over all tiles."""
    found = join([found for _, found in parts])
    return found.boxes[batched_nms(*found[:3], THRESHOLD)]


def sahi_merges() -> dict[str, Merge]:
    """Return sahi's ways of merging by name, with its own defaults; none where it is absent."""
    try:
        from sahi.postprocess import combine
        from sahi.prediction import ObjectPrediction
    except ImportError:
        return {}

    def merge_with(postprocess: Callable[[list], list]) -> Merge:
        def merge(parts: Parts) -> Tensor:
            found = join([found for _, found in parts])
            objects = [
                ObjectPrediction(bbox=box, category_id=number, category_name="", score=score)
                for box, score, number in zip(*(part.tolist() for part in found[:3]), strict=True)
            ]
            return torch.tensor([kept.bbox.to_xyxy() for kept in postprocess(objects)])

        return merge

    nmm = combine.GreedyNMMPostprocess(THRESHOLD, "IOS", class_agnostic=False)
    nms = combine.NMSPostprocess(THRESHOLD, "IOU", class_agnostic=False)
    return {"sahi GREEDYNMM, IOS 0.5": merge_with(nmm), "sahi NMS, IOU 0.5": merge_with(nms)}


def many_detections(seed: int = 0) -> Parts:
    """Return 100 random detections of 10 classes on each tile of a 4000x3000 image."""
    random = torch.Generator().manual_seed(seed)
    parts = []
    for region in tile_grid(3000, 4000, SIDE, OVERLAP):
        corners = torch.tensor(region[:2]) + SIDE * torch.rand(100, 2, generator=random)
        sides = 10 + 150 * torch.rand(100, 2, generator=random) ** 2
        boxes = clip(torch.cat([corners, corners + sides], dim=1), region)
        scores = torch.rand(100, generator=random)
        parts.append((region, RawDetections(boxes, scores, torch.arange(100) % 10)))
    return parts


if __name__ == "__main__":
    main()
