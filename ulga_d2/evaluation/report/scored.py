"""A run's detections, scored once for all sections of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..boxes import Prediction, Record
from ..curves import OperatingPoint, f1_optimal
from ..estimate import Estimate
from ..froc import Froc, froc, match_lesions
from ..interval import Interval
from ..matching import ClassMatches, match

ALL_CLASSES = "all classes"


@dataclass(frozen=True)
class Scored:
    """What the sections show.

    Attributes:
        class_names: by category_id.
        estimate: every figure, with intervals if any were drawn.
        matches: one a class, by COCO's rules.
        froc: by class name, of the classes that have objects, and of all classes if there are
            several; empty without objects.
        best: the threshold of the highest F1 over all classes, or None.
    """

    class_names: Sequence[str]
    estimate: Estimate
    matches: list[ClassMatches]
    froc: dict[str, Froc]
    best: OperatingPoint | None

    @property
    def limit(self) -> int:
        """Return the limit of detections an image."""
        return self.estimate.metrics.max_detections

    @property
    def values(self) -> Mapping[str, float | None]:
        """Return all figures by name."""
        return self.estimate.metrics.values

    def percent(self, name: str) -> str:
        """Return a figure as it is shown, with its interval if it has one."""
        value, interval = self.values.get(name), self.estimate.intervals.get(name)
        return percent(value) + (f" {ends(interval)}" if interval else "")


def score(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    class_names: Sequence[str],
    estimate: Estimate,
    *,
    froc_hit: Literal["iou", "centre"],
) -> Scored:
    """Match the detections and draw up what the sections need."""
    limit = estimate.metrics.max_detections
    matches = match(records, predictions, len(class_names), max_detections=limit)
    shown: dict[str, int | None] = {
        name: number for number, name in enumerate(class_names) if matches[number].objects.any()
    }
    if len(shown) > 1:
        shown[ALL_CLASSES] = None
    curves = {
        name: froc(
            match_lesions(records, predictions, len(class_names), hit=froc_hit, category=number)
        )
        for name, number in shown.items()
    }
    return Scored(class_names, estimate, matches, curves, f1_optimal(matches))


def percent(value: float | None) -> str:
    """Return a figure as it is shown."""
    return "–" if value is None else f"{value:.1f}"


def ends(interval: Interval) -> str:
    """Return an interval as it is shown."""
    return f"[{interval.low:.1f}, {interval.high:.1f}]"
