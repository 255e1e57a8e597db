"""Average precision of masks against pycocotools on a file, and the evaluator of masks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ulga_d2.evaluation.detection import DetectionEvaluator
from ulga_d2.evaluation.mask_precision import encode_mask, mask_metrics
from ulga_d2.inference.detector import _to_instances, to_raw
from ulga_d2.inference.views import View

CLASSES = ["pupfish", "gecko"]
HEIGHT, WIDTH = 60, 80


def disc(rng: np.random.Generator, jitter: float = 0.0, at: tuple | None = None) -> tuple:
    """Draw a disc's mask, and return it with its place, so that a like one can be drawn."""
    row, column, radius = at or (rng.uniform(15, 45), rng.uniform(15, 65), rng.uniform(4, 22))
    row, column, radius = (value + jitter * rng.normal() for value in (row, column, radius))
    down, across = np.mgrid[:HEIGHT, :WIDTH]
    mask = (down - row) ** 2 + (across - column) ** 2 <= max(radius, 2) ** 2
    return mask, (row, column, radius)


def box_of(mask: np.ndarray) -> list[float]:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    x0, x1, y0, y1 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    return [float(value) for value in (x0, y0, x1, y1)]


def scene(seed: int) -> tuple[list[dict], list[dict], dict[int, list]]:
    """Return records, results and, by image, the found masks with class and score."""
    rng = np.random.default_rng(seed)
    records, results, masks = [], [], {}
    for image in range(8):
        annotations = []
        masks[image] = []
        for _ in range(rng.integers(0, 4)):
            mask, place = disc(rng)
            category = int(rng.integers(2))
            annotations.append(
                {
                    "bbox": box_of(mask),
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": category,
                    "iscrowd": 0,
                    "segmentation": encode_mask(mask),
                }
            )
            found, _ = disc(rng, jitter=2.0, at=place)
            masks[image].append((found, category, round(float(rng.uniform()), 2)))
        masks[image].append((disc(rng)[0], int(rng.integers(2)), round(float(rng.uniform()), 2)))
        size = {"height": HEIGHT, "width": WIDTH}
        record = {"image_id": image, "file_name": f"{image}.png", **size}
        records.append({**record, "annotations": annotations})
        for mask, category, score in masks[image]:
            x0, y0, x1, y1 = box_of(mask)
            results.append(
                {
                    "image_id": image,
                    "category_id": category,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": score,
                    "segmentation": encode_mask(mask),
                }
            )
    return records, results, masks


def coco_content(records: list[dict]) -> dict:
    """Return the records as a COCO file, image ids from 1."""
    annotations = [
        {
            **{key: item[key] for key in ("category_id", "bbox", "iscrowd", "segmentation")},
            "image_id": record["image_id"] + 1,
            "area": item.get("area", float(run_lengths.area(item["segmentation"]))),
        }
        for record in records
        for item in record["annotations"]
    ]
    return {
        "images": [
            {"id": record["image_id"] + 1, "height": HEIGHT, "width": WIDTH} for record in records
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES)],
        "annotations": [{**item, "id": number} for number, item in enumerate(annotations, 1)],
    }


@pytest.mark.parametrize("stated", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_figures_of_masks_are_pycocotools_own(seed, stated, tmp_path):
    records, results, _ = scene(seed)
    if stated:  # areas that are not the masks'
        for number, item in enumerate(i for record in records for i in record["annotations"]):
            item["area"] = 900.0 + 100 * (number % 4)
    (tmp_path / "truth.json").write_text(json.dumps(coco_content(records)))
    truth = COCO(str(tmp_path / "truth.json"))
    found = truth.loadRes(  # with a box beside it, a result would get the area of its box
        [{**item, "image_id": item["image_id"] + 1, "bbox": []} for item in results]
    )
    evaluation = COCOeval(truth, found, "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    values = mask_metrics(records, results, CLASSES).values
    for name, expected in zip(
        ("AP", "AP50", "AP75", "APs", "APm", "APl"), evaluation.stats[:6], strict=True
    ):
        value = values[f"segm/{name}"]
        assert (-1 if value is None else value / 100) == pytest.approx(expected, abs=1e-12)


def to_instances(found: list, *, merged: bool) -> Instances:
    """Return found masks as a model gives them, or as merged views do."""
    instances = Instances((HEIGHT, WIDTH))
    boxes = [box_of(mask) for mask, _, _ in found]
    instances.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    instances.scores = torch.tensor([score for _, _, score in found])
    instances.pred_classes = torch.tensor([category for _, category, _ in found])
    masks = [torch.tensor(mask) for mask, _, _ in found]
    if not merged:
        instances.pred_masks = torch.stack(masks)
    elif found:  # merged views without detections have no masks at all
        view = View(torch.zeros(3, HEIGHT, WIDTH), (0, 0, WIDTH, HEIGHT))
        instances.pred_masks = torch.stack(masks)
        instances = _to_instances(to_raw(instances, view, (HEIGHT, WIDTH)), (HEIGHT, WIDTH))
        assert instances.has("pred_masks_rle")
    return instances


@pytest.mark.parametrize("merged", ["none", "all", "every second image"])
def test_an_evaluator_scores_the_masks_it_is_shown_and_writes_them(tmp_path, merged):
    records, results, masks = scene(0)
    if merged != "none":
        masks[4] = []
        results = [item for item in results if item["image_id"] != 4]
    evaluator = DetectionEvaluator("discs", records, CLASSES, str(tmp_path))
    for record in records:
        image = record["image_id"]
        is_merged = merged == "all" or (merged != "none" and image % 2 == 0)
        instances = to_instances(masks[image], merged=is_merged)
        evaluator.process([record], [{"instances": instances}])
    figures = evaluator.evaluate()
    expected = mask_metrics(records, results, CLASSES).values
    assert figures["segm"]["AP"] == expected["segm/AP"] > 20
    assert json.loads((tmp_path / "metrics.json").read_text())["segm/AP"] == expected["segm/AP"]
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert [item["segmentation"] for item in written] == [item["segmentation"] for item in results]


def test_without_masks_in_the_ground_truth_their_figures_are_undefined_with_the_reason():
    records, results, _ = scene(1)
    del next(record for record in records if record["annotations"])["annotations"][0][
        "segmentation"
    ]
    metrics = mask_metrics(records, results, CLASSES)
    assert set(metrics.values.values()) == {None}
    assert set(metrics.reasons.values()) == {"the ground truth has boxes without a mask"}
