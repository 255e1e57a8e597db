"""AP against the measured ambiguity of a study's samples: how each variant bears what is hidden."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from ..evaluation.report.chart import Line, line_chart
from ..evaluation.report.page import render_chart
from ..evaluation.runs import summarise
from ..terminal import table
from .table import Row

FIGURE = "bbox/AP"


def ambiguity_table(rows: Sequence[Row], measured: dict[str, list[float]]) -> str:
    """Return a Markdown table: a line a sample with its d', a column a variant with its AP."""
    lines = _by_variant(rows)
    cells = []
    for data, values in measured.items():
        runs = [lines[name].get(data) for name in lines]
        cells.append([data, f"{statistics.fmean(values):.2f}", f"{np.std(values):.2f}"])
        cells[-1] += [str(len(values)), *(_spread(row) for row in runs)]
    headers = ["data", "mean d'", "its deviation", "objects", *(f"AP {name}" for name in lines)]
    return table(cells, headers, tablefmt="pipe", disable_numparse=True)


def _spread(row: Row | None) -> str:
    summary = summarise([run.figures.get(FIGURE) for run in row.runs] if row else [])
    if summary.mean is None:
        return "–"
    spread = "" if summary.deviation is None else f" ± {summary.deviation:.1f}"
    return f"{summary.mean:.1f}{spread}"


def ambiguity_curve(rows: Sequence[Row], measured: dict[str, list[float]]) -> str | None:
    """Draw the mean AP of each variant over the mean d' of the samples; None without an AP."""
    lines = []
    for name, of_data in _by_variant(rows).items():
        points = []
        for data, row in of_data.items():
            mean = summarise([run.figures.get(FIGURE) for run in row.runs]).mean
            if mean is not None:
                points.append((statistics.fmean(measured[data]), mean))
        lines.append(Line(name, sorted(points)))
    chart = line_chart(
        "AP against ambiguity, mean over seeds", lines, x_label="mean d'", y_label="AP, percent"
    )
    return chart and render_chart(chart)


def _by_variant(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Return the rows by config and variant, then by sample."""
    lines: dict[str, dict[str, Row]] = {}
    for row in rows:
        cell = row.cells[0]
        config = cell.group.removesuffix(cell.data).rstrip("_")
        lines.setdefault("_".join(filter(None, (config, cell.variant))), {})[cell.data] = row
    return lines
