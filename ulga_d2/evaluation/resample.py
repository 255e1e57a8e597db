"""AP and AR of thousands of resamples of one set, from one matching.

A resample is a weight an image: how often it was drawn. Matching does not depend on it, so it is
done once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np

from .average_precision import IOU_50, IOU_75
from .boxes import COCO_LIMIT, Prediction, Record
from .matching import ClassMatches, match
from .weighted_curve import WeightedCurve

SIZES = {"s": "small", "m": "medium", "l": "large"}


class Figure(NamedTuple):
    """One figure that is read off the curves of a set of classes.

    Attributes:
        name: such as "bbox/AP50".
        is_recall: AR, else AP.
        iou: place of the one IoU threshold it is taken at; None for the mean over all ten.
        of_class: place of the one class it is of; None for the mean over classes.
    """

    name: str
    is_recall: bool = False
    iou: int | None = None
    of_class: int | None = None


@dataclass(frozen=True)
class Group:
    """The matches of all classes under one area range, and what is wanted of them."""

    figures: tuple[Figure, ...]
    matches: tuple[ClassMatches, ...]

    @cached_property
    def curves(self) -> dict[int, WeightedCurve]:
        """One a class that has objects, by its place: without any it is undefined."""
        return {
            place: WeightedCurve.of(matches)
            for place, matches in enumerate(self.matches)
            if matches.objects.any()
        }

    def score(self, weights: np.ndarray) -> list[float]:
        """Return the figures in percent; NaN where no class has an object."""
        scores = {place: curve.score(weights) for place, curve in self.curves.items()}
        # Axes and order of the means are those of COCOeval's arrays: equal to the last bit.
        defined = {place: score for place, score in scores.items() if score is not None}
        if not defined:
            return [np.nan] * len(self.figures)
        parts = [np.stack(arrays, axis=-1) for arrays in zip(*defined.values(), strict=True)]
        values = []
        for figure in self.figures:
            if figure.of_class is None:
                part = parts[figure.is_recall]
            elif figure.of_class in defined:
                part = defined[figure.of_class][figure.is_recall]
            else:
                values.append(np.nan)
                continue
            part = part if figure.iou is None else part[figure.iou]
            values.append(100 * float(np.mean(part.ravel())))
        return values


@dataclass(frozen=True)
class Scorer:
    """The figures of one set under any weights of its images.

    Attributes:
        groups: matches and what is read off them.
    """

    groups: tuple[Group, ...]

    @classmethod
    def of(
        cls,
        records: Sequence[Record],
        predictions: Sequence[Prediction],
        class_names: Sequence[str],
        *,
        per_class: bool = False,
        sizes: bool = False,
        agnostic: bool = False,
        max_detections: int = COCO_LIMIT,
    ) -> Scorer:
        """Match once; see `detection_metrics` for the arguments, the names and what is raised.

        Args:
            records: ground truth.
            predictions: COCO's result list.
            class_names: by category_id.
            per_class: add "bbox/AP-<class>".
            sizes: add "bbox/APs" to "bbox/APl" and "bbox/ARs" to "bbox/ARl".
            agnostic: add "agnostic/AP", "agnostic/AP50", "agnostic/AP75" and "agnostic/AR100".
            max_detections: the limit of detections an image; "AR100" is called by it, "AR300".
        """
        names = class_names if per_class else ()
        count, limit = len(class_names), max_detections
        of_detector = partial(match, records, predictions, count, max_detections=limit)
        groups = [Group(headline_figures("bbox", names, limit), (*of_detector(),))]
        for letter, area in SIZES.items() if sizes else ():
            figures = (Figure(f"bbox/AP{letter}"), Figure(f"bbox/AR{letter}", is_recall=True))
            groups.append(Group(figures, (*of_detector(area=area),)))
        if agnostic:
            figures = headline_figures("agnostic", max_detections=limit)
            groups.append(Group(figures, (*of_detector(class_agnostic=True),)))
        return cls(tuple(groups))

    @classmethod
    def of_matches(cls, matches: Sequence[ClassMatches], class_names: Sequence[str] = ()) -> Scorer:
        """Score matches that are there already; with class names also "bbox/AP-<class>"."""
        return cls((Group(headline_figures("bbox", class_names), tuple(matches)),))

    @property
    def names(self) -> tuple[str, ...]:
        """The figures' names, in the order of `score`."""
        return tuple(figure.name for group in self.groups for figure in group.figures)

    def score(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Return all figures of a set in which each image counts as often as its weight says.

        They are those of `precision_recall` with the same weights, bit by bit where weights are
        whole numbers, and those of `detection_metrics` where each is 1.

        Args:
            weights: (I,) not below 0, by place of the image in the records; 1 each if left out.

        Returns:
            (F,) in percent; NaN where undefined.
        """
        if weights is None:
            weights = np.ones(len(self.groups[0].matches[0].objects))
        weights = np.asarray(weights, dtype=np.float64)
        return np.array([value for group in self.groups for value in group.score(weights)])

    def scores(self, weights: Iterable[np.ndarray]) -> np.ndarray:
        """Return the figures of many resamples, (B, F), one for each row of weights."""
        rows = [self.score(row) for row in weights]
        return np.array(rows).reshape(len(rows), len(self.names))


def headline_figures(
    prefix: str, class_names: Iterable[str] = (), max_detections: int = COCO_LIMIT
) -> tuple[Figure, ...]:
    """Return AP, AP50, AP75 and AR100 under a prefix, and the AP of each class named."""
    return (
        Figure(f"{prefix}/AP"),
        Figure(f"{prefix}/AP50", iou=IOU_50),
        Figure(f"{prefix}/AP75", iou=IOU_75),
        Figure(f"{prefix}/AR{max_detections}", is_recall=True),
        *(Figure(f"{prefix}/AP-{name}", of_class=row) for row, name in enumerate(class_names)),
    )


@dataclass(frozen=True)
class Draws:
    """What is drawn for intervals.

    Attributes:
        clusters: (I,) as `cluster_numbers` gives them.
        count: of resamples; with 0 there are no intervals.
        seed: of the draws.
    """

    clusters: np.ndarray
    count: int
    seed: int = 0


def cluster_draws(clusters: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw as many clusters as there are, with replacement, `count` times.

    Args:
        clusters: (I,) as `cluster_numbers` gives them.
        count: of resamples, B.
        seed: the first draws of a seed do not depend on how many follow.

    Returns:
        (B, I) how often each image was drawn.
    """
    rng = np.random.default_rng(seed)
    size = int(clusters.max()) + 1
    draws = np.empty((count, len(clusters)), dtype=np.int32)
    for row in draws:
        row[:] = np.bincount(rng.integers(size, size=size), minlength=size)[clusters]
    return draws


def pooled(a: Scorer, b: Scorer) -> Scorer:
    """Join two detectors' matches on one set: image i of `a` stays i, that of `b` becomes I + i.

    With a weight of 1 for one of the two and 0 for the other, each image takes the detections of
    one detector: all that a permutation test needs. Among equal scores those of `a` go first.
    """
    return Scorer(
        tuple(
            Group(one.figures, tuple(map(_merged, one.matches, other.matches)))
            for one, other in zip(a.groups, b.groups, strict=True)
        )
    )


def _merged(a: ClassMatches, b: ClassMatches) -> ClassMatches:
    scores = np.concatenate([a.scores, b.scores])
    order = np.argsort(-scores, kind="stable")
    image = np.concatenate([a.image, b.image + len(a.objects)])
    hit = np.concatenate([a.hit, b.hit], axis=1)
    ignored = np.concatenate([a.ignored, b.ignored], axis=1)
    objects = np.concatenate([a.objects, b.objects])
    best_iou = np.concatenate([a.best_iou, b.best_iou])
    return ClassMatches(
        scores[order], image[order], hit[:, order], ignored[:, order], objects, best_iou[order]
    )
