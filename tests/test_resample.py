"""The quick kernel of resampling: to the last bit the plain curve under the same weights."""

from __future__ import annotations

import time

import numpy as np
import pytest
from test_average_precision import CLASSES, random_set

from ulga_d2.evaluation.average_precision import detection_metrics
from ulga_d2.evaluation.matching import IOU_THRESHOLDS, ClassMatches, match, precision_recall
from ulga_d2.evaluation.resample import Scorer, cluster_draws, pooled

EVERYTHING = {"per_class": True, "sizes": True, "agnostic": True}


def same(figures, expected):
    """Whether numbers are equal to the last bit and NaN stands in the same places."""
    return np.array_equal(figures, expected, equal_nan=True)


def plain_figures(matches, weights):
    """AP, AP50, AP75, AR100 and each class's AP, from the plain curve."""
    curves = [precision_recall(one, weights) for one in matches]
    defined = [curve for curve in curves if curve is not None]
    if not defined:
        return np.full(4 + len(matches), np.nan)
    curve, recall = (np.stack(arrays, axis=-1) for arrays in zip(*defined, strict=True))
    parts = [curve, curve[0], curve[5], recall]
    parts += [np.nan if one is None else one[0] for one in curves]
    return np.array([100 * np.mean(np.ravel(part)) for part in parts])


@pytest.mark.parametrize("seed", range(40))
def test_with_weights_of_1_the_figures_are_the_metrics_to_the_last_bit(seed):
    sparse = {"max_objects": 1, "classes": 2} if seed % 3 == 0 else {}
    records, predictions = random_set(seed, crowd=0.3 * (seed % 2), **sparse)
    scorer = Scorer.of(records, predictions, CLASSES, **EVERYTHING)
    values = detection_metrics(records, predictions, CLASSES).values
    expected = [np.nan if values[name] is None else values[name] for name in scorer.names]
    assert len(expected) == 17
    assert same(scorer.score(), expected)
    assert same(scorer.score(np.ones(len(records))), expected)


@pytest.mark.parametrize("area", ["all", "small", "large"])
@pytest.mark.parametrize("seed", range(12))
def test_with_whole_weights_the_figures_are_the_plain_curves_to_the_last_bit(seed, area):
    records, predictions = random_set(seed, crowd=0.2)
    matches = match(records, predictions, len(CLASSES), area=area)
    scorer = Scorer.of_matches(matches, CLASSES)
    rng = np.random.default_rng(seed)
    for weights in rng.integers(0, 1 + rng.integers(1, 5, (8, 1)), (8, len(records))):
        assert same(scorer.score(weights), plain_figures(matches, weights))


def test_any_other_weights_give_the_plain_curves_but_for_rounding():
    records, predictions = random_set(5)
    matches = match(records, predictions, len(CLASSES))
    weights = np.random.default_rng(0).random(len(records))
    figures = Scorer.of_matches(matches, CLASSES).score(weights)
    np.testing.assert_allclose(figures, plain_figures(matches, weights), rtol=1e-6)


def test_a_class_without_a_drawn_object_is_undefined_and_leaves_the_mean():
    box = {"bbox": [0, 0, 50, 50], "bbox_mode": 1}
    records = [
        {"image_id": number, "annotations": [box | {"category_id": number}]} for number in (0, 1)
    ]
    found = {"image_id": 0, "category_id": 0, "bbox": [0, 0, 50, 50], "score": 0.5}
    scorer = Scorer.of(records, [found], ["a", "b"], per_class=True)
    figures = dict(zip(scorer.names, scorer.score(np.array([2, 0])), strict=True))
    assert figures["bbox/AP"] == figures["bbox/AP-a"] == pytest.approx(100)
    assert np.isnan(figures["bbox/AP-b"])
    assert np.isnan(scorer.score(np.zeros(2))).all()
    assert scorer.score()[0] == pytest.approx(50)


def test_scores_are_the_score_of_each_row():
    records, predictions = random_set(3)
    scorer = Scorer.of(records, predictions, CLASSES)
    draws = cluster_draws(np.arange(len(records)), 5, seed=0)
    assert same(scorer.scores(draws), [scorer.score(row) for row in draws])
    assert scorer.scores([]).shape == (0, 4)


# two detectors


def two_detectors(seed):
    """One set and two prediction lists, no score twice."""
    records, a = random_set(seed)
    rng = np.random.default_rng(seed)
    b = [item | {"bbox": [item["bbox"][0] + 5, *item["bbox"][1:]]} for item in a[::2]]
    scores = rng.permutation(len(a) + len(b)) / 1000 + 0.001
    a = [item | {"score": score} for item, score in zip(a, scores[: len(a)], strict=True)]
    b = [item | {"score": score} for item, score in zip(b, scores[len(a) :], strict=True)]
    return records, a, b


@pytest.mark.parametrize("seed", range(10))
def test_pooled_weights_choose_a_detector_for_each_image(seed):
    records, a, b = two_detectors(seed)
    scorers = [Scorer.of(records, side, CLASSES, **EVERYTHING) for side in (a, b)]
    both = pooled(*scorers)
    assert both.names == scorers[0].names
    for choice in np.random.default_rng(seed).integers(0, 2, (4, len(records))):
        chosen = dict(zip((record["image_id"] for record in records), choice, strict=True))
        mixed = [item for item in a if not chosen[item["image_id"]]]
        mixed += [item for item in b if chosen[item["image_id"]]]
        expected = Scorer.of(records, mixed, CLASSES, **EVERYTHING).score()
        assert same(both.score(np.concatenate([1 - choice, choice])), expected)


@pytest.mark.parametrize("seed", range(10))
def test_one_side_of_a_pool_is_that_side_even_with_equal_scores(seed):
    records, a = random_set(seed)
    b = [item | {"category_id": 0} for item in a]
    sides = [Scorer.of(records, side, CLASSES, **EVERYTHING) for side in (a, b)]
    one, none = np.ones(len(records)), np.zeros(len(records))
    both = pooled(*sides)
    assert same(both.score(np.concatenate([one, none])), sides[0].score())
    assert same(both.score(np.concatenate([none, one])), sides[1].score())


# draws


def test_as_many_clusters_are_drawn_as_there_are_and_their_images_together():
    clusters = np.array([0, 1, 0, 2, 1, 0, 3])
    draws = cluster_draws(clusters, 2000, seed=1)
    assert draws.shape == (2000, 7)
    first = draws[:, [0, 1, 3, 6]]
    assert (first.sum(axis=1) == 4).all()
    assert (draws == first[:, clusters]).all()
    assert len(np.unique(first, axis=0)) == 35  # all ways to draw 4 of 4


def test_every_cluster_comes_once_on_average():
    draws = cluster_draws(np.arange(20), 5000, seed=0)
    deviation = np.sqrt(0.95 / 5000)  # of the mean of a binomial of 20 draws
    assert np.abs(draws.mean(axis=0) - 1).max() < 5 * deviation
    assert draws.var(axis=0).mean() == pytest.approx(0.95, abs=0.03)


def test_the_first_draws_of_a_seed_stay_when_more_follow():
    clusters = np.arange(9)
    many = cluster_draws(clusters, 50, seed=3)
    assert (cluster_draws(clusters, 10, seed=3) == many[:10]).all()
    assert (cluster_draws(clusters, 50, seed=4) != many).any()


# speed


def large_set(rng, images, detections, classes):
    """Matches of many images with 7 objects each, as a good detector would give them."""
    found = []
    for _ in range(classes):
        objects = rng.poisson(7 / classes, images)
        image = np.sort(rng.integers(0, images, images * detections // classes))
        rank = np.arange(len(image)) - np.searchsorted(image, image)
        iou = np.where(rank < objects[image], rng.uniform(0.4, 1, len(image)), 0)
        scores = 2 * iou + rng.normal(size=len(image))
        order = np.argsort(-scores)
        hit = iou[order] >= IOU_THRESHOLDS[:, None]
        none = np.zeros_like(hit)
        found.append(ClassMatches(scores[order], image[order], hit, none, objects, iou[order]))
    return found


@pytest.mark.slow
def test_2000_resamples_of_5000_images_with_100_detections_take_less_than_a_minute():
    rng = np.random.default_rng(0)
    scorer = Scorer.of_matches(large_set(rng, 5000, 100, 10))
    draws = cluster_draws(np.arange(5000), 101, seed=0)
    scorer.score(draws[0])
    start = time.perf_counter()
    scorer.scores(draws[1:])
    assert 20 * (time.perf_counter() - start) < 60
