"""The compiled evaluator beside COCOeval: the same arrays, to the last digit."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval
from test_average_precision import CLASSES, random_set

from ulga_d2.evaluation.accumulate import FIRST_HIT, accumulate
from ulga_d2.evaluation.average_precision import coco_index, found_boxes, truth_boxes
from ulga_d2.evaluation.boxes import number_images


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


@pytest.mark.parametrize("block", range(10))
def test_500_random_sets_with_ties_crowds_and_empty_images_give_cocoevals_arrays(block):
    for seed in range(50 * block, 50 * block + 50):
        records, predictions = random_set(seed, num_images=3, crowd=0.3 * (seed % 2))
        for class_agnostic in (False, True):
            expected = oracle(records, predictions, class_agnostic=class_agnostic)
            found = accumulate(*indexed(records, predictions), class_agnostic=class_agnostic)
            for name in ("precision", "recall"):
                assert np.array_equal(found[name], expected[name]), (seed, class_agnostic, name)


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
    expected = oracle(records, predictions, class_agnostic=False)["precision"]
    found = accumulate(*indexed(records, predictions), class_agnostic=False)["precision"]
    assert np.array_equal(found, expected)
    assert FIRST_HIT < 1
    assert (FIRST_HIT in expected) == (objects == 1 or not second_hits)
