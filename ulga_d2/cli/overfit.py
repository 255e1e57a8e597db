"""`ulga overfit`: the self-test of a config, one batch learnt by heart."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..terminal import show
from .settings import add_set_option, set_trailing, words_of

if TYPE_CHECKING:
    from detectron2.config import CfgNode

SAMPLE_IMAGES = 24  # of a sample: enough for two with objects
EVERY = 10  # iterations between two lines of progress


def prepare(words: Sequence[str]) -> list[str]:
    """Take KEY VALUE at the end of the command line, as training does."""
    return set_trailing(words)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "overfit",
        description="Train on one batch until its loss is near zero, without augmentation, "
        "stochastic depth or decay. A detector that cannot do it will not learn a data set either: "
        "exit code 1, with a diagnosis.",
        epilog="example: ulga overfit configs/brain_tumor_swin_ulga_nano.yaml --sample",
    )
    parser.add_argument("config", metavar="CONFIG", help="a config file")
    parser.add_argument(
        "--sample", action="store_true", help="make the images, instead of reading the data set's"
    )
    parser.add_argument("--images", type=int, default=2, help="in the batch (default 2)")
    parser.add_argument("--iterations", type=int, default=120, help="at most (default 120)")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="at most (default: no limit)"
    )
    add_set_option(parser)


def run(args: argparse.Namespace) -> int:
    """Train and say how it went; 1 if the loss did not come near zero."""
    from ..config import resolve_classes
    from ..engine.datasets import load_run_data, resolve_intensity
    from ..engine.launch import read_config
    from ..engine.overfit import diagnosis, memorise, read_batch
    from ..inference.device import resolve_device

    for name, value in (("--images", args.images), ("--iterations", args.iterations)):
        if value < 1:
            raise UserError(f"{name} is {value}; give 1 or more")
    still = [f"MODEL.ULGA.{kind}.DROP_PATH_RATE" for kind in ("VIT", "SWIN", "DAT")]
    opts = words_of(args)
    opts += [word for key in still for word in (key, "0.0")]
    cfg = read_config(argparse.Namespace(config_file=args.config, opts=opts, eval_only=True))
    resolve_device(cfg)
    with _sampled(cfg) if args.sample else contextlib.nullcontext():
        data = load_run_data(cfg, with_training=True)
        resolve_intensity(cfg, data.train)
        batch = read_batch(cfg, data.train, args.images)
    resolve_classes(cfg, data.class_names, data.category_ids)
    objects = sum(len(image["instances"]) for image in batch)
    show(f"{len(batch)} images of {cfg.INPUT.SQUARE_SIZE} px with {objects} objects", flush=True)
    outcome = memorise(
        cfg, batch, iterations=args.iterations, seconds=args.seconds, report=_Progress(args)
    )
    total, count = sum(outcome.losses[-1].values()), len(outcome.losses)
    state = "learnt" if outcome.is_learnt else "NOT learnt"
    show(f"{state}: loss {total:.3f} after {count} iterations, {outcome.seconds:.0f} s")
    if not outcome.is_learnt:
        show(f"diagnosis: {diagnosis(outcome)}")
    return 0 if outcome.is_learnt else 1


class _Progress:
    """Print the first, every tenth and the last iteration, with the longest time that is left."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._iterations, self._limit = args.iterations, args.seconds
        self._start = time.perf_counter()

    def __call__(self, number: int, losses: dict[str, float]) -> None:
        done = number + 1
        if done % EVERY and done not in (1, self._iterations):
            return
        passed = time.perf_counter() - self._start
        left = min(passed / done * (self._iterations - done), self._limit - passed)
        words = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        show(
            f"iteration {done} of {self._iterations}: {words}; at most {left:.0f} s to go",
            file=sys.stderr,
        )


@contextlib.contextmanager
def _sampled(cfg: CfgNode) -> Iterator[None]:
    """Point the data root at a sample of the config's data set, for as long as it is read."""
    from ..data.sample import write_sample
    from .sample import FORMATS

    dataset = cfg.DATASETS.TRAIN[0].rpartition("_")[0]
    if dataset not in FORMATS:
        raise UserError(
            f"--sample: DATASETS.TRAIN is {cfg.DATASETS.TRAIN[0]}, and samples are made of "
            f"{', '.join(FORMATS)}; leave --sample out to read the data"
        )
    before = os.environ.get("DETECTRON2_DATASETS")
    with tempfile.TemporaryDirectory() as folder:
        write_sample(
            dataset,
            Path(folder) / dataset,
            num_train=SAMPLE_IMAGES,
            num_val=SAMPLE_IMAGES,
            size=cfg.INPUT.SQUARE_SIZE,
            difficulty="easy",
            seed=0,
            layout=FORMATS[dataset][0],
        )
        os.environ["DETECTRON2_DATASETS"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["DETECTRON2_DATASETS"]
            else:
                os.environ["DETECTRON2_DATASETS"] = before
