"""Is B better than A: exchanges and resamples against oracles, and the sentence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from test_average_precision import CLASSES, random_set

from ulga_d2.evaluation.average_precision import detection_metrics
from ulga_d2.evaluation.compare import (
    Difference,
    Plan,
    bootstrap_differences,
    compare,
    exchanged_difference,
    holm,
    permutation_test,
    unwatched,
)
from ulga_d2.evaluation.interval import Interval
from ulga_d2.evaluation.resample import Scorer, pooled
from ulga_d2.evaluation.verdict import Setting, as_text, conclusion


def two_sides(seed: int) -> tuple[list[dict], list[dict], list[dict]]:
    """Return records and two detectors' predictions, without equal scores."""
    records, predictions = random_set(seed)
    rng = np.random.default_rng(seed)
    sides = [
        [p | {"score": float(rng.random())} for p in predictions if rng.random() < share]
        for share in (0.9, 0.5)
    ]
    return records, *sides


def scorers(records: list[dict], *sides: list[dict]) -> list[Scorer]:
    return [Scorer.of(records, side, CLASSES, per_class=True) for side in sides]


def figures(records: list[dict], predictions: list[dict], names: tuple[str, ...]) -> np.ndarray:
    values = detection_metrics(records, predictions, CLASSES).values
    return np.array([values[name] for name in names], dtype=float)


class Flat:
    """A scorer whose one figure does not depend on the images; it keeps the weights it is given."""

    names = ("bbox/AP",)

    def __init__(self, value: float) -> None:
        self.value = value
        self.seen: list[np.ndarray] = []

    def score(self, weights: np.ndarray) -> np.ndarray:
        self.seen.append(weights)
        return np.array([self.value])


# exchanges


@pytest.mark.parametrize("seed", range(10))
def test_an_exchange_is_that_of_the_detections_of_the_images(seed):
    records, a, b = two_sides(seed)
    one, other = scorers(records, a, b)
    exchange = np.random.default_rng(seed).random(len(records)) < 0.5
    moved = {r["image_id"] for r, change in zip(records, exchange, strict=True) if change}
    new_a = [p for p in a if p["image_id"] not in moved] + [p for p in b if p["image_id"] in moved]
    new_b = [p for p in b if p["image_id"] not in moved] + [p for p in a if p["image_id"] in moved]
    expected = figures(records, new_b, one.names) - figures(records, new_a, one.names)
    found = exchanged_difference([pooled(one, other)], exchange)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_p_value_is_the_share_of_all_exchanges_as_extreme_as_the_observed():
    records, _ = random_set(5, crowd=0)
    clusters = np.arange(len(records)) // 2
    whole, partly = perfect(records), perfect(records, missed=1)
    last = {record["image_id"] for record in records[6:]}
    a, b = (
        [p for p in side if p["image_id"] not in last] + [p for p in rest if p["image_id"] in last]
        for side, rest in ((partly, whole), (whole, partly))
    )
    one, other = scorers(records, a, b)
    joined = [pooled(one, other)]
    all_of_them = np.array(
        [
            exchanged_difference(joined, np.array(choice)[clusters])
            for choice in itertools.product([False, True], repeat=4)
        ]
    )
    exact = np.mean(np.abs(all_of_them) >= np.abs(all_of_them[0]) - 1e-9, axis=0)
    found = permutation_test([one], [other], clusters, Plan(permutations=1000))
    defined = ~np.isnan(found)
    assert defined.any()
    np.testing.assert_allclose(found[defined], exact[defined], atol=0.06)
    assert exact[defined].min() < 0.5


# resamples


def test_both_sides_and_all_seeds_see_the_same_whole_clusters():
    clusters = np.array([0, 1, 0, 2, 1, 3])
    a, b = [Flat(1.0), Flat(1.0)], [Flat(2.0), Flat(2.0)]
    gaps = list(bootstrap_differences(a, b, clusters, Plan(bootstrap=50), unwatched))
    np.testing.assert_allclose(gaps, 1.0)
    seen = [np.array(side.seen) for side in (*a, *b)]
    assert sum(len(rows) for rows in seen) == 100  # one pair a resample
    for one, other in ((seen[0], seen[2]), (seen[1], seen[3])):
        np.testing.assert_array_equal(one, other)
    for row in np.concatenate(seen):
        assert row[0] == row[2] and row[1] == row[4]
        assert row[[0, 1, 3, 5]].sum() == 4


@pytest.mark.parametrize("gaps", [(0.0, 2.0), (1.0, 4.0, 5.5, 0.0)])
def test_the_spread_over_seeds_is_that_of_their_mean(gaps):
    a, b = [Flat(0.0) for _ in gaps], [Flat(gap) for gap in gaps]
    plan = Plan(bootstrap=8000)
    drawn = np.array(list(bootstrap_differences(a, b, np.arange(3), plan, unwatched)))
    expected = np.std(gaps, ddof=1) / len(gaps) ** 0.5
    assert drawn.std() == pytest.approx(expected, rel=0.03)
    assert drawn.mean() == pytest.approx(np.mean(gaps), abs=4 * expected / 8000**0.5)


def test_a_detector_is_not_better_than_itself():
    records, a, _ = two_sides(1)
    (one,) = scorers(records, a)
    found = compare([one], [one], np.arange(len(records)), Plan(100, 100))
    for difference in found.values():
        assert difference.winner is None
        assert difference.interval is None or (
            difference.interval.low == 0 == difference.difference
        )
        assert difference.p_value in (None, 1.0)


def perfect(records: list[dict], missed: int = 0) -> list[dict]:
    """Return the truth as detections, without the first object of every image if it is missed."""
    return [
        {
            "image_id": record["image_id"],
            "category_id": box["category_id"],
            "bbox": [*box["bbox"][:2], *np.subtract(box["bbox"][2:], box["bbox"][:2]).tolist()],
            "score": 0.5,
        }
        for record in records
        for box in record["annotations"][missed:]
        if not box["iscrowd"]
    ]


def test_the_better_side_wins_whichever_side_it_is():
    records, _ = random_set(5, num_images=40, crowd=0)
    good, bad = scorers(records, perfect(records), perfect(records, missed=1))
    clusters = np.arange(len(records))
    won = compare([bad], [good], clusters, Plan(200, 200))["bbox/AP"]
    lost = compare([good], [bad], clusters, Plan(200, 200))["bbox/AP"]
    assert (won.winner, lost.winner) == ("B", "A")
    assert won.difference == -lost.difference > 0
    sentences = [conclusion("bbox/AP", one, 40) for one in (won, lost)]
    assert sentences[0].removeprefix("B") == sentences[1].removeprefix("A")


def test_a_class_without_objects_is_undefined_and_not_among_those_corrected_for():
    records, a, b = two_sides(2)
    for record in records:
        record["annotations"] = [o for o in record["annotations"] if o["category_id"] != 1]
    one, other = scorers(records, a, b)
    found = compare([one], [other], np.arange(len(records)), Plan(100, 100))
    missing = found["bbox/AP-meningioma"]
    assert (missing.a, missing.b, missing.interval, missing.p_value) == (None,) * 4
    rest = [found[f"bbox/AP-{name}"] for name in ("glioma", "pituitary")]
    smallest, largest = sorted(rest, key=lambda difference: difference.p_value)
    assert smallest.corrected == pytest.approx(min(1, 2 * smallest.p_value))
    assert largest.corrected == max(largest.p_value, smallest.corrected)
    setting = Setting(("a",), ("b",), "set", 8, "image", 8, "8 images", Plan(100, 100))
    text = as_text(setting, found)
    assert "AP-meningioma is undefined on these 8 images: no object counts" in text
    assert "Holm's method for 2 classes" in text


def test_holm_takes_the_smallest_times_all_and_never_falls():
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03])), [0.06, 0.03, 0.06])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1.0, 1.0])
    assert holm(np.zeros(0)).size == 0


# the sentence


def difference(
    gaps: tuple[float, ...], low: float, high: float, p: float, seed_p: float | None = None
) -> Difference:
    mean = sum(gaps) / len(gaps)
    return Difference(30.0, 30.0 + mean, gaps, Interval(low, high, 0.95, 0), p, None, seed_p, None)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            difference((1.9,), 0.4, 3.3, 0.01),
            "B is better by 1.9 AP [0.4, 3.3] for these two checkpoints",
        ),
        (
            difference((-1.9,), -3.3, -0.4, 0.01),
            "A is better by 1.9 AP [0.4, 3.3] for these two checkpoints",
        ),
        (
            difference((1.0, 2.0, 3.0), 0.4, 3.3, 0.01, 0.04),
            "B is better by 2.0 AP [0.4, 3.3] over 3 pairs of seeds",
        ),
        (
            difference((1.9,), -0.4, 3.3, 0.01),
            "A and B are not distinguishable on 714 images: B's AP differs by +1.9 [-0.4, +3.3], "
            "p = 0.01, for these two checkpoints",
        ),
        (
            difference((1.9,), 0.4, 3.3, 0.07),
            "A and B are not distinguishable on 714 images: B's AP differs by +1.9 [+0.4, +3.3], "
            "p = 0.07, for these two checkpoints",
        ),
        (
            difference((0.0, 4.0), 0.4, 3.3, 0.01, 0.5),
            "A and B are not distinguishable on 714 images: B's AP differs by +2.0 [+0.4, +3.3], "
            "p = 0.5, over 2 pairs of seeds",
        ),
    ],
)
def test_a_side_is_better_only_if_interval_and_every_test_agree(found, sentence):
    assert conclusion("bbox/AP", found, 714) == sentence
