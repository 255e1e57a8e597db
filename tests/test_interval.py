"""Intervals from resamples: percentile by definition, BCa as scipy has it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap
from test_average_precision import CLASSES, random_set

from ulga_d2.evaluation.interval import Interval, bca_interval, jackknife, percentile_interval
from ulga_d2.evaluation.resample import Scorer

NAN = np.nan


def test_the_percentile_interval_is_the_middle_of_the_resamples():
    samples = np.random.default_rng(0).permutation(1001) / 10
    interval = percentile_interval(samples)
    assert interval == Interval(pytest.approx(2.5), pytest.approx(97.5), 0.95, 0)
    ends = percentile_interval(samples, level=0.8)
    assert [ends.low, ends.high, ends.level] == pytest.approx([10, 90, 0.8])


def test_undefined_resamples_are_counted_and_left_out():
    samples = np.array([NAN, *range(101), NAN, NAN], dtype=float)
    interval = percentile_interval(samples)
    assert interval == Interval(pytest.approx(2.5), pytest.approx(97.5), 0.95, 3)
    assert bca_interval(samples, 50.0, np.array([49.0, 51.0, NAN])).undefined == 3


def test_without_a_defined_resample_or_estimate_there_is_no_interval():
    nothing = np.full(20, NAN)
    assert percentile_interval(nothing) is None
    assert bca_interval(nothing, 1.0, np.ones(3)) is None
    assert bca_interval(np.ones(20), NAN, np.ones(3)) is None


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("statistic", [np.mean, np.std, np.median])
def test_bca_is_scipys(seed, statistic):
    data = np.random.default_rng(seed).exponential(size=25)
    level = (0.9, 0.95)[seed % 2]
    theirs = bootstrap(
        (data,), statistic, n_resamples=999, confidence_level=level, method="BCa", rng=seed
    )
    left_out = np.array([statistic(np.delete(data, place)) for place in range(len(data))])
    ours = bca_interval(theirs.bootstrap_distribution, statistic(data), left_out, level)
    expected = theirs.confidence_interval
    assert [ours.low, ours.high] == pytest.approx([expected.low, expected.high], rel=1e-9)


def test_without_bias_or_uneven_pull_bca_is_the_percentile_interval():
    samples = np.arange(101.0)
    even = np.array([49.0, 50.0, 51.0])
    bca, percentile = bca_interval(samples, 50.0, even), percentile_interval(samples)
    assert [bca.low, bca.high] == pytest.approx([percentile.low, percentile.high])
    unmoved = bca_interval(samples, 50.0, np.array([]))  # no cluster can be left out
    assert [unmoved.low, unmoved.high] == pytest.approx([percentile.low, percentile.high])


def test_an_estimate_beyond_all_resamples_still_has_ends_among_them():
    samples = np.arange(100.0)
    for estimate in (-5.0, 500.0):
        interval = bca_interval(samples, estimate, np.array([1.0, 2.0, 4.0]))
        assert 0 <= interval.low <= interval.high <= 99


def test_the_jackknife_is_the_set_without_each_cluster():
    records, predictions = random_set(2)
    clusters = np.array([0, 1, 0, 2, 3, 3, 1, 4])
    figures = jackknife(Scorer.of(records, predictions, CLASSES), clusters)
    assert figures.shape == (5, 4)
    for cluster in range(5):
        kept = [r for r, number in zip(records, clusters, strict=True) if number != cluster]
        ids = {record["image_id"] for record in kept}
        found = [item for item in predictions if item["image_id"] in ids]
        expected = Scorer.of(kept, found, CLASSES).score()
        assert np.array_equal(figures[cluster], expected, equal_nan=True)
