"""The options of commands that draw clusters of images, with their checks."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import UserError

LEAST = 100  # draws, below which the ends of an interval are noise


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    """Add the dataset that saved detections belong to, and the file that metrics go to."""
    parser.add_argument(
        "--dataset",
        required=True,
        metavar="NAME",
        help="such as brain_tumor_val; of a custom dataset config.yaml:mine_val",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all metrics as JSON")
    parser.add_argument(
        "--max-detections",
        type=int,
        metavar="N",
        help="detections of an image that count, best first (default: what the run or "
        "predictions_meta.json states, else 100); AR100 is called by it",
    )
    parser.add_argument(
        "--category-ids",
        choices=["dataset", "contiguous"],
        help="what category_id counts in a file without predictions_meta.json beside it: the "
        "dataset's own ids, or 0 to K - 1 (default: decided by the ids, see docs/evaluation.md)",
    )


def add_anonymize_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that keeps names out of what people mail."""
    parser.add_argument(
        "--anonymize",
        action="store_true",
        help="call images and patients by their numbers in the dataset, and leave out all other "
        "names of files and folders",
    )


def check_limit(args: argparse.Namespace) -> None:
    """Refuse a limit of detections below 1.

    Raises:
        UserError: naming the option and what to give.
    """
    if args.max_detections is not None and args.max_detections < 1:
        raise UserError(f"--max-detections is {args.max_detections}; give 1 or more")


def add_draw_options(parser: argparse.ArgumentParser) -> None:
    """Add how many resamples are drawn, of what, and the seed."""
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=2000,
        metavar="N",
        help="resamples for the intervals (default 2000)",
    )
    parser.add_argument(
        "--cluster",
        metavar="HOW",
        help="what is drawn together: patient, image, or run:K for K consecutive numbers in the "
        "file names (default: patient where the data know every one, else image)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default 0)")


def check_draws(args: argparse.Namespace) -> None:
    """Refuse too few resamples; none at all is a choice.

    Raises:
        UserError: naming the option and what to give.
    """
    if args.bootstrap != 0 and args.bootstrap < LEAST:
        raise UserError(f"--bootstrap is {args.bootstrap}; give {LEAST} or more, or 0 for none")
    if args.seed < 0:
        raise UserError(f"--seed is {args.seed}; give 0 or more")
