"""The best score threshold, precision and recall at any threshold, and calibration of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .average_precision import IOU_50
from .matching import ClassMatches


@dataclass(frozen=True)
class OperatingPoint:
    """What a detector does when only detections of at least `score` are kept.

    Attributes:
        score: the threshold, inclusive.
        precision: from 0 to 1; None where no detection that counts is kept.
        recall: from 0 to 1; None where no object counts.
        f1: 2 TP / (2 TP + false positives + missed objects); None where that is 0 / 0.
    """

    score: float
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Calibration:
    """How far scores are from the share of hits, in equal bins over [0, 1]; 1 is in the last.

    Attributes:
        ece: expected calibration error, from 0 to 1 (the gaps, weighted by count); None where no
            detection counts, or a score is not from 0 to 1.
        count: (bins,) detections.
        mean_score: (bins,); NaN where a bin is empty.
        hit_share: (bins,); NaN where a bin is empty.
    """

    ece: float | None
    count: np.ndarray
    mean_score: np.ndarray
    hit_share: np.ndarray


def f1_optimal(matches: Sequence[ClassMatches]) -> OperatingPoint | None:
    """Return the threshold of the highest F1 over all given classes together, at IoU 0.5.

    Equal scores enter together. Of thresholds with equal F1 the highest is taken. None where no
    object counts or no detection does.
    """
    scores, hit, objects = _countable(matches)
    if not objects or not scores.size:
        return None
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    last = np.append(scores[1:] != scores[:-1], True)
    kept = np.arange(1, scores.size + 1)[last]
    f1 = 2 * np.cumsum(hit[order])[last] / (kept + objects)
    return at_threshold(matches, float(scores[last][np.argmax(f1)]))


def at_threshold(matches: Sequence[ClassMatches], score: float) -> OperatingPoint:
    """Return precision, recall and F1 of all detections that score at least `score`, at IoU 0.5."""
    scores, hit, objects = _countable(matches)
    kept = scores >= score
    true, count = int(hit[kept].sum()), int(kept.sum())
    return OperatingPoint(
        score,
        true / count if count else None,
        true / objects if objects else None,
        2 * true / (count + objects) if count + objects else None,
    )


def calibration(matches: Sequence[ClassMatches], bins: int = 10) -> Calibration:
    """Compare scores with the share of hits at IoU 0.5, over all given classes together.

    Detections that count neither way are left out.

    Source:
        the expected calibration error of Guo et al., arXiv:1706.04599, over detections.
    """
    scores, hit, _ = _countable(matches)
    place = np.clip((scores * bins).astype(np.int64), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    total_score = np.bincount(place, weights=scores, minlength=bins)
    hits = np.bincount(place, weights=hit, minlength=bins)
    is_chance = scores.size and 0 <= scores.min() and scores.max() <= 1
    ece = float(np.abs(total_score - hits).sum() / scores.size) if is_chance else None
    divisor = np.where(count, count, np.nan)
    return Calibration(ece, count, total_score / divisor, hits / divisor)


def _countable(matches: Sequence[ClassMatches]) -> tuple[np.ndarray, np.ndarray, int]:
    """Return scores and hits of the detections that count, and the number of objects."""
    counts = [~one.ignored[IOU_50] for one in matches]
    scores = np.concatenate([one.scores[c] for one, c in zip(matches, counts, strict=True)])
    hit = np.concatenate([one.hit[IOU_50][c] for one, c in zip(matches, counts, strict=True)])
    return scores, hit, int(sum(one.objects.sum() for one in matches))
