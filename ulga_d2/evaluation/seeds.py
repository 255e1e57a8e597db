"""What a handful of paired seeds can tell: Student's t, its test, the smallest detectable gap."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

CONFIDENCE, POWER = 0.975, 0.80


def t_share(t: float, freedom: int) -> float:
    """Return the share of Student's distribution that lies below `t`.

    Args:
        t: any number.
        freedom: degrees of freedom, 1 or more.

    Source: the finite sums for whole degrees of freedom, Abramowitz and Stegun (1964), 26.7.3-4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for step in range(2 + odd, freedom, 2):
        term *= (step - 1) / step * cosine * cosine
        total += term
    between = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + between / 2


def t_quantile(share: float, freedom: int) -> float:
    """Return the `t` below which `share` (between 0.5 and 1) of Student's distribution lies."""
    low, high = 0.0, 1.0
    while t_share(high, freedom) < share:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_share(middle, freedom) < share else (low, middle)
    return high


def seed_test(differences: Sequence[float]) -> float | None:
    """Return the two-sided p-value of the paired t-test over seeds; None below two of them.

    It asks whether other seeds would give a difference on these same images.

    Args:
        differences: B less A, one a pair of seeds.
    """
    if len(differences) < 2:
        return None
    deviation = statistics.stdev(differences)
    mean = statistics.fmean(differences)
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    t = abs(mean) / (deviation / math.sqrt(len(differences)))
    return 2 * (1 - t_share(t, len(differences) - 1))


def smallest_detectable(differences: Sequence[float]) -> float | None:
    """Return the true difference that so many seeds would find in four studies of five.

    (t of 0.975 + t of 0.80) * sd / sqrt(n), t with n - 1 degrees of freedom and sd that of the
    paired differences: the usual approximation for a two-sided test at 5 % with a power of 80 %.
    It knows the spread between seeds alone, not the one between images.

    Args:
        differences: B less A, one a pair of seeds; None is returned for less than two.
    """
    if len(differences) < 2:
        return None
    freedom = len(differences) - 1
    factor = t_quantile(CONFIDENCE, freedom) + t_quantile(POWER, freedom)
    return factor * statistics.stdev(differences) / math.sqrt(len(differences))
