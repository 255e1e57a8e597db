"""The compiled evaluator beside COCOeval: the same arrays, to the last digit."""

from __future__ import annotations

import contextlib
import io
import time

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval
from test_average_precision import CLASSES, random_set

from ulga_d2.evaluation import accumulate as accumulation
from ulga_d2.evaluation import matching
from ulga_d2.evaluation.accumulate import FIRST_HIT, accumulate
from ulga_d2.evaluation.average_precision import coco_index, found_boxes, truth_boxes
from ulga_d2.evaluation.boxes import number_images
from ulga_d2.evaluation.estimate import estimate
from ulga_d2.evaluation.resample import Draws


def indexed(records, predictions):
    numbers = number_images(records)
    with contextlib.redirect_stdout(io.StringIO()):
        return (
            coco_index(truth_boxes(records, numbers), numbers, CLASSES),
            coco_index(found_boxes(predictions, numbers), numbers, CLASSES),
        )


def oracle(records, predictions, *, class_agnostic):
    evaluation = COCOeval(*indexed(records, predictions), "bbox")
    if class_agnostic:
        evaluation.params.useCats = 0
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval


def in_full(found, num_classes):
    """Put the classes that were left out back into the arrays, as undefined."""
    classes = found["classes"].tolist()
    if classes == [-1]:
        return {name: found[name] for name in ("precision", "recall")}
    precision = np.full((*found["precision"].shape[:2], num_classes, 4), -1.0)
    recall = np.full((len(precision), num_classes, *found["recall"].shape[2:]), -1.0)
    precision[:, :, classes], recall[:, classes] = found["precision"], found["recall"]
    return {"precision": precision, "recall": recall}


@pytest.mark.parametrize("block", range(10))
def test_500_random_sets_with_ties_crowds_and_empty_images_give_cocoevals_arrays(block):
    for seed in range(50 * block, 50 * block + 50):
        records, predictions = random_set(seed, num_images=3, crowd=0.3 * (seed % 2))
        for class_agnostic in (False, True):
            expected = oracle(records, predictions, class_agnostic=class_agnostic)
            found = accumulate(*indexed(records, predictions), class_agnostic=class_agnostic)
            wanted = {"precision": expected["precision"][..., -1], "recall": expected["recall"]}
            for name, whole in in_full(found, len(CLASSES)).items():
                assert np.array_equal(whole, wanted[name]), (seed, class_agnostic, name)


@pytest.mark.parametrize("objects", [1, 2, 3, 150, 1100])
@pytest.mark.parametrize("second_hits", [False, True])
def test_precision_after_the_first_hit_is_cocoevals_whatever_follows(objects, second_hits):
    box = {"bbox_mode": 1, "category_id": 0, "iscrowd": 0}
    records = [
        {"image_id": n, "annotations": [{**box, "bbox": [0, 0, 50, 50]}]} for n in range(objects)
    ]
    places = [0, 0, 400, 0] if second_hits else [0, 400, 0, 0]
    predictions = [
        {"image_id": n, "category_id": 0, "bbox": [x, 0, 50, 50], "score": 1 - n / 10}
        for n, x in enumerate(places[:objects])
    ]
    expected = oracle(records, predictions, class_agnostic=False)["precision"][..., -1]
    found = accumulate(*indexed(records, predictions), class_agnostic=False)
    assert np.array_equal(in_full(found, len(CLASSES))["precision"], expected)
    assert FIRST_HIT < 1
    assert (FIRST_HIT in expected) == (objects == 1 or not second_hits)


def some_of_many(seed, num_classes):
    """Spread the classes of a small set over many, so that most have nothing."""
    records, predictions = random_set(seed, num_images=4, crowd=0.2)
    numbers = np.random.default_rng(seed).permutation(num_classes)
    for item in [*(box for record in records for box in record["annotations"]), *predictions]:
        item["category_id"] = int(numbers[item["category_id"]])
    return records, predictions, [f"class {number}" for number in range(num_classes)]


def test_classes_without_objects_and_detections_are_left_out_and_change_no_metric(monkeypatch):
    for seed in range(10):
        records, predictions, names = some_of_many(seed, 40)
        draws = Draws(np.arange(len(records)), 20)
        with pytest.MonkeyPatch.context() as patch:
            for module in (accumulation, matching):
                patch.setattr(module, "used_classes", lambda truth, _: sorted(truth.getCatIds()))
            whole = estimate(records, predictions, names, draws, froc_hit="iou", watch=unwatched)
        monkeypatch.setattr(accumulation, "MOST_CLASSES", 1 + seed % 3)
        found = estimate(records, predictions, names, draws, froc_hit="iou", watch=unwatched)
        assert found == whole
        assert len(found.metrics.reasons) > 30


def unwatched(rows, _):
    return rows


def test_ten_thousand_classes_of_which_few_have_objects_are_scored_in_seconds():
    records, predictions, names = some_of_many(0, 10_000)
    draws = Draws(np.arange(len(records)), 20)
    start = time.process_time()
    found = estimate(records, predictions, names, draws, froc_hit="iou", watch=unwatched)
    assert time.process_time() - start < 6  # 25 s if all of them are evaluated
    assert sum(name.startswith("bbox/AP-") for name in found.metrics.values) == 10_000
    assert found.metrics.values["bbox/AP"] is not None
