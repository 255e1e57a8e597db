"""The tables and the picture of a study: figures, costs, comparisons with the reference."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from detectron2.modeling import build_model

from .. import get_cfg
from ..analysis.complexity import cost_by_part
from ..config import merge_config
from ..engine.datasets import load_run_data
from ..evaluation.average_precision import headline
from ..evaluation.clusters import cluster_numbers, default_clusters
from ..evaluation.compare import Difference, Plan, Watch, compare
from ..evaluation.report.chart import Line, line_chart
from ..evaluation.report.page import render_chart
from ..evaluation.resample import Scorer
from ..evaluation.runs import Run, limits_of, read_run, summarise
from ..evaluation.saved import read_results
from ..evaluation.verdict import conclusion
from ..terminal import table
from .execute import Execution
from .plan import Cell

NOT_COMPARED = "bbox/AP50"  # of the headline metrics


@dataclass(frozen=True)
class Row:
    """What the seeds of one variant gave."""

    name: str
    cells: tuple[Cell, ...]
    runs: tuple[Run, ...]


def finished_rows(execution: Execution) -> list[Row]:
    """Return the rows of a study with their finished cells; those with none are left out."""
    rows = []
    for name, cells in execution.study.rows().items():
        done = tuple(cell for cell in cells if execution.is_done(cell))
        runs = tuple(read_run(execution.folder(cell)) for cell in done)
        if done:
            rows.append(Row(name, done, runs))
    return rows


def figures_table(rows: Sequence[Row]) -> str:
    """Return a Markdown table: mean and standard deviation over seeds, and what it cost.

    Where variants differ in the limit of detections an image, each limit has its own columns.
    """
    limits = limits_of(run for row in rows for run in row.runs)
    titles = [(limit, *pair) for limit in limits for pair in headline(limit).items()]
    cells = [
        [
            row.name,
            len(row.runs),
            *(
                _spread([run.figures.get(name) for run in row.runs if run.max_detections == limit])
                for limit, name, _ in titles
            ),
            *_costs(row),
        ]
        for row in rows
    ]
    costs = ["M parameters", "GFLOP", "s / iteration", "peak MiB"]
    headers = ["variant", "seeds", *(title for *_, title in titles), *costs]
    return table(cells, headers, tablefmt="pipe", disable_numparse=True)


def _spread(values: Sequence[float | None]) -> str:
    summary = summarise(values)
    if summary.mean is None:
        return "undefined"
    spread = "" if summary.deviation is None else f" ± {summary.deviation:.1f}"
    return f"{summary.mean:.1f}{spread}"


def _costs(row: Row) -> list[str]:
    """Return parameters, arithmetic of an image, time and memory, of the row's first run."""
    cfg = get_cfg()
    merge_config(cfg, str(row.runs[0].folder / "config.yaml"), ["MODEL.DEVICE", "meta"])
    side = cfg.INPUT.SQUARE_SIZE
    with torch.device("meta"):
        costs = cost_by_part(build_model(cfg), (1, 3, side, side)).values()
    parameters, flops = sum(one.parameters for one in costs), sum(one.flops for one in costs)
    times = [seconds for run in row.runs for _, seconds in run.curve("time")]
    peaks = [peak for run in row.runs for peak in _peaks(run.folder / "log.txt")]
    return [
        f"{parameters / 1e6:.2f}",
        f"{flops / 1e9:.2f}",
        f"{statistics.median(times):.3f}" if times else "–",
        f"{max(peaks)}" if peaks else "–",
    ]


def _peaks(log: Path) -> list[int]:
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return [int(number) for number in re.findall(r"peak memory (\d+) MiB", text)]


def comparisons(execution: Execution, rows: Sequence[Row], plan: Plan, watch: Watch) -> str:
    """Compare the variants with each reference of their group, pairing equal seeds; as Markdown."""
    references = execution.study.references
    tables = []
    for number, reference in enumerate(references):
        bases = {row.cells[0].group: row for row in rows if row.cells[0].variant == reference}
        compared_before = references[: number + 1]
        pairs = [
            (bases[row.cells[0].group], row)
            for row in rows
            if row.cells[0].group in bases and row.cells[0].variant not in compared_before
        ]
        if pairs:
            tables.append(_comparison(execution, pairs, plan, watch))
    return "\n\n".join(tables)


def _comparison(
    execution: Execution, pairs: Sequence[tuple[Row, Row]], plan: Plan, watch: Watch
) -> str:
    """Compare rows with the reference of their group, the same variant in all pairs."""
    reference = pairs[0][0].cells[0].variant
    lines, cells = [], []
    for base, row in pairs:
        limit = max(limits_of([*base.runs, *row.runs]))
        found, images = _compared(execution, base, row, limit, plan, watch)
        for name, title in headline(limit).items():
            if name != NOT_COMPARED:
                cells.append([row.name, title, *_differences(found[name])])
        lines.append(f"- {row.name}: {conclusion('bbox/AP', found['bbox/AP'], images, limit)}.")
    headers = ["variant", f"less {reference}", "difference", "95 % interval", "p, these"]
    headers += ["p, other seeds", "detectable"]
    laid_out = table(cells, headers, tablefmt="pipe", disable_numparse=True)
    told = "\n".join(lines).replace("A and B", f"it and {reference}")
    return f"{laid_out}\n\nA is {reference}, B the variant.\n\n{told}"


def _differences(one: Difference) -> list[str]:
    if one.difference is None or one.interval is None:
        return ["undefined", "–", "–", "–", "–"]
    return [
        f"{one.difference:+.1f}",
        f"[{one.interval.low:+.1f}, {one.interval.high:+.1f}]",
        f"{one.p_value:.2g}",
        "–" if one.seed_p is None else f"{one.seed_p:.2g}",
        "–" if one.detectable is None else f"{one.detectable:.1f}",
    ]


def _compared(
    execution: Execution, base: Row, row: Row, limit: int, plan: Plan, watch: Watch
) -> tuple[Mapping[str, Difference], int]:
    seeds = {cell.seed for cell in base.cells} & {cell.seed for cell in row.cells}
    with data_root(execution, row.cells[0]):
        cfg = get_cfg()
        merge_config(cfg, str(row.runs[0].folder / "config.yaml"), [])
        data = load_run_data(cfg, with_training=False)
    records = data.test[cfg.DATASETS.TEST[0]]
    sides = [
        [
            Scorer.of(
                records,
                read_results(execution.folder(cell), records, data.class_names, data.category_ids),
                data.class_names,
                agnostic=True,
                max_detections=limit,
            )
            for cell in side.cells
            if cell.seed in seeds
        ]
        for side in (base, row)
    ]
    clusters = cluster_numbers(records, default_clusters(records))
    return compare(*sides, clusters, plan, watch), len(records)


@contextlib.contextmanager
def data_root(execution: Execution, cell: Cell) -> Iterator[None]:
    """Point the data root at the sample of a cell, if it has one."""
    before = dict(os.environ)
    if cell.data:
        os.environ["DETECTRON2_DATASETS"] = str(execution.out / "data" / cell.data)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def learning_curves(rows: Sequence[Row]) -> str | None:
    """Draw the mean AP of each row over the iterations at which all of its runs were evaluated."""
    lines = []
    for row in rows:
        curves = [dict(run.curve("bbox/AP")) for run in row.runs]
        common = sorted(set.intersection(*(set(curve) for curve in curves)))
        means = [(at, statistics.fmean(curve[at] for curve in curves)) for at in common]
        if len(means) > 1:
            lines.append(Line(row.name, means))
    chart = line_chart("AP, mean over seeds", lines, x_label="iteration", y_label="percent")
    return chart and render_chart(chart)
