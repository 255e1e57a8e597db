"""Studies drawn from a known population of patients, to see whether intervals and tests hold.

Matches are drawn directly, without boxes: a patient has one to six images and a difficulty that all
of them share, so images of one patient are alike, and an interval that took each image for itself
would be too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ulga_d2.evaluation.compare import Plan, permutation_test
from ulga_d2.evaluation.interval import bca_interval, jackknife, percentile_interval
from ulga_d2.evaluation.matching import IOU_THRESHOLDS, ClassMatches
from ulga_d2.evaluation.resample import Scorer, cluster_draws


@dataclass(frozen=True)
class Patients:
    """The images and objects of a study, before any detector has seen them.

    Shape:
        I images, N objects.

    Attributes:
        clusters: (I,) the patient of each image.
        clarity: (I,) how easily its objects are found; one value a patient.
        clutter: (I,) how much in it looks like an object; one value a patient.
        objects: (I,) how many there are.
        ease: (N,) of each object by itself.
    """

    clusters: np.ndarray
    clarity: np.ndarray
    clutter: np.ndarray
    objects: np.ndarray
    ease: np.ndarray = field(repr=False)


def draw_patients(rng: np.random.Generator, count: int) -> Patients:
    """Draw `count` patients with one to six images each."""
    clusters = np.repeat(np.arange(count), rng.integers(1, 7, count))
    clarity, clutter = rng.normal(size=(2, count))[:, clusters]
    objects = rng.choice([0, 1, 1, 2], len(clusters))
    return Patients(clusters, clarity, clutter, objects, rng.normal(size=objects.sum()))


def detect(rng: np.random.Generator, patients: Patients, skill: float = 0.0) -> ClassMatches:
    """Return what a detector finds; its noise is its own, the difficulties are the patients'.

    Args:
        rng: the detector's own chance.
        patients: the study.
        skill: 0 for the detector of the population; more finds more, and more exactly.
    """
    images = np.arange(len(patients.objects))
    place = np.repeat(images, patients.objects)
    ease = 0.8 * patients.clarity[place] + 0.6 * patients.ease + skill
    found = ease + rng.normal(size=len(place)) > -1.2
    iou = np.clip(0.72 + 0.07 * ease + 0.1 * rng.normal(size=len(place)), 0, 1)[found]
    rate = np.exp(0.3 + 0.5 * patients.clutter)
    false = np.repeat(images, rng.poisson(rate))
    logit = np.concatenate(
        [0.8 + 0.7 * ease[found] + 4 * (iou - 0.72), 0.5 * patients.clutter[false] - 1.0]
    )
    scores = logit + 0.8 * rng.normal(size=len(logit))
    order = np.argsort(-scores, kind="stable")
    best_iou = np.concatenate([iou, np.zeros(len(false))])[order]
    hit = best_iou >= IOU_THRESHOLDS[:, None]
    image = np.concatenate([place[found], false])[order]
    ignored = np.zeros_like(hit)
    return ClassMatches(scores[order], image, hit, ignored, patients.objects, best_iou)


def truth() -> np.ndarray:
    """Return the figures of so many patients that chance no longer moves them."""
    rng = np.random.default_rng(0)
    return Scorer.of_matches([detect(rng, draw_patients(rng, 60_000))]).score()


def interval_study(
    seed: int, patients: int, draws: int, *, images_apart: bool = False
) -> dict[str, np.ndarray]:
    """Run a study of one detector; return the ends of its intervals, (F, 2), by method.

    With `images_apart` no notice is taken of patients: images are drawn one by one.
    """
    rng = np.random.default_rng([seed, patients])
    study = draw_patients(rng, patients)
    scorer = Scorer.of_matches([detect(rng, study)])
    clusters = np.arange(len(study.clusters)) if images_apart else study.clusters
    drawn = scorer.scores(cluster_draws(clusters, draws, seed))
    columns = range(len(scorer.names))
    found = {"percentile": [percentile_interval(drawn[:, n]) for n in columns]}
    if not images_apart:
        figures, left_out = scorer.score(), jackknife(scorer, clusters)
        found["BCa"] = [bca_interval(drawn[:, n], figures[n], left_out[:, n]) for n in columns]
    return {how: np.array([(x.low, x.high) for x in ends]) for how, ends in found.items()}


def coverage(studies: list[dict[str, np.ndarray]], true: np.ndarray) -> dict[str, np.ndarray]:
    """Return by method the percentage of studies whose interval holds the truth, (F,)."""
    inside = {
        how: [(one[how][:, 0] <= true) & (true <= one[how][:, 1]) for one in studies]
        for how in studies[0]
    }
    return {how: 100 * np.mean(rows, axis=0) for how, rows in inside.items()}


def null_study(seed: int, patients: int, exchanges: int) -> np.ndarray:
    """Compare two detectors of equal skill; return the test's p-values (F,)."""
    rng = np.random.default_rng([seed, patients, 1])
    study = draw_patients(rng, patients)
    a, b = (Scorer.of_matches([detect(rng, study)]) for _ in range(2))
    return permutation_test([a], [b], study.clusters, Plan(permutations=exchanges, seed=seed))
