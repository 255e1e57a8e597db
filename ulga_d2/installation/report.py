"""A fact about the installation, and how a list of them is printed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

OK = "ok"
NOTE = "note"  # worth knowing; nothing to do
WARNING = "warning"  # something is wrong, training may work all the same
ERROR = "error"  # training cannot work

_COLOURS = {OK: "32", NOTE: "36", WARNING: "33", ERROR: "31"}


@dataclass(frozen=True)
class Fact:
    """One line of the report.

    Args:
        level: OK, NOTE, WARNING or ERROR.
        text: the fact, on one line.
        cure: for a problem, the command that ends it.
    """

    level: str
    text: str
    cure: str = ""


def print_report(facts: Sequence[Fact], out: TextIO) -> None:
    """Print one line a fact and each cure under its problem; in colour on a terminal only."""
    colour = out.isatty() and not os.environ.get("NO_COLOR")
    for fact in facts:
        mark = f"{fact.level:<8}"
        if colour:
            mark = f"\033[{_COLOURS[fact.level]}m{mark}\033[0m"
        print(f"{mark}{fact.text}", file=out)
        if fact.cure:
            print(f"{'':<8}-> {fact.cure}", file=out)
    print(_verdict(facts), file=out)


def _verdict(facts: Sequence[Fact]) -> str:
    errors = sum(fact.level == ERROR for fact in facts)
    warnings = sum(fact.level == WARNING for fact in facts)
    counts = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    return f"Training {'cannot' if errors else 'can'} work here: {counts}."
