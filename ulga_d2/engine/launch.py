"""From the command line to a run: arguments, checked set-up, processes, the closing table."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import split_settings
from ..errors import UserError
from ..terminal import show, table

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ..weights.layout import PublicWeights
    from .trainer import Trainer


DESCRIPTION = "Train or evaluate a detector."
EXAMPLE = "--data my_images SOLVER.IMS_PER_BATCH 8"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add detectron2's training flags, with their meaning there."""
    parser.add_argument("--config-file", default="", metavar="FILE", help="YAML file of the run")
    parser.add_argument(
        "--data",
        default="",
        metavar="PATH",
        help="your own images: a folder, COCO or VIA JSON, CSV, data.yaml, VOC or dataset YAML",
    )
    parser.add_argument(
        "--model",
        default="",
        metavar="NAME",
        help="with --data: {swin,vit,dat}_{baseline,ulga}, or with _nano (default: swin_ulga_nano)",
    )
    parser.add_argument("--resume", action="store_true", help="go on from OUTPUT_DIR's checkpoint")
    parser.add_argument(
        "--eval-only",
        action="store_true",
        help="evaluate MODEL.WEIGHTS, or with --resume the last checkpoint, and stop",
    )
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        help="processes on this machine: one a GPU, or CPU processes with MODEL.DEVICE cpu",
    )
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="from 0, unique per machine")
    parser.add_argument(
        "--dist-url",
        default="auto",
        help="tcp://HOST:PORT of machine 0; auto finds a free port on one machine",
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config overrides, before or behind the flags; --set KEY VALUE does the same",
    )


def settings_last(words: Sequence[str]) -> list[str]:
    """Return the command line with its settings at the end, where `add_arguments` takes them."""
    others, settings = split_settings(words)
    return [*others, *settings]


def run(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and launch; return `launch`'s exit code, or 2 for the user's error."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=f"example: python train_net.py {EXAMPLE}"
    )
    add_arguments(parser)
    args = parser.parse_args(settings_last(sys.argv[1:] if argv is None else argv))
    try:
        return launch(args)
    except UserError as error:
        show(f"error: {error}", file=sys.stderr)
        return 2


def launch(args: argparse.Namespace) -> int:
    """Call `main` in as many processes as `args` asks for; return 0, or 130 when interrupted.

    Under torchrun this process is one of them, and ends here.

    Raises:
        UserError: see `main`; also where torch or detectron2 is missing.
    """
    try:
        if args.model and not args.data:
            raise UserError("--model goes with --data PATH; else --config-file names the model")
        if args.data:
            from .own_data import prepare_data

            prepare_data(args)
        if {"RANK", "WORLD_SIZE"} <= os.environ.keys():
            from .torchrun import run_started, take_place

            take_place(args)
            run_started(main, args, _device_of)
        if num_processes(args) > 1:
            from .distributed import launch_processes

            return launch_processes(main, args, _device_of(args))
        main(args)
    except ModuleNotFoundError as error:
        raise UserError(f"no module {error.name}; `ulga doctor` tells the cure") from None
    except KeyboardInterrupt:
        show("interrupted; --resume goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _device_of(args: argparse.Namespace) -> str:
    from ..inference.device import resolve_device

    cfg = read_config(args)
    resolve_device(cfg)
    return cfg.MODEL.DEVICE


def num_processes(args: argparse.Namespace) -> int:
    """Return the number of processes of the run, on all machines."""
    return max(1, args.num_gpus) * args.num_machines


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train or evaluate as `args` says, in this process; return the last evaluation's results.

    Raises:
        UserError: anything in the arguments, the config, the data or the machine that the user can
            mend; found before any long work wherever possible.
    """
    from ..folder_lock import release_locks
    from .signals import StopSignals, stop_now

    try:
        with StopSignals(grace=5) as signals, signals.at_once(stop_now):
            return _main(args)
    finally:
        release_locks()


def _main(args: argparse.Namespace) -> dict[str, Any]:
    from detectron2.utils import comm

    start = time.perf_counter()
    cfg, data, state = setup(args)
    if args.eval_only:
        source = f"the last checkpoint of {cfg.OUTPUT_DIR}" if args.resume else cfg.MODEL.WEIGHTS
        results = _evaluate_only(cfg, data, state, source)
    else:
        from .run_folder import finished_results, write_config
        from .trainer import Trainer

        results = comm.all_gather(finished_results(cfg, state))[0] if args.resume else None
        if results is None:
            trainer = Trainer(cfg, data, state, resume=args.resume)
            write_config(cfg)  # only now is it known that the checkpoint fits
            results = _train(trainer)
    if comm.is_main_process():
        _log_summary(cfg, results, time.perf_counter() - start)
    return results


def _train(trainer: Trainer) -> dict[str, Any]:
    try:
        return trainer.train()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{error.filename or trainer.cfg.OUTPUT_DIR}: {error.strerror}. The last checkpoint is "
            "still in force: make room, and --resume goes on from there"
        ) from None


def read_config(args: argparse.Namespace) -> CfgNode:
    """Merge the config file and the options, and check what can be checked without the data.

    Raises:
        UserError: naming the file or option, the key and the cure.
    """
    from .. import get_cfg
    from ..config import merge_config
    from .checks import check_config, check_model, check_training_tiles
    from .datasets import resolve_custom
    from .sampler import micro_batch_size

    if not args.config_file:
        raise UserError(
            "no config: give --data PATH to train on your own images, or --config-file, for "
            "example one of configs/*.yaml"
        )
    cfg = get_cfg()
    merge_config(cfg, args.config_file, args.opts)
    resolve_custom(cfg, with_training=not args.eval_only)
    check_config(cfg)
    check_model(cfg)
    if not args.eval_only:
        solver = cfg.SOLVER
        micro_batch_size(solver.IMS_PER_BATCH, solver.ACCUMULATION_STEPS, num_processes(args))
        check_training_tiles(cfg)
    return cfg


def setup(
    args: argparse.Namespace,
) -> tuple[CfgNode, Any, dict[str, Any] | PublicWeights | None]:
    """Read the config, check it and the folder, load the data, resolve what depends on them.

    Returns:
        The frozen config, the run's data, and what --resume or MODEL.WEIGHTS names: a checkpoint,
        public weights, or None.
    """
    from ..config import resolve_classes, resolve_test_size
    from ..inference.device import resolve_device, resolve_workers
    from ..inference.preprocess import adopt_intensity
    from .datasets import (
        check_checkpoint_classes,
        check_intensity,
        load_run_data,
        resolve_intensity,
    )
    from .evaluation_hook import check_best_metric
    from .optimizer import resolve_schedule
    from .resumable import check_length, check_same_data
    from .run_folder import open_run_folder, read_state, warn_of_changes
    from .torchrun import goes_on, is_started_again, refuse_another_run

    cfg = read_config(args)
    goes_on_by_itself = goes_on(cfg, args)
    args.resume = args.resume or goes_on_by_itself
    open_run_folder(cfg, args)
    resolve_device(cfg)
    resolve_workers(cfg, max(1, args.num_gpus))
    state, place = read_state(cfg, args)
    if args.resume or args.eval_only:
        adopt_intensity(cfg, state.get("config"), place)
    data = load_run_data(cfg, with_training=not args.eval_only)
    if args.resume or args.eval_only:
        names = state["class_names"]
        check_checkpoint_classes(data.class_names, names, place, resume=args.resume)
    resolve_classes(cfg, data.class_names, data.category_ids)
    resolve_test_size(cfg)
    if not args.eval_only:
        resolve_intensity(cfg, data.train)
        check_best_metric(cfg, data)
        resolve_schedule(cfg, data.epoch_length)
    check_intensity(cfg, [*data.train, *(item for of in data.test.values() for item in of)])
    cfg.freeze()
    if goes_on_by_itself:
        refuse_another_run(cfg, state)
    if args.resume:
        warn_of_changes(cfg, state)
        if not args.eval_only:
            check_length(cfg, state)
            check_same_data(state, data, by_itself=is_started_again())
    return cfg, data, state


def _evaluate_only(cfg: CfgNode, data: Any, state: dict[str, Any], source: str) -> dict[str, Any]:
    from ..inference.model import build_seeded_model
    from ..weights.checkpoint import evaluated_weights, load_weights
    from .evaluate import evaluate

    model = build_seeded_model(cfg)
    load_weights(model, {"model": evaluated_weights(state)}, source)
    return evaluate(cfg, model, data, state["iteration"])


def _log_summary(cfg: CfgNode, results: dict[str, Any], seconds: float) -> None:
    """Log the closing table: one row a test set, the cost of the run, and where the picture is."""
    from ..evaluation.average_precision import headline
    from .evaluate import PICTURE
    from .memory import peak_memory

    by_set = {cfg.DATASETS.TEST[0]: results} if "bbox" in results else results
    metrics = headline(cfg.TEST.DETECTIONS_PER_IMAGE)
    rows = [
        [name, *(_metric(of_set, *metric.split("/")) for metric in metrics), seconds]
        for name, of_set in by_set.items()
    ]
    headers = ["data set", *metrics.values(), "seconds"]
    laid_out = table(rows, headers, floatfmt=".1f", missingval="undefined", tablefmt="pipe")
    logger = logging.getLogger(__name__)
    logger.info("results\n%s", laid_out)
    peak = peak_memory(cfg.MODEL.DEVICE) >> 20
    logger.info("peak memory %d MiB; run folder %s", peak, cfg.OUTPUT_DIR)
    pictures = sorted(Path(cfg.OUTPUT_DIR).glob(f"*{PICTURE}"))
    logger.info("picture: %s", ", ".join(str(p) for p in pictures))


def _metric(results: dict[str, Any], group: str, name: str) -> float | None:
    return results.get(group, {}).get(name)
