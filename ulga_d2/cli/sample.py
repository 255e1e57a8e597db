"""`ulga sample`: write a synthetic data set in a real one's layout."""

from __future__ import annotations

import argparse
import logging
import sys


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "sample",
        description="Write a synthetic data set, without medical meaning, in a real one's layout.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("dataset", choices=["brain_tumor"], help="whose layout to write")
    parser.add_argument("out", help="the folder to write; new or empty")
    parser.add_argument("--num-train", type=int, default=400, help="training images")
    parser.add_argument("--num-val", type=int, default=100, help="validation images")
    parser.add_argument("--size", type=int, default=128, help="side of an image in pixels")
    parser.add_argument(
        "--difficulty",
        choices=["easy", "medium", "hard"],
        default="easy",
        help="how clearly lesions stand out from tissue and look-alikes",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, other images")


def run(args: argparse.Namespace) -> int:
    """Write the sample and say where it is."""
    from ..data.sample import write_sample

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    written = write_sample(
        args.dataset,
        args.out,
        num_train=args.num_train,
        num_val=args.num_val,
        size=args.size,
        difficulty=args.difficulty,
        seed=args.seed,
    )
    if written:
        print(f"wrote {args.num_train} training and {args.num_val} validation images to {args.out}")
    else:
        print(f"{args.out} already holds this sample; nothing to do")
    return 0
