"""Time of scoring saved detections: `python -m benchmarks.evaluation [--images N] [--resamples N]`.

AP and AR by class and class-agnostic, beside pycocotools on the same boxes; everything that an
evaluation writes; and resamples for intervals.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable

import numpy as np
from pycocotools.cocoeval import COCOeval

from ulga_d2.evaluation.average_precision import (
    coco_index,
    detection_metrics,
    found_boxes,
    truth_boxes,
)
from ulga_d2.evaluation.boxes import number_images
from ulga_d2.evaluation.matching import match
from ulga_d2.evaluation.resample import Scorer, cluster_draws
from ulga_d2.evaluation.summary import all_metrics

CLASSES = [f"class {number}" for number in range(10)]
OBJECTS, DETECTIONS, SIDE = 7, 100, 1024


def random_boxes(images: int, seed: int = 0) -> tuple[list[dict], list[dict]]:
    """Return records and predictions; half of the predictions lie near an object."""
    rng = np.random.default_rng(seed)
    records, predictions = [], []
    for image in range(images):
        corners = rng.uniform(0, SIDE * 0.7, (OBJECTS, 2))
        boxes = np.concatenate([corners, rng.uniform(20, 250, (OBJECTS, 2))], axis=1)
        classes = rng.integers(0, len(CLASSES), OBJECTS)
        annotations = [
            {"bbox": box, "bbox_mode": 1, "category_id": int(number), "iscrowd": 0}
            for box, number in zip(boxes.tolist(), classes, strict=True)
        ]
        size = {"height": SIDE, "width": SIDE}
        records.append({"image_id": image, **size, "annotations": annotations})
        meant = rng.integers(0, OBJECTS, DETECTIONS)
        found = boxes[meant] * rng.normal(1, 0.08, (DETECTIONS, 4))
        found[::2, :2] = rng.uniform(0, SIDE * 0.7, (DETECTIONS // 2, 2))
        named = np.where(rng.random(DETECTIONS) < 0.6, classes[meant], rng.integers(0, 10))
        predictions += [
            {"image_id": image, "category_id": int(c), "bbox": box, "score": float(score)}
            for box, c, score in zip(found.tolist(), named, rng.random(DETECTIONS), strict=True)
        ]
    return records, predictions


def pycocotools(records: list[dict], predictions: list[dict]) -> None:
    """Score with COCOeval alone, by class and class-agnostic."""
    numbers = number_images(records)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_index(truth_boxes(records, numbers), numbers, CLASSES)
        found = coco_index(found_boxes(predictions, numbers), numbers, CLASSES)
        for use_classes in (1, 0):
            evaluation = COCOeval(truth, found, "bbox")
            evaluation.params.useCats = use_classes
            if not use_classes:  # as ours: the sizes are given by class alone
                evaluation.params.areaRng = evaluation.params.areaRng[:1]
                evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
            evaluation.evaluate()
            evaluation.accumulate()


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time of scoring saved detections.")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--resamples", type=int, default=2000)
    args = parser.parse_args()
    data = random_boxes(args.images)
    clusters = cluster_draws(np.arange(args.images), args.resamples, seed=0)
    scorers = {
        "AP, AP50, AP75, AR@100": lambda: Scorer.of(*data, CLASSES),
        "the same by class and size": lambda: Scorer.of(*data, CLASSES, per_class=True, sizes=True),
    }
    print(f"| {args.images} images x {DETECTIONS} detections x {len(CLASSES)} classes | s |")
    print("|---|---|")
    for name, call in {
        "AP and AR, pycocotools": lambda: pycocotools(*data),
        "AP and AR, ours": lambda: detection_metrics(*data, CLASSES),
        "all figures of an evaluation": lambda: all_metrics(*data, CLASSES, froc_hit="iou"),
        "matching kept for resamples": lambda: match(*data, len(CLASSES)),
    }.items():
        print(f"| {name} | {_seconds(call):.1f} |", flush=True)
    for name, make in scorers.items():
        scorer = make()
        seconds = _seconds(lambda scorer=scorer: scorer.scores(clusters))
        print(f"| {args.resamples} resamples: {name} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
