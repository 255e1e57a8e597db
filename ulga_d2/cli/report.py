"""`ulga report`: a run's figures, curves and telling images in one HTML file."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import without_paths
from ..errors import UserError
from ..terminal import log_to_stderr, show
from .draws import add_anonymize_option, add_draw_options, check_draws

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ..engine.datasets import RunData
    from ..evaluation.report.page import Source
    from ..evaluation.runs import Run

logger = logging.getLogger(__name__)

LIMIT = 5_000_000  # bytes of a report, so that it can be sent by mail


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "report",
        description="Write one self-contained HTML file about an evaluated run. It needs the run "
        "folder and the images of its test set.",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the run's OUTPUT_DIR")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: RUN_DIR/report.html")
    add_draw_options(parser)
    add_anonymize_option(parser)


def run(args: argparse.Namespace) -> int:
    """Write the report; print where it is."""
    from ..evaluation.atomic import write_atomically
    from ..evaluation.report.facts import collect_facts
    from ..evaluation.report.page import render_report
    from ..evaluation.runs import read_run

    check_draws(args)
    log_to_stderr()
    finished = read_run(args.run_dir)
    source = _source(args)
    facts = collect_facts(finished, source.records)
    if args.anonymize:
        finished, source, facts = _without_names(finished, source, facts)
    page = render_report(finished, source, facts).encode()
    path = args.out or args.run_dir / "report.html"
    write_atomically(str(path), page)
    show(f"{path}: {len(page) / 1e6:.1f} MB")
    if len(page) > LIMIT:
        show(f"warning: more than {LIMIT / 1e6:.0f} MB; fewer detections make it smaller")
    return 0


def _without_names(
    run: Run, source: Source, facts: Mapping[str, str]
) -> tuple[Run, Source, dict[str, str]]:
    """Call images by their numbers, and leave out where the run and its files lie."""
    from ..data.anonymous import numbered

    records = numbered(source.name, source.records)
    paths = {
        shown["file_name"]: record["file_name"]
        for shown, record in zip(records, source.records, strict=True)
    }
    return (
        replace(run, folder=Path("run"), config=without_paths(run.config)),
        replace(source, records=records, read_image=lambda name: source.read_image(paths[name])),
        {name: words for name, words in facts.items() if name not in ("folder", "command")},
    )


def _source(args: argparse.Namespace) -> Source:
    """Read the detections and the test set of the run, and score the ones on the other."""
    from ..data.image import read_image
    from ..data.progress import with_progress
    from ..evaluation.clusters import cluster_numbers, clusters_in_words, default_clusters
    from ..evaluation.estimate import estimate
    from ..evaluation.report.page import Source
    from ..evaluation.resample import Draws
    from ..evaluation.saved import common_limit, read_results
    from ..inference.preprocess import build_intensity

    cfg, name, data = _test_set(args.run_dir)
    records, class_names = data.test[name], data.class_names
    predictions = read_results(args.run_dir, records, class_names, data.category_ids)
    how = args.cluster or default_clusters(records)
    clusters = cluster_numbers(records, how)
    found = estimate(
        records,
        predictions,
        class_names,
        Draws(clusters, args.bootstrap, args.seed),
        froc_hit=cfg.TEST.FROC_HIT,
        watch=partial(with_progress, logger=logger),
        max_detections=common_limit(None, [args.run_dir]),
    )
    intervals = ""
    if args.bootstrap:
        drawn = clusters_in_words(how, clusters)
        intervals = f"In brackets: 95 % intervals from {args.bootstrap:,} resamples of {drawn}."
    reader = partial(read_image, intensity=build_intensity(cfg), frame=cfg.INPUT.FRAME)
    return Source(
        name, records, predictions, class_names, reader, found, intervals, cfg.TEST.FROC_HIT
    )


def _test_set(run_dir: Path) -> tuple[CfgNode, str, RunData]:
    """Return the run's config, the name of the one set it was tested on, and its data."""
    from .. import get_cfg
    from ..config import merge_config
    from ..engine.datasets import load_run_data
    from ..inference.preprocess import adopt_intensity

    cfg = get_cfg()
    config = run_dir / "config.yaml"
    merge_config(cfg, str(config), [])
    adopt_intensity(cfg, config.read_text(encoding="utf-8"), str(config))
    if len(cfg.DATASETS.TEST) != 1:
        raise UserError(
            f"{run_dir} was tested on {', '.join(cfg.DATASETS.TEST)}; a report is about one set, "
            "so evaluate on one with --eval-only and an OUTPUT_DIR of its own"
        )
    return cfg, cfg.DATASETS.TEST[0], load_run_data(cfg, with_training=False)
