"""Confidence intervals from resamples: percentile and BCa.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 13 and 14.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from .resample import Scorer

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """Where a figure lies, as far as so many images can tell.

    Attributes:
        low: the lower end.
        high: the upper end.
        level: share of studies whose interval should hold the true figure.
        undefined: resamples that left the figure undefined, and so are not in the interval.
    """

    low: float
    high: float
    level: float
    undefined: int


def percentile_interval(samples: np.ndarray, level: float = LEVEL) -> Interval | None:
    """Return the middle `level` of the resampled figures; None where none is defined.

    Args:
        samples: (B,) one figure over resamples, NaN where undefined.
        level: between 0 and 1.
    """
    tail = (1 - level) / 2
    return _between(samples, tail, 1 - tail, level)


def bca_interval(
    samples: np.ndarray, estimate: float, left_out: np.ndarray, level: float = LEVEL
) -> Interval | None:
    """Return the bias-corrected and accelerated interval; None where nothing is defined.

    The percentiles move by the share of resamples below the estimate (a resample equal to it counts
    half: ours) and by how unevenly single clusters pull on the figure.

    Args:
        samples: (B,) one figure over resamples, NaN where undefined.
        estimate: the figure of the whole set.
        left_out: (G,) the figure without each cluster, see `jackknife`; NaN where undefined.
        level: between 0 and 1.
    """
    defined = samples[~np.isnan(samples)]
    if math.isnan(estimate) or not defined.size:
        return None
    normal = NormalDist()
    below = np.mean(defined < estimate) + np.mean(defined == estimate) / 2
    least = 0.5 / defined.size  # no share of 0 or 1, whose normal quantile is infinite
    bias = normal.inv_cdf(min(max(float(below), least), 1 - least))
    acceleration = _acceleration(left_out[~np.isnan(left_out)])
    shares = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + normal.inv_cdf(share)
        shares.append(normal.cdf(bias + shifted / (1 - acceleration * shifted)))
    return _between(samples, *shares, level)


def jackknife(scorer: Scorer, clusters: np.ndarray) -> np.ndarray:
    """Return the figures of the set without each of its clusters in turn, (G, F)."""
    return scorer.scores(clusters != cluster for cluster in range(int(clusters.max()) + 1))


def _acceleration(left_out: np.ndarray) -> float:
    if not left_out.size:
        return 0.0
    pull = left_out.mean() - left_out
    spread = float(np.sum(pull**2)) ** 1.5
    return float(np.sum(pull**3)) / (6 * spread) if spread else 0.0


def _between(samples: np.ndarray, low: float, high: float, level: float) -> Interval | None:
    defined = samples[~np.isnan(samples)]
    if not defined.size:
        return None
    ends: Sequence[float] = np.quantile(defined, [low, high]).tolist()
    return Interval(*ends, level, samples.size - defined.size)
