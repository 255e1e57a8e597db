"""`ulga compare`: is B better than A, and how sure is that?"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..errors import UserError
from .draws import LEAST, add_dataset_options, add_draw_options

SIDES = "ulga compare A... -- B... --dataset NAME"


def prepare(words: Sequence[str]) -> list[str]:
    """Turn the "--" between the sides into an option, for argparse gives it another meaning."""
    return ["--against" if word == "--" else word for word in words]


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "compare",
        usage=f"{SIDES} [options]",
        description="Compare the detections of two models on one data set: paired bootstrap and "
        "paired permutation test over clusters of images. Several files a side are seeds, paired "
        "by their order. A is what stands before --, B what stands behind it.",
    )
    parser.add_argument(
        "a", type=Path, nargs="+", metavar="A", help="detections (COCO's result list), or a run"
    )
    parser.add_argument(
        "--against", dest="b", type=Path, nargs="+", default=[], help=argparse.SUPPRESS
    )
    add_dataset_options(parser)
    add_draw_options(parser)
    parser.add_argument("--permutations", type=int, default=2000, metavar="N", help="default 2000")


def run(args: argparse.Namespace) -> int:
    """Compare; print tables and conclusions."""
    from ..data.progress import with_progress
    from ..evaluation.atomic import write_atomically
    from ..evaluation.clusters import cluster_numbers, clusters_in_words, default_clusters
    from ..evaluation.compare import Plan, compare
    from ..evaluation.resample import Scorer
    from ..evaluation.saved import read_predictions
    from ..evaluation.verdict import Setting, as_dict, as_text
    from .data_sets import load_one_split

    _check(args)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    loaded = load_one_split(args.dataset)
    records, names = loaded.records, loaded.class_names
    how = args.cluster or default_clusters(records)
    clusters = cluster_numbers(records, how)
    sides = [
        [Scorer.of(records, read_predictions(path), names, per_class=True) for path in side]
        for side in (args.a, args.b)
    ]
    plan = Plan(args.bootstrap, args.permutations, args.seed)
    watch = partial(with_progress, logger=logging.getLogger(__name__))
    found = compare(*sides, clusters, plan, watch)
    files = (tuple(map(str, side)) for side in (args.a, args.b))
    words = clusters_in_words(how, clusters)
    setting = Setting(*files, args.dataset, len(records), how, int(clusters.max()) + 1, words, plan)
    print(as_text(setting, found))
    if args.json:
        text = json.dumps(as_dict(setting, found), indent=1, ensure_ascii=False)
        write_atomically(str(args.json), f"{text}\n".encode())
    return 0


def _check(args: argparse.Namespace) -> None:
    if not args.b:
        raise UserError(f"side B is missing: put -- between the two sides, {SIDES}")
    if len(args.a) != len(args.b):
        raise UserError(
            f"{len(args.a)} file(s) before -- and {len(args.b)} after it; seeds are paired by "
            "their order, so give as many on each side"
        )
    for name, value, least in (
        ("--bootstrap", args.bootstrap, LEAST),
        ("--permutations", args.permutations, LEAST),
        ("--seed", args.seed, 0),
    ):
        if value < least:
            raise UserError(f"{name} is {value}; give {least} or more")
