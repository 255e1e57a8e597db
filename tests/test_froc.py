"""FROC by brute force: every threshold is judged anew from the boxes that pass it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from test_average_precision import random_set

from ulga_d2.errors import UserError
from ulga_d2.evaluation.froc import FALSE_POSITIVES_PER_IMAGE, Froc, froc, match_lesions


def overlap(a, b, crowd):
    w = min(a[0] + a[2], b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[3]) - max(a[1], b[1])
    inner = max(w, 0) * max(h, 0)
    own = a[2] * a[3]
    return inner / (own if crowd else own + (b[2] - b[0]) * (b[3] - b[1]) - inner)


def hits(a, b, crowd, how):
    x, y = a[0] + a[2] / 2, a[1] + a[3] / 2
    inside = b[0] <= x <= b[2] and b[1] <= y <= b[3]
    return inside if how == "centre" else overlap(a, b, crowd) >= 0.5


def judge(record, detections, how):
    """Return lesions found and false positives of one image."""
    found, false = set(), 0
    for one in sorted(detections, key=lambda d: -d["score"]):
        touched = [
            (overlap(one["bbox"], o["bbox"], o["iscrowd"]), -n, bool(o["iscrowd"]))
            for n, o in enumerate(record["annotations"])
            if o["category_id"] == one["category_id"]
            and hits(one["bbox"], o["bbox"], o["iscrowd"], how)
        ]
        free = [t for t in touched if not t[2] and -t[1] not in found]
        if free:
            found.add(-max(free)[1])
        elif not touched:
            false += 1
    return len(found), false


@pytest.mark.parametrize("how", ["iou", "centre"])
@pytest.mark.parametrize("block", range(10))
def test_the_curve_is_that_of_every_threshold_judged_anew(block, how):
    for seed in range(50 * block, 50 * block + 50):
        records, predictions = random_set(seed, num_images=4)
        curve = froc(match_lesions(records, predictions, 3, hit=how))
        lesions = sum(not o["iscrowd"] for r in records for o in r["annotations"])
        scores = sorted({p["score"] for p in predictions}, reverse=True)
        assert curve.scores.tolist() == scores
        for place, score in enumerate(scores):
            kept = [p for p in predictions if p["score"] >= score]
            judged = [
                judge(r, [p for p in kept if p["image_id"] == r["image_id"]], how) for r in records
            ]
            assert curve.false_positives[place] == sum(f for _, f in judged) / 4
            if lesions:
                assert curve.sensitivity[place] == sum(n for n, _ in judged) / lesions


def test_a_healthy_set_has_false_positives_alone():
    records = [{"image_id": n, "annotations": []} for n in range(2)]
    box = {"image_id": 1, "category_id": 0, "bbox": [0, 0, 9, 9], "score": 0.5}
    curve = froc(match_lesions(records, [box], 1))
    assert curve.sensitivity is curve.image_auc is curve.mean() is None
    assert [curve.per_healthy_image(s) for s in (0.6, 0.5)] == [0.0, 0.5]


def test_between_two_points_the_lower_one_counts_and_beyond_the_last_the_last():
    curve = Froc(np.arange(3), np.array([0.2, 0.5, 0.7]), np.array([0.2, 1.0, 3.0]), None, None)
    assert [curve.at(r) for r in (0.1, 0.2, 0.99, 1.0, 9.0)] == [0.0, 0.2, 0.2, 0.5, 0.7]
    assert FALSE_POSITIVES_PER_IMAGE == (0.125, 0.25, 0.5, 1, 2, 4, 8)
    assert curve.mean() == pytest.approx((0 + 0.2 + 0.2 + 0.5 + 0.5 + 0.7 + 0.7) / 7)


def test_the_image_auc_is_sklearns_over_the_images_best_scores():
    checked = 0
    for seed in range(200):
        records, predictions = random_set(seed, num_images=8)
        matches = match_lesions(records, predictions, 3)
        ill = matches.lesions > 0
        best = [
            max((p["score"] for p in predictions if p["image_id"] == r["image_id"]), default=-1)
            for r in records
        ]
        if ill.all() or not ill.any():
            assert froc(matches).image_auc is None
            continue
        checked += 1
        assert froc(matches).image_auc == pytest.approx(roc_auc_score(ill, best), abs=1e-12)
        weights = np.random.default_rng(seed).integers(0, 3, 8).astype(float)
        weights[[ill.argmax(), (~ill).argmax()]] += 1
        weighted = roc_auc_score(ill, best, sample_weight=weights)
        assert froc(matches, weights).image_auc == pytest.approx(weighted, abs=1e-12)
    assert checked > 50


def test_a_weight_of_two_is_an_image_that_is_there_twice():
    for seed in range(60):
        records, predictions = random_set(seed, num_images=4)
        weights = np.random.default_rng(seed).integers(0, 3, 4)
        copies = [(r, n) for r, w in zip(records, weights, strict=True) for n in range(w)]
        names = {(r["image_id"], n): place for place, (r, n) in enumerate(copies)}
        repeated = [{**r, "image_id": names[r["image_id"], n]} for r, n in copies]
        detections = [
            {**p, "image_id": place}
            for (image, _), place in names.items()
            for p in predictions
            if p["image_id"] == image
        ]
        if not copies:
            continue
        twice = froc(match_lesions(repeated, detections, 3))
        weighted = froc(match_lesions(records, predictions, 3), weights.astype(float))
        for rate in FALSE_POSITIVES_PER_IMAGE:
            assert weighted.at(rate) == twice.at(rate)
        assert weighted.image_auc == pytest.approx(twice.image_auc)
        assert weighted.per_healthy_image(0.3) == twice.per_healthy_image(0.3)


def test_one_class_alone_is_the_set_without_the_others():
    for seed in range(60):
        records, predictions = random_set(seed, num_images=4)
        alone = [
            {**r, "annotations": [b for b in r["annotations"] if b["category_id"] == 1]}
            for r in records
        ]
        of_one = [p for p in predictions if p["category_id"] == 1]
        ours = froc(match_lesions(records, predictions, 3, category=1))
        theirs = froc(match_lesions(alone, of_one, 3))
        assert ours.scores.tolist() == theirs.scores.tolist()
        assert ours.mean() == theirs.mean() and ours.image_auc == theirs.image_auc


def test_labels_and_detections_of_no_class_are_refused():
    records = [{"image_id": 0, "annotations": []}]
    box = {"image_id": 0, "category_id": 5, "bbox": [0, 0, 9, 9], "score": 0.5}
    with pytest.raises(UserError, match="category"):
        match_lesions(records, [box], 1)
