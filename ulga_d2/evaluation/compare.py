"""Is B better than A? Both sides resampled together, over the same clusters of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .interval import Interval, percentile_interval
from .resample import Scorer, cluster_draws, pooled
from .seeds import seed_test, smallest_detectable

LEVEL = 0.05
# Two arrangements that differ by the rounding of a sum are equally extreme.
ROUNDING = 1e-9
Watch = Callable[[Sequence[int], str], Iterable[int]]


def unwatched(items: Sequence[int], what: str) -> Iterable[int]:
    """Return the items; in its place a caller may give a function that also shows how far it is."""
    return items


@dataclass(frozen=True)
class Plan:
    """How much is drawn.

    Attributes:
        bootstrap: resamples of the clusters.
        permutations: random exchanges of the two sides.
        seed: of all that is drawn.
    """

    bootstrap: int = 2000
    permutations: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Difference:
    """One figure of both sides, in percent; None where the ground truth leaves it undefined.

    Attributes:
        a: of side A, the mean over its seeds.
        b: of side B.
        by_seed: B less A of each pair of seeds.
        interval: 95 %, of b - a.
        p_value: of the permutation test: are these checkpoints alike on such images?
        corrected: `p_value` by Holm's method for as many classes as are tested; None for figures
            that are not of one class.
        seed_p: of the t-test over pairs of seeds; None with one pair.
        detectable: the smallest difference that so many pairs could have found; None with one.
    """

    a: float | None
    b: float | None
    by_seed: tuple[float, ...]
    interval: Interval | None
    p_value: float | None
    corrected: float | None
    seed_p: float | None
    detectable: float | None

    @property
    def difference(self) -> float | None:
        """B less A."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def decisive(self) -> float | None:
        """The largest of the p-values that have to be small: corrected, and over seeds."""
        tests = (self.p_value if self.corrected is None else self.corrected, self.seed_p)
        return max((p for p in tests if p is not None), default=None)

    @property
    def winner(self) -> str | None:
        """The better side, "A" or "B", if the interval and every test say so at 5 %."""
        if self.interval is None or self.decisive is None or self.decisive > LEVEL:
            return None
        if self.interval.low <= 0 <= self.interval.high:
            return None
        return "B" if self.interval.low > 0 else "A"


def compare(
    a: Sequence[Scorer],
    b: Sequence[Scorer],
    clusters: np.ndarray,
    plan: Plan,
    watch: Watch = unwatched,
) -> dict[str, Difference]:
    """Compare two sides on the same images, figure by figure.

    Args:
        a: side A, one scorer a seed.
        b: side B, as many; seeds are paired by their order.
        clusters: (I,) as `cluster_numbers` gives them.
        plan: how much to draw.
        watch: goes through the numbers of the draws, and may show how far it is.
    """
    sides = [np.array([one.score(None) for one in side]) for side in (a, b)]
    by_seed = sides[1] - sides[0]
    drawn = np.array(list(bootstrap_differences(a, b, clusters, plan, watch)))
    p_values = permutation_test(a, b, clusters, plan, watch)
    names = a[0].names
    classes = [i for i, name in enumerate(names) if is_of_class(name) and p_values[i] >= 0]
    corrected = np.full(len(names), np.nan)
    corrected[classes] = holm(p_values[classes])
    found = {}
    for place, name in enumerate(names):
        gaps = tuple(by_seed[:, place].tolist())
        defined = not np.isnan(gaps).any()
        found[name] = Difference(
            *(_number(side[:, place].mean()) for side in sides),
            by_seed=gaps if defined else (),
            interval=percentile_interval(drawn[:, place]) if defined else None,
            p_value=_number(p_values[place]),
            corrected=_number(corrected[place]),
            seed_p=seed_test(gaps) if defined else None,
            detectable=smallest_detectable(gaps) if defined else None,
        )
    return found


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def is_of_class(name: str) -> bool:
    """Tell whether a figure is one class's, such as "bbox/AP-glioma"."""
    return name.startswith("bbox/AP-")


def bootstrap_differences(
    a: Sequence[Scorer], b: Sequence[Scorer], clusters: np.ndarray, plan: Plan, watch: Watch
) -> Iterator[np.ndarray]:
    """Yield B less A (F,) of each resample: both sides see the same clusters as often.

    With several seeds the pairs are drawn too, n - 1 of n with replacement, which gives the mean
    its spread of sd / sqrt(n) (n of n would give too little, by the root of (n - 1) / n); all of
    them see the same clusters, for in life too they share one test set.

    Source: drawing n - 1 of n: Rao and Wu, J. Am. Stat. Assoc. 83 (1988); the two crossed levels:
    Owen, Ann. Appl. Stat. 1 (2007).
    """
    drawn = max(len(a) - 1, 1)
    generator = np.random.default_rng([plan.seed, 1])
    shares = generator.multinomial(drawn, np.full(len(a), 1 / len(a)), plan.bootstrap) / drawn
    weights = cluster_draws(clusters, plan.bootstrap, plan.seed)
    for draw in watch(range(plan.bootstrap), "resamples"):
        share, weight = shares[draw], weights[draw]
        pairs = np.flatnonzero(share)
        gaps = [share[pair] * (b[pair].score(weight) - a[pair].score(weight)) for pair in pairs]
        yield np.sum(gaps, axis=0)


def permutation_test(
    a: Sequence[Scorer],
    b: Sequence[Scorer],
    clusters: np.ndarray,
    plan: Plan,
    watch: Watch = unwatched,
) -> np.ndarray:
    """Return two-sided p-values (F,); NaN where a figure is undefined.

    If A and B were alike, it would be chance which of them found what. So the sides' detections
    are exchanged, cluster by cluster with a probability of one half (in all pairs of seeds at
    once), and p = (1 + exchanges with a difference as large as the observed) / (1 + exchanges).

    Source: Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010), for the ones.
    """
    joined = [pooled(*pair) for pair in zip(a, b, strict=True)]
    observed = exchanged_difference(joined, np.zeros(len(clusters), dtype=bool))
    generator = np.random.default_rng([plan.seed, 2])
    extreme = np.zeros(len(observed))
    for _ in watch(range(plan.permutations), "exchanges"):
        exchange = generator.random(int(clusters.max()) + 1) < 0.5
        gap = exchanged_difference(joined, exchange[clusters])
        extreme += np.abs(gap) >= np.abs(observed) - ROUNDING
    p_values = (1 + extreme) / (1 + plan.permutations)
    return np.where(np.isnan(observed), np.nan, p_values)


def exchanged_difference(joined: Sequence[Scorer], exchange: np.ndarray) -> np.ndarray:
    """Return B less A (F,), the mean over pairs of seeds, with some images' sides exchanged.

    Args:
        joined: of each pair of seeds, A's images and then B's.
        exchange: (I,) the images whose detections change sides.
    """
    of_a = np.concatenate([~exchange, exchange]).astype(float)
    return np.mean([pair.score(1 - of_a) - pair.score(of_a) for pair in joined], axis=0)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values corrected for their number by Holm's step-down method.

    Source: Holm, Scand. J. Stat. 6 (1979).
    """
    order = np.argsort(p_values, kind="stable")
    left = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * left), 1)
    return corrected
