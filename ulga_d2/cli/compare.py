"""`ulga compare`: is B better than A, and how sure is that?"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..terminal import log_to_stderr, show
from .draws import (
    LEAST,
    add_anonymize_option,
    add_dataset_options,
    add_draw_options,
    check_limit,
)

if TYPE_CHECKING:
    from ..data.record import LoadedSplit
    from ..evaluation.resample import Scorer

logger = logging.getLogger(__name__)

SIDES = "ulga compare A... -- B... --dataset NAME"


def prepare(words: Sequence[str]) -> list[str]:
    """Turn the "--" between the sides into an option, for argparse gives it another meaning."""
    return ["--against" if word == "--" else word for word in words]


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "compare",
        usage=f"{SIDES} [options]",
        description="Compare the detections of two models on one dataset: paired bootstrap and "
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
    add_anonymize_option(parser)
    parser.add_argument("--permutations", type=int, default=2000, metavar="N", help="default 2000")


def run(args: argparse.Namespace) -> int:
    """Compare; print tables and conclusions."""
    from ..data.progress import with_progress
    from ..evaluation.atomic import write_atomically
    from ..evaluation.boxes import limit_warning
    from ..evaluation.clusters import cluster_numbers, clusters_in_words, default_clusters
    from ..evaluation.compare import Plan, compare
    from ..evaluation.saved import common_limit
    from ..evaluation.verdict import Setting, as_dict, as_text
    from .data_sets import load_one_split

    _check(args)
    check_limit(args)
    log_to_stderr()
    loaded = load_one_split(args.dataset)
    records = loaded.records
    how = args.cluster or default_clusters(records)
    clusters = cluster_numbers(records, how)
    limit = common_limit(args.max_detections, [*args.a, *args.b])
    if warning := limit_warning(records, limit):
        logger.warning("warning: %s", warning)
    sides = [[_scorer(path, loaded, args, limit) for path in side] for side in (args.a, args.b)]
    plan = Plan(args.bootstrap, args.permutations, args.seed)
    watch = partial(with_progress, logger=logger)
    found = compare(*sides, clusters, plan, watch)
    files = [tuple(map(str, side)) for side in (args.a, args.b)]
    dataset = args.dataset
    if args.anonymize:
        files = [
            tuple(f"{side}{number}" for number in range(1, len(names) + 1))
            for side, names in zip("AB", files, strict=True)
        ]
        dataset = dataset.rpartition(":")[2]
    words = clusters_in_words(how, clusters)
    count = int(clusters.max()) + 1
    setting = Setting(*files, dataset, len(records), how, count, words, plan, limit)
    show(as_text(setting, found))
    if args.json:
        text = json.dumps(as_dict(setting, found), indent=1, ensure_ascii=False)
        write_atomically(str(args.json), f"{text}\n".encode())
    return 0


def _scorer(path: Path, loaded: LoadedSplit, args: argparse.Namespace, limit: int) -> Scorer:
    """Read and match one file; warn where classes seem to be mixed up."""
    from ..evaluation.resample import Scorer
    from ..evaluation.saved import read_results
    from ..evaluation.summary import mix_up_warning

    records, names = loaded.records, loaded.class_names
    found = read_results(path, records, names, loaded.category_ids, numbering=args.category_ids)
    match = partial(Scorer.of, records, found, names, max_detections=limit)
    scorer = match(per_class=True)
    ap = scorer.score()[0]
    if ap < 1:  # only then can they be
        both = match(agnostic=True)
        warning = mix_up_warning(ap, both.score()[both.names.index("agnostic/AP")])
        if warning:
            logger.warning("warning: %s: %s", path, warning)
    return scorer


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
