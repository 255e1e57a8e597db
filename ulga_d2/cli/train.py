"""`ulga train`: what `train_net.py` does, for an installed package without its clone."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..engine.launch import DESCRIPTION, EXAMPLE, add_arguments, launch, settings_last


def prepare(words: Sequence[str]) -> list[str]:
    """Take flags before and behind KEY VALUE."""
    return settings_last(words)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add detectron2's training flags."""
    parser = subparsers.add_parser(
        "train", description=DESCRIPTION, epilog=f"example: ulga train {EXAMPLE}"
    )
    add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train or evaluate in as many processes as asked for."""
    return launch(args)
