"""`ulga runs`: several runs side by side, the seeds of one experiment together."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..evaluation.atomic import write_atomically
from ..evaluation.average_precision import headline
from ..evaluation.report.chart import Line, line_chart
from ..evaluation.report.page import render_chart
from ..evaluation.runs import Run, csv_table, group_runs, headline_names, markdown_table, read_run
from ..terminal import show

CURVES = ("bbox/AP", "total_loss")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "runs",
        description="Put runs side by side. Runs whose configs differ in seed and folder alone are "
        "one experiment: mean ± standard deviation (best) over its n runs.",
    )
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="DIR", help="a run's OUTPUT_DIR")
    parser.add_argument(
        "--figure",
        action="append",
        metavar="NAME",
        help=f"a column, by its name in inference/metrics.json (default: {', '.join(headline())})",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table printed")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one line a run")
    parser.add_argument(
        "--curves",
        type=Path,
        metavar="FILE.svg",
        help="draw bbox/AP while training, or the loss where runs were evaluated at the end alone",
    )


def run(args: argparse.Namespace) -> int:
    """Print the table; write what was asked for."""
    runs = [read_run(folder) for folder in args.run_dirs]
    names = args.figure or headline_names(runs)
    _check(runs, names)
    groups = group_runs(runs)
    table = markdown_table(groups, names)
    show(table)
    if args.markdown:
        write_atomically(str(args.markdown), f"{table}\n".encode())
    if args.csv:
        write_atomically(str(args.csv), csv_table(groups, names).encode())
    if args.curves:
        write_atomically(str(args.curves), _curves(runs).encode())
    return 0


def _check(runs: list[Run], names: list[str]) -> None:
    from ..errors import UserError

    folders = [one.folder.resolve() for one in runs]
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(f"{folder} is given twice and would count as two runs; name it once")
    known = {name for one in runs for name in one.figures}
    for name in names:
        if name not in known:
            raise UserError(f"no run has a figure {name}; there are {', '.join(sorted(known))}")


def _curves(runs: list[Run]) -> str:
    from ..errors import UserError

    for key in CURVES:
        lines = [Line(one.name, one.curve(key)) for one in runs if len(one.curve(key)) > 1]
        chart = line_chart(key, lines, x_label="iteration", y_label=key)
        if chart is not None:
            return render_chart(chart)
    raise UserError(
        "--curves: no run folder here has kept the lines of its training (metrics.json)"
    )
