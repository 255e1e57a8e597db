"""Thresholds and calibration against counts by hand."""

from __future__ import annotations

import pytest
from test_average_precision import random_set

from ulga_d2.evaluation.curves import at_threshold, calibration, f1_optimal
from ulga_d2.evaluation.matching import match


@pytest.mark.parametrize("block", range(10))
def test_no_other_threshold_has_a_higher_f1_and_the_ece_is_the_mean_gap(block):
    for seed in range(50 * block, 50 * block + 50):
        records, predictions = random_set(seed, num_images=4)
        classes = match(records, predictions, 3)
        rows = [
            (float(s), bool(h))
            for m in classes
            for s, h, out in zip(m.scores, m.hit[0], m.ignored[0], strict=True)
            if not out
        ]
        objects = sum(int(m.objects.sum()) for m in classes)
        best = f1_optimal(classes)
        if not rows or not objects:
            assert best is None
            continue
        f1 = {
            t: 2 * sum(h for s, h in rows if s >= t) / (sum(s >= t for s, _ in rows) + objects)
            for t, _ in rows
        }
        assert best.f1 == max(f1.values())
        assert best.score == max(t for t, value in f1.items() if value == best.f1)
        assert at_threshold(classes, best.score) == best
        bins = [[r for r in rows if min(int(r[0] * 10), 9) == b] for b in range(10)]
        gap = sum(abs(sum(s for s, _ in b) - sum(h for _, h in b)) for b in bins) / len(rows)
        result = calibration(classes)
        assert result.ece == pytest.approx(gap, abs=1e-12)
        assert result.count.tolist() == [len(b) for b in bins]
