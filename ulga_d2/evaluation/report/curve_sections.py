"""The sections of a report that draw curves: precision and recall, FROC, calibration, learning."""

from __future__ import annotations

import numpy as np

from ..average_precision import IOU_50
from ..curves import calibration
from ..froc import Froc
from ..matching import RECALL_LEVELS, ClassMatches, precision_recall
from ..runs import Run
from ..summary import FROC_RATES
from .chart import Line, line_chart
from .scored import ALL_CLASSES, Scored, percent
from .section import Section, Table

LOG_GROUPS = {
    "Losses": ("total_loss", "loss_cls", "loss_box_reg"),
    "Figures while training": ("bbox/AP", "bbox/AP50", "bbox/AP75"),
    "Learning rate": ("lr",),
    "Norm of the gradient": ("gradient_norm",),
}
UNITS = {"Losses": "loss", "Figures while training": "percent", "Learning rate": "rate"}


def curves_section(scored: Scored) -> Section:
    """Draw precision over recall by class, and FROC, with its table."""
    pairs = zip(scored.class_names, scored.matches, strict=True)
    recall = {name: _precision_recall(m) for name, m in pairs if m.objects.any()}
    charts = (
        line_chart(
            "Precision and recall",
            [Line(name, points) for name, points in recall.items()],
            x_label="recall",
            y_label="precision",
            x_range=(0, 1),
            y_range=(0, 1),
        ),
        line_chart(
            "FROC",
            [Line(name, _froc_points(curve)) for name, curve in scored.froc.items()],
            x_label="false positives per image",
            y_label="sensitivity",
            x_range=(1 / 8, 8),
            y_range=(0, 1),
            log_x=True,
        ),
    )
    words = (
        "At IoU 0.5 with objects of the same class. Precision is COCO's, interpolated. FROC: a "
        "second detection of a lesion is neither a hit nor a false positive; nothing is "
        "interpolated."
    )
    tables = (_froc_table(scored),) if scored.froc else ()
    return Section("Curves", words, tuple(c for c in charts if c), tables)


def _precision_recall(matches: ClassMatches) -> list[tuple[float, float]]:
    precision, reached = precision_recall(matches)
    kept = RECALL_LEVELS <= reached[IOU_50] + 1e-9
    return list(zip(RECALL_LEVELS[kept].tolist(), precision[IOU_50][kept].tolist(), strict=True))


def _froc_points(curve: Froc) -> list[tuple[float, float]]:
    """Return the curve from 1/8 to 8 false positives per image."""
    return [(float(rate), curve.at(rate)) for rate in 2.0 ** np.linspace(-3, 3, 97)]


def _froc_table(scored: Scored) -> Table:
    names = [*(f"froc/{rate}" for rate in FROC_RATES.values()), "froc/mean", "froc/image_AUC"]
    words = [f"sensitivity at {rate} false positives an image" for rate in FROC_RATES.values()]
    words += ["mean of the seven", "image-level AUC, by the highest score"]
    rows = [(text, scored.percent(name)) for text, name in zip(words, names, strict=True)]
    healthy = scored.values["froc/FP_per_healthy_image"]
    count = "–" if healthy is None else f"{healthy:.2f}"
    rows.append(("false positives per healthy image, at the best F1 (a count)", count))
    return Table((f"FROC, {ALL_CLASSES}", "percent"), tuple(rows))


def calibration_section(scored: Scored) -> Section:
    """Draw the share of hits over the score."""
    found = calibration(scored.matches)
    if found.ece is None:
        return Section("Calibration", "")
    bins = len(found.count)
    used = np.flatnonzero(found.count)
    points = [(float(found.mean_score[n]), float(found.hit_share[n])) for n in used]
    rows = tuple(
        (f"{n / bins:.1f} to {(n + 1) / bins:.1f}", f"{found.count[n]:,}", f"{x:.2f}", f"{y:.2f}")
        for n, (x, y) in zip(used, points, strict=True)
    )
    chart = line_chart(
        "Reliability",
        [Line("detections", points), Line("perfect", [(0, 0), (1, 1)], is_guide=True)],
        x_label="mean score",
        y_label="share of hits",
        x_range=(0, 1),
        y_range=(0, 1),
    )
    words = (
        f"Detections in {bins} bins of their score: the share that hits an object at IoU 0.5. "
        f"Expected calibration error: {percent(100 * found.ece)} %."
    )
    table = Table(("score", "detections", "mean score", "share of hits"), rows)
    return Section("Calibration", words, (chart,), (table,))


def learning_section(run: Run) -> Section:
    """Draw what the run's log has."""
    charts = []
    for title, keys in LOG_GROUPS.items():
        lines = [Line(key, run.curve(key)) for key in keys if len(run.curve(key)) > 1]
        unit = UNITS.get(title, "norm")
        charts.append(line_chart(title, lines, x_label="iteration", y_label=unit))
    words = "From metrics.json of the run folder; figures need two evaluations to make a line."
    return Section("Learning curves", words, tuple(chart for chart in charts if chart))
