"""Figures of boxes: equal to pycocotools' to the last digit, or undefined for a stated reason."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from detectron2.structures import BoxMode
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ulga_d2.errors import UserError
from ulga_d2.evaluation.average_precision import detection_metrics

CLASSES = ["glioma", "meningioma", "pituitary"]
TWELVE = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def random_box(rng):
    """Whole numbers, so that corners and sides convert without rounding and ties are common."""
    side = rng.choice([30, 60, 300])
    return [rng.randrange(200), rng.randrange(200), rng.randint(1, side), rng.randint(1, side)]


def random_set(seed, *, num_images=8, ids=int, classes=3, max_objects=4, crowd=0.1):
    """Ground truth and predictions with ties, crowds, empty images and near misses."""
    rng = random.Random(seed)
    records, predictions = [], []
    for image_id in map(ids, rng.sample(range(1000), num_images)):
        annotations = []
        for _ in range(rng.randint(0, max_objects)):
            x, y, w, h = random_box(rng)
            annotations.append(
                {
                    "bbox": [float(x), float(y), float(x + w), float(y + h)],
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": rng.randrange(classes),
                    "iscrowd": int(rng.random() < crowd),
                }
            )
        records.append(
            {
                "file_name": f"{image_id}.png",
                "image_id": image_id,
                "height": 600,
                "width": 500,
                "annotations": annotations,
            }
        )
        for _ in range(rng.choice([0, 3, 12, 130])):
            box = random_box(rng)
            if annotations and rng.random() < 0.7:
                x0, y0, x1, y1 = rng.choice(annotations)["bbox"]
                box = [x0 + rng.randint(-3, 3), y0, x1 - x0, max(1, y1 - y0 + rng.randint(-3, 3))]
            predictions.append(
                {
                    "image_id": image_id,
                    "category_id": rng.randrange(classes),
                    "bbox": list(map(float, box)),
                    "score": rng.choice([0.125, 0.25, 0.5, 0.75, rng.random()]),
                }
            )
    return records, predictions


def oracle(folder, records, predictions, *, use_classes):
    """COCOeval's twelve stats through its own JSON loading, -1 where undefined."""
    annotations = []
    for record in records:
        for box in record["annotations"]:
            x0, y0, x1, y1 = box["bbox"]
            xywh = [x0, y0, x1 - x0, y1 - y0]
            annotations.append(
                {**box, "bbox": xywh, "bbox_mode": 1, "area": xywh[2] * xywh[3]}
                | {"id": len(annotations) + 1, "image_id": record["image_id"]}
            )
    truth = {
        "images": [{"id": record["image_id"]} for record in records],
        "categories": [{"id": index, "name": name} for index, name in enumerate(CLASSES)],
        "annotations": annotations,
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(predictions))
    coco = COCO(folder / "truth.json")
    evaluation = COCOeval(coco, coco.loadRes(str(folder / "found.json")), "bbox")
    evaluation.params.useCats = int(use_classes)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(16))
def test_figures_equal_pycocotools_to_the_last_digit(tmp_path, seed):
    ids = str if seed % 4 < 2 else int
    sparse = {"max_objects": 1, "classes": 2} if seed % 3 == 0 else {}
    records, predictions = random_set(seed, ids=ids, crowd=0.3 * (seed % 2), **sparse)
    values = detection_metrics(records, predictions, CLASSES).values
    coco = oracle(tmp_path, records, predictions, use_classes=True)
    expected = {f"bbox/{name}": stat for name, stat in zip(TWELVE, coco.stats, strict=True)}
    for index, name in enumerate(CLASSES):
        precision = coco.eval["precision"][:, :, index, 0, -1]
        defined = precision[precision > -1]
        expected[f"bbox/AP-{name}"] = np.mean(defined) if defined.size else -1
    coco = oracle(tmp_path, records, predictions, use_classes=False)
    for name, index in [("AP", 0), ("AP50", 1), ("AP75", 2), ("AR100", 8)]:
        expected[f"agnostic/{name}"] = coco.stats[index]
    assert values == {key: None if v == -1 else 100 * v for key, v in expected.items()}


def test_figures_do_not_depend_on_the_order_of_images():
    records, predictions = random_set(1, num_images=20)
    expected = detection_metrics(records, predictions, CLASSES)
    for seed in range(3):
        rng = random.Random(seed)
        rng.shuffle(records)
        place = {record["image_id"]: rng.random() for record in records}
        predictions.sort(key=lambda prediction: place[prediction["image_id"]])
        assert detection_metrics(records, predictions, CLASSES) == expected


def test_class_agnostic_figures_forgive_the_name_and_count_a_second_mark_as_false():
    annotation = {"bbox": [0, 0, 50, 50], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    records = [{"image_id": image_id, "annotations": [annotation]} for image_id in (1, 2)]
    box = {"bbox": [0, 0, 50, 50]}
    wrong_names = [
        box | {"image_id": 1, "category_id": 1, "score": 0.95},
        box | {"image_id": 1, "category_id": 2, "score": 0.9},
        box | {"image_id": 2, "category_id": 1, "score": 0.5},
    ]
    values = detection_metrics(records, wrong_names, CLASSES).values
    assert values["bbox/AP"] == values["bbox/AR100"] == 0
    assert values["agnostic/AR100"] == 100
    # Precision is 1 up to recall 0.5 (51 of the 101 levels), then 2 of 3.
    assert values["agnostic/AP"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)


def test_undefined_figures_are_none_with_a_reason_in_words():
    big = {"bbox": [0, 0, 200, 200], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    metrics = detection_metrics([{"image_id": 1, "annotations": [big]}], [], CLASSES)
    assert metrics.reasons == {
        "bbox/APs": "no ground-truth object smaller than 32x32 px",
        "bbox/APm": "no ground-truth object between 32x32 and 96x96 px",
        "bbox/ARs": "no ground-truth object smaller than 32x32 px",
        "bbox/ARm": "no ground-truth object between 32x32 and 96x96 px",
        "bbox/AP-meningioma": "class 'meningioma' has no object in the set",
        "bbox/AP-pituitary": "class 'pituitary' has no object in the set",
    }
    assert {name for name, value in metrics.values.items() if value is None} == set(metrics.reasons)
    assert set(metrics.defined()["bbox"].values()) == {0.0}, "no detections: AP and AR are 0"


@pytest.mark.parametrize("crowd", [False, True])
def test_a_healthy_only_set_defines_nothing_and_says_so(crowd):
    region = {"bbox": [0, 0, 9, 9], "bbox_mode": 0, "category_id": 0, "iscrowd": 1}
    records = [{"image_id": 1, "annotations": [region] * crowd}]
    found = [{"image_id": 1, "category_id": 0, "bbox": [1, 1, 5, 5], "score": 0.5}]
    metrics = detection_metrics(records, found, CLASSES)
    assert metrics.defined() == {"bbox": {}, "agnostic": {}}
    aside = " (crowd regions do not count)" if crowd else ""
    assert set(metrics.reasons.values()) == {"no ground-truth boxes at all" + aside}
    assert metrics.reasons.keys() == metrics.values.keys()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"score": float("nan")}, "score nan is not finite; correct the program"),
        ({"bbox": [0, 0, float("inf"), 1]}, "is not finite"),
        ({"bbox": [5, 5, -3, 1]}, "is not .x, y, width, height. with sides >= 0"),
        ({"score": "0.5"}, "must be numbers"),
        ({"image_id": 99}, "image_id 99.*has no such image"),
        ({"image_id": "1"}, "image_id '1'.*ids of this dataset are numbers, not text"),
        ({"category_id": 3}, r"category_id 3 is not in 0\.\.2"),
    ],
)
def test_bad_predictions_are_refused_by_number_and_fault(fault, message):
    good = {"image_id": 1, "category_id": 0, "bbox": [0, 0, 5, 5], "score": 0.5}
    with pytest.raises(UserError, match=f"prediction number 2 .*{message}"):
        detection_metrics([{"image_id": 1, "annotations": []}], [good, good | fault], CLASSES)
    del good["score"]
    with pytest.raises(UserError, match="it has no score"):
        detection_metrics([{"image_id": 1, "annotations": []}], [good], CLASSES)


def test_bad_ground_truth_is_refused():
    record = {"image_id": "a", "annotations": []}
    with pytest.raises(UserError, match="image_id 'a' stands in 2 records"):
        detection_metrics([record, record], [], CLASSES)
    with pytest.raises(UserError, match="'x'. appear more than once"):
        detection_metrics([record], [], ["x", "x"])
    box = {"bbox": [0, 0, 1, 1], "bbox_mode": 0, "category_id": 3}
    with pytest.raises(UserError, match="image_id 'a' has category_id 3"):
        detection_metrics([record | {"annotations": [box]}], [], CLASSES)


def test_saved_predictions_are_scored_without_detectron2_and_torch():
    code = (
        "import sys; sys.modules.update(detectron2=None, torch=None)\n"
        "import ulga_d2.evaluation.average_precision, ulga_d2.evaluation.table"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
