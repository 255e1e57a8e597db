"""COCO's matches as arrays: the curve they give is COCOeval's, and weights are multiplicities."""

from __future__ import annotations

import numpy as np
import pytest
from test_average_precision import CLASSES, random_set

from ulga_d2.evaluation.average_precision import detection_metrics
from ulga_d2.evaluation.matching import match, precision_recall


def mean_figures(matches):
    curves = [curve for curve in map(precision_recall, matches) if curve is not None]
    if not curves:
        return None, None
    return [pytest.approx(100 * np.mean(part), abs=1e-9) for part in zip(*curves, strict=True)]


@pytest.mark.parametrize("seed", range(20))
def test_the_curve_of_the_matches_is_cocoevals(seed):
    records, predictions = random_set(seed)
    values = detection_metrics(records, predictions, CLASSES).values
    by_class = match(records, predictions, len(CLASSES))
    agnostic = match(records, predictions, len(CLASSES), class_agnostic=True)
    assert [values["bbox/AP"], values["bbox/AR100"]] == [*mean_figures(by_class)]
    assert [values["agnostic/AP"], values["agnostic/AR100"]] == [*mean_figures(agnostic)]
    for area in ("small", "medium", "large"):
        of_area = match(records, predictions, len(CLASSES), area=area)
        expected = [values[f"bbox/AP{area[0]}"], values[f"bbox/AR{area[0]}"]]
        assert expected == [*mean_figures(of_area)]


def test_a_class_without_objects_or_detections_has_no_curve():
    (matches,) = match([{"image_id": 1, "annotations": []}], [], 1)
    assert precision_recall(matches) is None
    assert matches.hit.shape == (10, 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_weight_is_the_number_of_times_an_image_comes(seed):
    records, predictions = random_set(seed)
    predictions = [p | {"score": 1 / (2 + n)} for n, p in enumerate(predictions)]  # no ties
    weights = np.random.default_rng(seed).integers(0, 4, len(records))
    copies = [(r, n) for r, w in zip(records, weights, strict=True) for n in range(w)]
    many = [r | {"image_id": f"{r['image_id']}-{n}"} for r, n in copies]
    found = [
        p | {"image_id": f"{p['image_id']}-{n}"}
        for r, n in copies
        for p in predictions
        if p["image_id"] == r["image_id"]
    ]
    ours = match(records, predictions, len(CLASSES))
    theirs = match(many, found, len(CLASSES))
    for once, copied in zip(ours, theirs, strict=True):
        curve, expected = precision_recall(once, weights), precision_recall(copied)
        assert (curve is None) == (expected is None)
        for part, of_copies in zip(curve or (), expected or (), strict=True):
            np.testing.assert_allclose(part, of_copies, atol=1e-12)
