"""`ulga doctor`: one line a fact about the installation; under each problem, what cures it."""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
from pathlib import Path

from ..data import brain_tumor
from ..data.root import DATA_SETS, data_root
from ..errors import UserError
from ..inference.device import available_cores, cpu_computes_in_bf16
from ..installation.imports import import_facts, run_probe
from ..installation.machine import device_facts, disk_facts, memory_facts
from ..installation.packages import (
    detectron2_facts,
    opencv_facts,
    range_facts,
    vulnerability_facts,
)
from ..installation.report import ERROR, NOTE, OK, WARNING, Fact, print_report
from ..version import __version__


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    subparsers.add_parser(
        "doctor",
        description="Check that training can work here. Prints one line a fact and, under each "
        "problem, the command that cures it. Exit code 1 if training cannot work.",
    )


def run(args: argparse.Namespace) -> int:
    """Look at everything, print the report, return 1 if training cannot work."""
    del args
    facts = _examine()
    print_report(facts, sys.stdout)
    return 1 if any(fact.level == ERROR for fact in facts) else 0


def _examine() -> list[Fact]:
    found = run_probe()
    return [
        Fact(OK, f"Python {platform.python_version()} in {sys.prefix}, on {platform.platform()}"),
        Fact(OK, f"ulga_d2 {__version__} in {Path(__file__).parent.parent}"),
        *import_facts(found),
        *detectron2_facts(),
        *range_facts(),
        *vulnerability_facts(),
        *opencv_facts(),
        *device_facts(
            found.get("device", {}).get("facts"),
            cores=available_cores(),
            cpu_bf16=cpu_computes_in_bf16(),
        ),
        *memory_facts(),
        *disk_facts(Path.cwd()),
        *_data_facts(),
        *_other_data_facts(),
    ]


def _data_facts() -> list[Fact]:
    root = data_root() / "brain_tumor"
    try:
        layout = brain_tumor.find_layout(root)
    except UserError as error:
        return [Fact(WARNING, f"data: brain_tumor: {error}")]
    if layout is None:
        cure = f"ulga sample brain_tumor {shlex.quote(str(root))}, or see datasets/README.md"
        return [Fact(NOTE, f"data: no brain_tumor in {root}", cure)]
    splits = ", ".join(layout.splits)
    return [Fact(OK, f"data: brain_tumor ({layout.annotation_format}: {splits}) in {layout.root}")]


def _other_data_facts() -> list[Fact]:
    folders = [data_root() / name for name in DATA_SETS if name != "brain_tumor"]
    return [
        Fact(OK, f"data: {folder.name} in {folder}; ulga data check {folder.name} reads all of it")
        for folder in folders
        if folder.is_dir()
    ]
