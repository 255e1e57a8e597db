"""The `ulga` command: finds the subcommand and imports only that one's needs."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from ..errors import UserError, did_you_mean
from ..terminal import escape_record, show
from ..version import __version__

# The module of a subcommand has its name, with "_" for "-"; it has add_parser(subparsers), which
# takes its help line from here, and run(args) -> exit code. It may have prepare(words), which puts
# words into an order that argparse understands.
COMMANDS = {
    "analyze": "show what configs cost: parameters, arithmetic, memory, time, side by side",
    "compare": "tell whether one model is better than another, and how sure that is",
    "data": "check, show, convert or split a data set",
    "doctor": "check that training can work here; under each problem, the command that cures it",
    "evaluate": "score saved detections: every figure, with its confidence interval",
    "explain": "draw what a detector makes of images, two side by side: attention, concepts, ...",
    "fit": "foretell a training's memory and time, and make it fit",
    "install-detectron2": "put detectron2 into this Python from a hash-checked wheel",
    "overfit": "self-test of a config: one batch, learnt by heart in a minute or two",
    "predict": "detect objects on new images, and write boxes and pictures",
    "report": "write a run's report.html: figures, curves and a gallery, in one file",
    "runs": "put several runs side by side: mean and spread over seeds, learning curves",
    "sample": "write a synthetic data set in a real one's layout",
    "study": "run a grid of variants and seeds, resumable, and compare what it gives",
    "train": "train or evaluate a detector, as train_net.py does",
    "weights": "look at a checkpoint, or turn a public one into a file that is safe to load",
    "zoo": "share a run's weights with a model card, list them, bring them here",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return its exit code, 2 for the user's error, 130 when interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        return _fail(_unknown_message(command))
    parser, module = _build_parser(command)
    args = parser.parse_args(getattr(module, "prepare", list)(words))
    if module is None:
        parser.print_help()
        return 0
    logging.lastResort.addFilter(escape_record)  # of commands that configure no log
    try:
        code = module.run(args)
        sys.stdout.flush()
        return code
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)


def _build_parser(command: str | None) -> tuple[argparse.ArgumentParser, ModuleType | None]:
    parser = argparse.ArgumentParser(
        prog="ulga", description="Train detectors with ULGA, and the tools around it."
    )
    parser.add_argument("--version", action="version", version=f"ulga_d2 {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND")
    chosen = None
    for name, text in COMMANDS.items():
        if name == command:
            chosen = importlib.import_module("." + name.replace("-", "_"), __package__)
            chosen.add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=text)
    return parser, chosen


def _unknown_message(command: str) -> str:
    near = did_you_mean(command, COMMANDS, f"there are: {', '.join(COMMANDS)}.")
    return f"unknown command {command}; {near}"


def _fail(message: str, code: int = 2) -> int:
    show(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
