"""`ulga study`: run a grid of configs, data, variants and seeds, and compare what it gives."""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..terminal import log_to_stderr, show
from .draws import LEAST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..study.execute import Execution
    from ..study.table import Row

logger = logging.getLogger(__name__)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "study",
        description="Run every cell of a study (configs x data x variants x seeds) that is not "
        "done, then write its tables. Stop it at any time: the same command goes on, and a cell "
        "that was cut goes on from its last checkpoint.",
        epilog="example: ulga study configs/studies/modules.yaml --out output/modules",
    )
    parser.add_argument("study", type=Path, metavar="STUDY.yaml", help="what to run")
    parser.add_argument("--out", type=Path, help="folder of the study (default: output/STUDY)")
    parser.add_argument(
        "--gpus",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="run a cell on each of these GPUs at a time",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="without --gpus: cells at a time, with the cores divided among them (1). On a CPU "
        "two nano cells on a thread each take less time than one after the other on both",
    )
    parser.add_argument("--list", action="store_true", help="show the cells, and run nothing")
    parser.add_argument("--table", action="store_true", help="write the tables, and run nothing")
    parser.add_argument(
        "--draws", type=int, default=2000, metavar="N", help="resamples and exchanges (2000)"
    )


def run(args: argparse.Namespace) -> int:
    """Run, write `study.md`, `study.csv` and its pictures; 1 if a cell failed."""
    from ..study.execute import Execution
    from ..study.plan import read_study

    if args.draws < LEAST:
        raise UserError(f"--draws is {args.draws}; give {LEAST} or more")
    if args.jobs < 1 or (args.gpus and args.jobs > 1):
        raise UserError(f"--jobs is {args.jobs}; give 1 or more, and no --gpus beside it")
    log_to_stderr()
    study = read_study(args.study)
    out = (args.out or Path("output") / study.name).resolve()
    execution = Execution(study, out, args.gpus, args.jobs)
    if args.list:
        for cell in study.cells:
            state = "done" if execution.is_done(cell) else "to do"
            show(f"{state}  {cell.name}  {cell.config} {' '.join(cell.options)}")
        return 0
    failed = [] if args.table else execution.run()
    _write_tables(execution, args.draws)
    for cell in failed:
        show(f"failed: {cell.name}; its output is {out}/cells/{cell.name}.txt", file=sys.stderr)
    return 1 if failed else 0


def _write_tables(execution: Execution, draws: int) -> None:
    from ..data.progress import with_progress
    from ..evaluation.atomic import write_atomically
    from ..evaluation.compare import Plan
    from ..evaluation.runs import csv_table, headline_names
    from ..study.table import (
        comparisons,
        figures_table,
        finished_rows,
        learning_curves,
    )

    rows = finished_rows(execution)
    if not rows:
        raise UserError(f"{execution.out}: no cell of the study is done, so there is no table")
    watch = partial(with_progress, logger=logger)
    study, out = execution.study, execution.out
    done = sum(len(row.cells) for row in rows)
    parts = [f"# {study.name}", study.about, f"{done} of {len(study.cells)} cells."]
    parts += [figures_table(rows), comparisons(execution, rows, Plan(draws, draws), watch)]
    if study.has_ambiguity:
        parts.append(_write_ambiguity(execution, rows))
    text = "\n\n".join(filter(None, parts)) + "\n"
    write_atomically(str(out / "study.md"), text.encode())
    runs = {row.name: row.runs for row in rows}
    names = headline_names(run for row in rows for run in row.runs)
    write_atomically(str(out / "study.csv"), csv_table(runs, names).encode())
    curves = learning_curves(rows)
    if curves:
        write_atomically(str(out / "curves.svg"), curves.encode())
    show(text)
    show(f"{out}/study.md")


def _write_ambiguity(execution: Execution, rows: Sequence[Row]) -> str:
    """Write `ambiguity.svg`; return the table that goes with it."""
    from ..evaluation.atomic import write_atomically
    from ..study.ambiguity import ambiguity_curve, ambiguity_table
    from ..study.samples import measure_samples

    used = {row.cells[0].data for row in rows}
    samples = {name: value for name, value in execution.study.samples.items() if name in used}
    measured = measure_samples(execution.out, samples)
    curve = ambiguity_curve(rows, measured)
    if curve:
        write_atomically(str(execution.out / "ambiguity.svg"), curve.encode())
    return ambiguity_table(rows, measured)
