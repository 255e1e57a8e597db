"""All figures of one model on one set, and how far such a set can tell them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import printable
from ..terminal import table
from .average_precision import DetectionMetrics, shown_name
from .boxes import COCO_LIMIT, Prediction, Record
from .froc import LesionMatches, froc, match_lesions
from .interval import LEVEL, Interval, percentile_interval
from .resample import Draws, Scorer, cluster_draws
from .summary import all_metrics, froc_figures

Watch = Callable[[Sequence[np.ndarray], str], Iterable[np.ndarray]]
FEW_CLUSTERS = 60


@dataclass(frozen=True)
class Estimate:
    """Figures with intervals.

    Attributes:
        metrics: every figure, or the reason why it is undefined.
        intervals: of AP, AP50, AP75 and AR100, by class and class-agnostic, of the sizes and of
            each class, of the FROC sensitivities and the image AUC, wherever the figure is
            defined; empty without resamples.
        resamples: how many were drawn.
        clusters: how many there are to draw from.
    """

    metrics: DetectionMetrics
    intervals: Mapping[str, Interval]
    resamples: int
    clusters: int


def estimate(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    class_names: Sequence[str],
    draws: Draws,
    *,
    froc_hit: Literal["iou", "centre"],
    watch: Watch,
    max_detections: int = COCO_LIMIT,
) -> Estimate:
    """Score saved predictions, with 95 % percentile intervals from resampled clusters.

    Args:
        records: ground truth.
        predictions: COCO's result list; masks are scored if each has one.
        class_names: by category_id.
        draws: clusters of images, and how many resamples of them.
        froc_hit: what finds a lesion, as in `froc`.
        watch: yields what it is given, and may tell the user how far that is.
        max_detections: detections of an image that count, as in `all_metrics`.

    Raises:
        UserError: as `detection_metrics`.
    """
    with_masks = bool(predictions) and all("segmentation" in item for item in predictions)
    metrics = all_metrics(
        records,
        predictions,
        class_names,
        froc_hit=froc_hit,
        with_masks=with_masks,
        max_detections=max_detections,
    )
    intervals = {}
    if draws.count:
        scorer = Scorer.of(
            records,
            predictions,
            class_names,
            per_class=True,
            sizes=True,
            agnostic=True,
            max_detections=max_detections,
        )
        lesions = match_lesions(records, predictions, len(class_names), hit=froc_hit)
        rows = cluster_draws(draws.clusters, draws.count, draws.seed)
        found = _intervals(scorer, lesions, watch(rows, "resampling"))
        intervals = {n: one for n, one in found.items() if metrics.values[n] is not None}
    return Estimate(metrics, intervals, draws.count, len(np.unique(draws.clusters)))


def _intervals(
    scorer: Scorer, lesions: LesionMatches, draws: Iterable[np.ndarray]
) -> dict[str, Interval]:
    rows = []
    for weights in draws:
        of_froc = froc_figures(froc(lesions, weights)).values()
        rows.append([*scorer.score(weights), *(np.nan if v is None else v for v in of_froc)])
    names = (*scorer.names, *froc_figures(froc(lesions)))
    found = zip(names, map(percentile_interval, np.array(rows).T), strict=True)
    return {name: interval for name, interval in found if interval is not None}


def estimate_table(estimate: Estimate) -> str:
    """Lay out all figures with their intervals; below, what is undefined and why."""
    rows = []
    for name, value in estimate.metrics.values.items():
        interval = estimate.intervals.get(name)
        ends = interval and f"[{interval.low:.2f}, {interval.high:.2f}]"
        rows.append([shown_name(name, estimate.metrics.max_detections), value, ends])
    headers = ["figure", "value", f"{100 * LEVEL:.0f} % interval"]
    width = len(headers) if estimate.intervals else 2
    lines = [
        table([row[:width] for row in rows], headers[:width], floatfmt=".2f", missingval="-"),
        "",
        *(
            f"{printable(name)} is undefined: {reason}"
            for name, reason in estimate.metrics.reasons.items()
        ),
        *_cautions(estimate),
    ]
    return "\n".join(lines).rstrip()


def _cautions(estimate: Estimate) -> list[str]:
    lines = [
        f"{printable(name)}: {interval.undefined:,} of {estimate.resamples:,} resamples leave it "
        "undefined; its interval is that of the others"
        for name, interval in estimate.intervals.items()
        if interval.undefined
    ]
    if estimate.intervals and estimate.clusters < FEW_CLUSTERS:
        lines.append(
            f"With {estimate.clusters} clusters, fewer than {FEW_CLUSTERS}, such intervals tend to "
            "be too narrow."
        )
    return lines


def estimate_as_dict(estimate: Estimate) -> dict[str, Any]:
    """Return plain data: each figure's value with its interval, or null with the reason."""
    figures: dict[str, dict[str, Any]] = {}
    for name, value in estimate.metrics.values.items():
        figures[name] = {"value": value}
        if value is None:
            figures[name]["reason"] = estimate.metrics.reasons[name]
        interval = estimate.intervals.get(name)
        if interval is not None:
            figures[name]["interval"] = [interval.low, interval.high]
            figures[name]["undefined_resamples"] = interval.undefined
    drawn = {"clusters": estimate.clusters, "resamples": estimate.resamples, "level": LEVEL}
    drawn["max_detections"] = estimate.metrics.max_detections
    return drawn | {"figures": figures}
