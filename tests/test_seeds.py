"""What paired seeds can tell, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ulga_d2.evaluation.seeds import seed_test, smallest_detectable, t_quantile, t_share


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30])
def test_students_distribution_is_scipys(freedom):
    for t in (-4.0, -0.3, 0.0, 1.0, 12.7):
        assert t_share(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), abs=1e-12)
    for share in (0.6, 0.8, 0.975):
        assert t_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-9)


@pytest.mark.parametrize("gaps", [(0.5, 1.5), (1.0, -0.4, 0.2, 2.2, 0.9)])
def test_the_test_over_seeds_is_scipys_and_the_smallest_difference_has_its_power(gaps):
    assert seed_test(gaps) == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)
    n, error = len(gaps), np.std(gaps, ddof=1) / len(gaps) ** 0.5
    expected = (stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1)) * error
    assert smallest_detectable(gaps) == pytest.approx(expected)


def test_one_seed_tells_nothing_about_others():
    assert seed_test([1.0]) is None
    assert smallest_detectable([1.0]) is None
    assert seed_test([0.0, 0.0]) == 1.0
