"""Run folders read back: their settings, their figures, their curves, and tables over several."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ulga_d2.config import parse_config
from ulga_d2.errors import UserError
from ulga_d2.io import parse_json

from .average_precision import headline, shown_name
from .boxes import COCO_LIMIT

Figures = dict[str, float | None]
# Settings in which repetitions of one experiment differ, or that say where and not what.
NOT_THE_EXPERIMENT = (("SEED",), ("OUTPUT_DIR",), ("DATALOADER", "NUM_WORKERS"), ("VIS_PERIOD",))


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
        folder: the run folder.
        config: its resolved config.
        lines: of the training log, as dicts that each have "iteration"; none where it was not kept.
        figures: of the last evaluation, by name such as "bbox/AP"; None where undefined.
        reasons: for each None in `figures`, why.
        max_detections: the limit of detections an image under which it was evaluated.
    """

    folder: Path
    config: Mapping[str, Any]
    lines: tuple[Mapping[str, float], ...]
    figures: Figures
    reasons: Mapping[str, str]
    max_detections: int = COCO_LIMIT

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    def curve(self, key: str) -> list[tuple[float, float]]:
        """Return (iteration, value) wherever the log has `key`."""
        return [(line["iteration"], line[key]) for line in self.lines if key in line]


@dataclass(frozen=True)
class Summary:
    """One figure over the runs of an experiment.

    Attributes:
        n: runs for which it is defined.
        mean: of those; None where there is none.
        deviation: their standard deviation (n - 1 in the denominator); None below two runs.
        best: the highest.
    """

    n: int
    mean: float | None
    deviation: float | None
    best: float | None


def read_run(folder: str | Path) -> Run:
    """Read a run folder, or one that keeps a run's config.yaml and final metrics.json alone.

    Raises:
        UserError: no config or no figures in it, or a file that cannot be read.
    """
    folder = Path(folder)
    config_file = folder / "config.yaml"
    if not config_file.is_file():
        raise UserError(f"{folder} is no run folder: it has no config.yaml")
    try:
        config = parse_config(config_file.read_text(encoding="utf-8"), str(config_file))
    except UnicodeDecodeError as error:
        raise UserError(f"{config_file} is no YAML file: {error}") from None
    log = folder / "metrics.json"
    lines = _read_lines(log)
    final = folder / "inference" / "metrics.json"
    figures = _read_figures(final if final.is_file() or lines else log)
    reasons = figures.pop("reasons", {})
    limit = figures.pop("max_detections", COCO_LIMIT)
    return Run(folder, config, tuple(lines), figures, reasons, limit)


def _read_lines(log: Path) -> list[dict[str, float]]:
    """Return the lines of a training log; a half-written one is passed over."""
    lines = []
    if log.is_file():
        for text in log.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict) and "iteration" in line:
                lines.append(line)
    return lines


def _read_figures(path: Path) -> dict[str, Any]:
    try:
        figures = parse_json(path.read_bytes(), path)
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: the run has not been evaluated; let it end, or evaluate it with "
            "--eval-only"
        ) from None
    fits = isinstance(figures, dict) and all(
        value is None or isinstance(value, (int, float))
        for name, value in figures.items()
        if name != "reasons"
    )
    if not fits or not isinstance(figures.get("reasons", {}), dict):
        raise UserError(f"{path} holds no figures of a run; evaluate the run again")
    return figures


def group_runs(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Put runs together whose configs differ in the seed and the folder alone.

    A group is called by its first run, without a trailing "seed" and number.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_experiment(run.config), []).append(run)
    named: dict[str, list[Run]] = {}
    for members in groups.values():
        name = re.sub(r"[_.-]?s(eed)?[_.-]?\d+$", "", members[0].name) or members[0].name
        while name in named:
            name += "'"
        named[name] = members
    return named


def _experiment(config: Mapping[str, Any]) -> str:
    copy = json.loads(json.dumps(config))
    for *nodes, key in NOT_THE_EXPERIMENT:
        node = copy
        for part in nodes:
            node = node.get(part, {})
        if isinstance(node, dict):
            node.pop(key, None)
    return json.dumps(copy, sort_keys=True)


def summarise(values: Iterable[float | None]) -> Summary:
    """Return n, mean, standard deviation and best of what is defined."""
    defined = [value for value in values if value is not None]
    if not defined:
        return Summary(0, None, None, None)
    deviation = statistics.stdev(defined) if len(defined) > 1 else None
    return Summary(len(defined), statistics.fmean(defined), deviation, max(defined))


def markdown_table(groups: Mapping[str, Sequence[Run]], names: Sequence[str]) -> str:
    """Return a Markdown table: a row an experiment, "mean +- sd (best)" a figure.

    Metrics state the limit of detections an image where it is not COCO's; where runs differ in it,
    a column does.
    """
    limits = limits_of(run for runs in groups.values() for run in runs)
    rows = []
    for label, runs in groups.items():
        seeds = ", ".join(str(run.config.get("SEED", "?")) for run in runs)
        cells = [
            _cell(summarise(run.figures.get(name) for run in runs), len(runs)) for name in names
        ]
        own_limits = ", ".join(map(str, limits_of(runs)))
        rows.append([label, len(runs), seeds, *cells, *([own_limits] * (len(limits) > 1))])
    shown = names if len(limits) > 1 else [shown_name(name, *limits) for name in names]
    headers = ["experiment", "n", "seeds", *shown, *(["max. detections"] * (len(limits) > 1))]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def limits_of(runs: Iterable[Run]) -> list[int]:
    """Return the limits of detections an image under which runs were evaluated, ascending."""
    return sorted({run.max_detections for run in runs})


def _cell(summary: Summary, runs: int) -> str:
    if summary.mean is None:
        return "undefined"
    short = f" [n = {summary.n}]" if summary.n < runs else ""
    if summary.deviation is None:
        return f"{summary.mean:.1f}{short}"
    return f"{summary.mean:.1f} ± {summary.deviation:.1f} ({summary.best:.1f}){short}"


def headline_names(runs: Iterable[Run]) -> list[str]:
    """Return the names of the headline metrics; runs of different limits each have their own AR."""
    return list(dict.fromkeys(name for limit in limits_of(runs) for name in headline(limit)))


def csv_table(groups: Mapping[str, Sequence[Run]], names: Sequence[str]) -> str:
    """Return one line a run, with every figure in full; undefined ones are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["experiment", "run", "seed", "max_detections", *names])
    for label, runs in groups.items():
        for run in runs:
            values = (run.figures.get(name) for name in names)
            row = [label, run.name, run.config.get("SEED", ""), run.max_detections]
            writer.writerow(row + ["" if value is None else repr(value) for value in values])
    return text.getvalue()
