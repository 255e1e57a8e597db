"""All figures together: each is that of its own definition, or is undefined for a reason."""

from __future__ import annotations

import math

import pytest
from test_average_precision import CLASSES, random_set

from ulga_d2.evaluation.average_precision import detection_metrics
from ulga_d2.evaluation.curves import calibration, f1_optimal
from ulga_d2.evaluation.errors import KINDS, error_split
from ulga_d2.evaluation.froc import froc, match_lesions
from ulga_d2.evaluation.matching import match
from ulga_d2.evaluation.summary import all_metrics


@pytest.mark.parametrize("seed", range(40))
def test_each_figure_is_a_number_or_none_with_a_reason_and_never_nan_or_minus_one(seed):
    records, predictions = random_set(seed, num_images=4, max_objects=seed % 5)
    metrics = all_metrics(records, predictions, CLASSES, froc_hit="iou")
    undefined = {name for name, value in metrics.values.items() if value is None}
    assert metrics.reasons.keys() == undefined
    assert all(metrics.reasons.values())
    for name in metrics.values.keys() - undefined:
        assert math.isfinite(metrics.values[name])
        assert metrics.values[name] >= 0 or name.startswith("errors/")


def test_figures_are_those_of_their_own_functions():
    records, predictions = random_set(3, num_images=12)
    values = all_metrics(records, predictions, CLASSES, froc_hit="centre").values
    matches = match(records, predictions, 3)
    best = f1_optimal(matches)
    curve = froc(match_lesions(records, predictions, 3, hit="centre"))
    split = error_split(records, predictions, 3)
    assert values.items() >= detection_metrics(records, predictions, CLASSES).values.items()
    assert values["threshold/score"] == best.score and values["threshold/F1"] == 100 * best.f1
    assert values["froc/0.125"] == 100 * curve.at(1 / 8) and values["froc/8"] == 100 * curve.at(8)
    assert values["froc/mean"] == 100 * curve.mean()
    assert values["froc/FP_per_healthy_image"] == curve.per_healthy_image(best.score)
    assert values["calibration/ECE"] == 100 * calibration(matches).ece
    assert {kind: values[f"errors/num_{kind}"] for kind in KINDS} == split.counts
    assert {kind: values[f"errors/{kind}"] for kind in KINDS} == {k: split.gains[k] for k in KINDS}


def test_a_healthy_set_has_its_false_positives_and_nothing_else():
    records = [{"image_id": n, "annotations": []} for n in range(4)]
    box = {"image_id": 1, "category_id": 0, "bbox": [0, 0, 9, 9], "score": 0.5}
    metrics = all_metrics(records, [box], ["a"], froc_hit="iou")
    defined = {name for name, value in metrics.values.items() if value is not None}
    counts = {f"errors/num_{kind}" for kind in KINDS}
    assert defined == {"froc/FP_per_healthy_image", "calibration/ECE"} | counts
    assert metrics.values["froc/FP_per_healthy_image"] == 0.25
    assert metrics.reasons["froc/mean"] == "no ground-truth boxes at all"
