"""`ulga weights`: public checkpoints, looked at and made safe to load."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from ..errors import printable
from ..terminal import show
from ..weights.convert import convert
from ..weights.detect import recognise
from ..weights.layout import PublicWeights
from ..weights.load import is_own, read_plain
from ..weights.report import some


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "weights",
        description="Look at a checkpoint, or turn a public one into a .safetensors file that "
        "MODEL.WEIGHTS takes.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    action = actions.add_parser(
        "convert",
        help="take the tensors out of a pickle of any kind, running nothing of it",
        description="Take the tensors and arrays out of a pickled checkpoint and write them, under "
        "their own names, to a new .safetensors file. Settings beside them are dropped; a file "
        "that holds any other Python object is refused.",
    )
    action.add_argument("source", metavar="IN")
    action.add_argument("target", metavar="OUT.safetensors")
    action = actions.add_parser("inspect", help="tell what a checkpoint is, and which sizes fit it")
    action.add_argument("source", metavar="FILE")


def run(args: argparse.Namespace) -> int:
    """Convert or inspect; print what the file is."""
    if args.action == "inspect":
        found = read_plain(args.source)
        if is_own(found):
            _print_own(found, args.source)
        else:
            _print(recognise(found, args.source), args.source)
        return 0
    done = convert(args.source, args.target)
    if done.dropped:
        show(f"dropped, since they are no tensors: {some(done.dropped)}")
    show(f"{args.target}: {len(done.written)} tensors")
    _print(done.public, args.target)
    return 0


def _print_own(state: dict[str, Any], weights: str) -> None:
    iteration = f", iteration {state['iteration']}" if "iteration" in state else ""
    show(f"a checkpoint of this project{iteration}")
    if state.get("class_names"):
        show(f"classes: {', '.join(printable(str(name)) for name in state['class_names'])}")
    show("to train from it, or with --eval-only to evaluate it: its run's config.yaml, and")
    show(f"  MODEL.WEIGHTS {shlex.quote(weights)}")


def _print(public: PublicWeights, weights: str) -> None:
    show(f"{public.layout.name}, {len(public.tensors)} weights of the backbone")
    for what, names in public.ignored.items():
        show(f"not used: {what}: {some(names)}")
    options, guesses = public.size_options()
    if not options:
        show("no training can start from it: weights that tell its sizes are missing or misshapen")
        return
    show(f"options that fit its sizes, with MODEL.BACKBONE.NAME {public.layout.builder()}:")
    show(f"  MODEL.WEIGHTS {shlex.quote(weights)} {options}")
    if guesses:
        show(f"not seen in the file, a guess after published ones: {guesses}")
