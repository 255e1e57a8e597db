"""`ulga fit`: the memory and time that a training will take, and how to make it fit."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..terminal import show
from .settings import add_set_option, set_trailing, words_of

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ..engine.fit import Forecast, Plan

GIB = 1 << 30
BOXES = 10  # in an image, where the data set is not here
IMAGES = 1000  # of an epoch, likewise


def prepare(words: Sequence[str]) -> list[str]:
    """Take KEY VALUE at the end of the command line, as training does."""
    return set_trailing(words)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "fit",
        description="Foretell the peak memory and the time of a training from short trials on "
        "made-up images. Where it does not fit, propose settings that do, in words that "
        "train_net.py takes, and check them by a trial. Exit code 1 where nothing fits.",
        epilog="example: ulga fit configs/brain_tumor_swin_ulga.yaml --memory 4",
    )
    parser.add_argument("config", metavar="CONFIG", help="a config file")
    parser.add_argument(
        "--memory", type=float, metavar="GIB", help="the limit (default: what the device has free)"
    )
    add_set_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print the forecasts, the proposal and its check."""
    from ..engine.fit import forecasts, plan_of
    from ..engine.launch import read_config
    from ..engine.memory import free_memory
    from ..engine.trial import Cost, measure
    from ..inference.device import resolve_device, resolve_workers

    if args.memory is not None and not args.memory > 0:
        raise UserError(f"--memory is {args.memory}; give GiB, more than 0")
    words = words_of(args)
    namespace = argparse.Namespace(
        config_file=args.config, opts=words, eval_only=False, num_gpus=1, num_machines=1
    )
    cfg = read_config(namespace)
    resolve_device(cfg)
    resolve_workers(cfg, 1)
    facts = _facts(cfg)
    limit = args.memory * GIB if args.memory else free_memory(cfg.MODEL.DEVICE)
    asked = plan_of(cfg)
    show(f"device {cfg.MODEL.DEVICE}, limit {limit / GIB:.2f} GiB; {facts['words']}", flush=True)

    def trial(options: dict[str, Any]) -> Cost:
        show(f"trial: {_words(options)}", file=sys.stderr, flush=True)
        return measure(cfg, options, boxes=facts["boxes"], classes=facts["classes"])

    found = []
    for forecast in forecasts(asked, trial, limit):
        found.append(forecast)
        show(_line(forecast, asked, facts["images"]), flush=True)
    return _close(found[-1], asked, limit, trial(found[-1].plan.options()))


def _facts(cfg: CfgNode) -> dict[str, Any]:
    """Return what the data set says of a training's size, or what is assumed without it."""
    from ..engine.datasets import load_run_data

    try:
        data = load_run_data(cfg, with_training=True)
    except UserError:
        words = f"the data are not here: {IMAGES} images an epoch, {BOXES} boxes each, 1 class"
        return {"images": IMAGES, "boxes": BOXES, "classes": 1, "words": words}
    boxes = max(len(record["annotations"]) for record in data.train)
    images, classes = data.epoch_length, len(data.class_names)
    what = "tiles an epoch" if data.tiles else "training images"
    words = f"{images} {what}, at most {boxes} boxes each"
    return {"images": images, "boxes": boxes, "classes": classes, "words": words}


def _line(forecast: Forecast, asked: Plan, images: int) -> str:
    words = _words(forecast.plan.options(asked))
    return (
        f"{forecast.peak / GIB:6.2f} GiB, {_time(forecast.epoch_seconds(images))} an epoch: "
        f"{forecast.what}  {words}"
    ).rstrip()


def _close(chosen: Forecast, asked: Plan, limit: float, cost: Any) -> int:
    off = chosen.peak / cost.peak - 1
    show(
        f"checked by a trial: {cost.peak / GIB:.2f} GiB (foretold {off:+.0%}), "
        f"{cost.step_seconds:.2f} s a step (foretold {chosen.step_seconds:.2f})"
    )
    if cost.peak > limit:
        show("it does NOT fit: take a smaller model, or another machine")
        return 1
    words = _words(chosen.plan.options(asked))
    show(f"it fits as: {words}" if words else "it fits as it is")
    return 0


def _words(options: dict[str, Any]) -> str:
    return " ".join(f"{key} {value}" for key, value in options.items())


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
