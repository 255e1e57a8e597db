"""`ulga zoo`: runs made into weights that others can use, and the list of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..terminal import show


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "zoo",
        description="Make a run's final weights into a folder that can be shared, list such "
        "folders, and bring weights here.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    action = actions.add_parser(
        "publish",
        help="write the weights, config, figures and model card of a finished run",
        epilog="example: ulga zoo publish output/brain_tumor_swin_ulga_nano zoo --data 'Cheng et "
        "al., figshare 1512427, CC BY 4.0' --licence 'CC BY 4.0'",
    )
    action.add_argument("run", type=Path, metavar="RUN_DIR")
    action.add_argument("out", type=Path, metavar="OUT", help="folder of the zoo")
    action.add_argument("--name", help="of the entry (default: the run folder's)")
    action.add_argument("--data", required=True, help="the data and their licence, in words")
    action.add_argument("--licence", required=True, help="of the weights, in words")
    action.add_argument(
        "--intervals", type=Path, metavar="FILE", help="what `ulga evaluate RUN --json` wrote"
    )
    action = actions.add_parser("index", help="write index.json and MODEL_ZOO.md of a zoo")
    action.add_argument("root", type=Path, metavar="FOLDER")
    action = actions.add_parser("fetch", help="bring weights here from the zoo that ULGA_ZOO names")
    action.add_argument("name", metavar="NAME")


def run(args: argparse.Namespace) -> int:
    """Publish, index or fetch; print what was written."""
    if args.action == "publish":
        from ..model_zoo.publish import publish

        name = args.name or args.run.resolve().name
        words = {"data": args.data, "licence": args.licence, "intervals": args.intervals}
        show(publish(args.run, args.out, name, **words))
    elif args.action == "index":
        from ..model_zoo.listing import write_index

        show(f"{args.root}: {', '.join(write_index(args.root))}")
    else:
        from ..weights.zoo import fetch

        show(fetch(args.name))
    return 0
