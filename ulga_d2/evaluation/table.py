"""Detection figures as a small table for the console."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..errors import printable
from ..terminal import table
from .accumulate import limits_up_to
from .average_precision import DetectionMetrics, shown_name
from .boxes import Prediction, Record

PRECISIONS = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
LABELS = {"by class": "bbox", "class-agnostic": "agnostic", "masks, by class": "segm"}
OTHERS = {
    "threshold": "at the best F1",
    "froc": "sensitivity at false positives an image",
    "errors": "AP50 gained by repairing",
}


def metrics_table(
    metrics: DetectionMetrics,
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    class_names: Sequence[str],
) -> str:
    """Lay out figures in percent; below them, why those shown as "-" are undefined."""
    recalls = [f"AR{limit}" for limit in limits_up_to(metrics.max_detections)]
    parts = [_figures(metrics, PRECISIONS), _figures(metrics, [*recalls, "ARs", "ARm", "ARl"])]
    parts.append(_figures_at_one_iou(metrics))
    if len(class_names) > 1:
        parts.append(_classes(metrics, records, predictions, class_names))
    if metrics.reasons:
        parts.append(_undefined(metrics))
    return "\n\n".join(parts)


def _figures(metrics: DetectionMetrics, figures: Sequence[str]) -> str:
    groups = {name.split("/")[0] for name in metrics.values}
    rows = [
        [label, *(metrics.values.get(f"{group}/{figure}", "") for figure in figures)]
        for label, group in LABELS.items()
        if group in groups
    ]
    shown = [shown_name(figure, metrics.max_detections) for figure in figures]
    return _tabulate(rows, ["percent", *shown])


def _figures_at_one_iou(metrics: DetectionMetrics) -> str:
    """Lay out what `all_metrics` adds, one row a group: names, then values below them."""
    groups: dict[str, dict[str, float | None]] = {}
    for name, value in metrics.values.items():
        group, figure = name.split("/", 1)
        if group not in LABELS.values() and not figure.startswith("num_"):
            groups.setdefault(group, {})[figure] = value
    return "\n\n".join(
        _tabulate([[OTHERS.get(group, group), *figures.values()]], ["IoU 0.5", *figures])
        for group, figures in groups.items()
    )


def _classes(
    metrics: DetectionMetrics,
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    class_names: Sequence[str],
) -> str:
    objects = Counter(box["category_id"] for record in records for box in record["annotations"])
    detections = Counter(prediction["category_id"] for prediction in predictions)
    rows = [
        [name, metrics.values[f"bbox/AP-{name}"], objects[index], detections[index]]
        for index, name in enumerate(class_names)
    ]
    ap = shown_name("AP", metrics.max_detections)
    return _tabulate(rows, ["class", ap, "objects", "detections"])


def _tabulate(rows: list[list[str | float | None]], headers: list[str]) -> str:
    return table(rows, headers, tablefmt="simple", floatfmt=".2f", missingval="-")


def _undefined(metrics: DetectionMetrics) -> str:
    figures: dict[str, list[str]] = {}
    for name, reason in metrics.reasons.items():
        figures.setdefault(reason, []).append(name)
    return "\n".join(
        f"undefined: {reason} ({', '.join(map(printable, n))})" for reason, n in figures.items()
    )
