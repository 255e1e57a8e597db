"""`ulga evaluate`: the metrics of saved detections, with confidence intervals."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..terminal import log_to_stderr, show
from .draws import add_dataset_options, add_draw_options, check_draws, check_limit
from .settings import add_set_option, set_trailing, words_of

logger = logging.getLogger(__name__)


def prepare(words: Sequence[str]) -> list[str]:
    """Take KEY VALUE at the end of the command line, as training does."""
    return set_trailing(words)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "evaluate",
        description="Score saved detections on a dataset: COCO's AP and AR, per class, per size "
        "and class-agnostic, with 95 % intervals from resamples of the images (--bootstrap 0: "
        "without); FROC, the best F1 threshold, calibration and the split of errors.",
    )
    parser.add_argument(
        "predictions",
        type=Path,
        metavar="PREDICTIONS",
        help="detections (COCO's result list, .json or .json.gz), or a run folder",
    )
    add_dataset_options(parser)
    add_draw_options(parser)
    parser.add_argument(
        "--froc-hit",
        choices=["iou", "centre"],
        help="what finds a lesion in FROC: IoU 0.5 (default), or a centre in its box",
    )
    add_set_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print the metrics; write what was asked for."""
    from ..data.progress import with_progress
    from ..evaluation.atomic import write_atomically
    from ..evaluation.boxes import limit_warning
    from ..evaluation.clusters import cluster_numbers, clusters_in_words, default_clusters
    from ..evaluation.estimate import estimate, estimate_as_dict, estimate_table
    from ..evaluation.resample import Draws
    from ..evaluation.saved import common_limit, read_results
    from ..evaluation.summary import mix_up_warning
    from .data_sets import changed_defaults, load_one_split

    check_draws(args)
    check_limit(args)
    log_to_stderr()
    opts = words_of(args)
    chosen = changed_defaults(opts).TEST
    if args.max_detections is None and "TEST.DETECTIONS_PER_IMAGE" in opts:
        args.max_detections = chosen.DETECTIONS_PER_IMAGE
    loaded = load_one_split(args.dataset, opts)
    limit = common_limit(args.max_detections, [args.predictions])
    predictions = read_results(
        args.predictions,
        loaded.records,
        loaded.class_names,
        loaded.category_ids,
        numbering=args.category_ids,
    )
    how = args.cluster or default_clusters(loaded.records)
    clusters = cluster_numbers(loaded.records, how)
    logger.info("matching %s detections to objects", f"{len(predictions):,}")
    found = estimate(
        loaded.records,
        predictions,
        loaded.class_names,
        Draws(clusters, args.bootstrap, args.seed),
        froc_hit=args.froc_hit or chosen.FROC_HIT,
        watch=partial(with_progress, logger=logger),
        max_detections=limit,
    )
    words = clusters_in_words(how, clusters)
    show(f"{args.predictions} on {args.dataset}: {len(predictions):,} detections")
    if args.bootstrap:
        show(f"intervals: {args.bootstrap:,} resamples, seed {args.seed}, of {words}")
    show(f"\n{estimate_table(found)}")
    values = found.metrics.values
    for warning in (
        limit_warning(loaded.records, limit),
        mix_up_warning(values["bbox/AP"], values["agnostic/AP"]),
    ):
        if warning:
            logger.warning("warning: %s", warning)
    if args.json:
        setting = {"dataset": args.dataset, "images": len(loaded.records), "cluster": how}
        setting |= {"predictions": str(args.predictions), "seed": args.seed}
        text = json.dumps(setting | estimate_as_dict(found), indent=1, ensure_ascii=False)
        write_atomically(str(args.json), f"{text}\n".encode())
    return 0
