"""The folder of a run: opened with checks, its log, its config, the checkpoint it goes on from."""

from __future__ import annotations

import argparse
import json
import logging
import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from detectron2 import __version__ as detectron2_version
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..config import changed_settings
from ..errors import UserError
from ..evaluation.atomic import remove_unfinished
from ..folder_lock import lock_folder
from ..inference.load import INFERENCE_FOLDER
from ..terminal import escape_record
from ..version import __version__
from ..weights.checkpoint import holds_checkpoint, load_checkpoint, load_last
from ..weights.layout import PublicWeights
from .hooks import METRICS
from .initial import read_initial
from .resumable import check_resumable

logger = logging.getLogger(__name__)

# Settings that change where or how fast a run goes, and not what it computes.
NO_MATTER = {
    "OUTPUT_DIR",
    "DATASETS.CATEGORY_IDS",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.TIMEOUT",
    "INPUT.MAX_SIZE_TEST",
    "INPUT.MIN_SIZE_TEST",
    "MODEL.WEIGHTS",
    "MODEL.ULGA.GRADIENT_CHECKPOINTING",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.CHECKPOINT_KEEP",
    "TEST.BEST_METRIC",
    "TEST.EVAL_PERIOD",
    "TEST.FROC_HIT",
    "TEST.PATIENCE",
}


def open_run_folder(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Make OUTPUT_DIR, lock it, start its log, and refuse to write over another run.

    Every rank must call it; the first one holds the lock until `release_locks`.

    Raises:
        UserError: on every rank: a folder that cannot be written, one that another process uses, or
            one that holds a run which is neither resumed nor evaluated.
    """
    folder = Path(cfg.OUTPUT_DIR)
    if comm.get_rank():
        faults = comm.all_gather(())
    else:
        fault: tuple[str, ...] = ()
        taken_over = ""
        try:
            taken_over = _take(folder, args)
        except UserError as error:
            fault = error.args
        except OSError as error:  # all ranks must learn of it
            fault = (f"OUTPUT_DIR {folder} cannot be read ({error.strerror}); name another folder",)
        faults = comm.all_gather(fault)
    if faults[0]:
        raise UserError(*faults[0])
    _start_log(folder)
    if not comm.get_rank() and taken_over:
        logger.warning("%s", taken_over)
    logger.info(
        "ulga_d2 %s, Python %s, torch %s, torchvision %s, detectron2 %s, %d processes x %d threads",
        __version__,
        platform.python_version(),
        torch.__version__,
        torchvision.__version__,
        detectron2_version,
        comm.get_world_size(),
        torch.get_num_threads(),
    )
    logger.info("config %s, options: %s", args.config_file, " ".join(args.opts) or "none")
    for line in getattr(args, "notes", ()):
        logger.info("%s", line)


def _take(folder: Path, args: argparse.Namespace) -> str:
    """Make the folder and lock it; refuse one that holds another run.

    Returns:
        see `lock_folder`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"OUTPUT_DIR {folder} cannot be written ({error.strerror}); name another folder"
        ) from None
    taken_over = lock_folder(folder, "OUTPUT_DIR")
    if holds_checkpoint(folder) and not (args.resume or args.eval_only):
        raise UserError(
            f"OUTPUT_DIR {folder} already holds a run. Add --resume to go on with it, or give "
            "another OUTPUT_DIR"
        )
    for path in (folder, *(folder / INFERENCE_FOLDER).glob("**/")):
        remove_unfinished(path)
    return taken_over


def _start_log(folder: Path) -> None:
    """Log to the console and to `log.txt`, and no longer to an earlier run's in this process."""
    setup_logger.cache_clear()
    for name in ("fvcore", "detectron2", "ulga_d2"):
        for handler in list(logging.getLogger(name).handlers):
            logging.getLogger(name).removeHandler(handler)
            handler.close()
        setup_logger(str(folder), distributed_rank=comm.get_rank(), name=name)
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(escape_record)


def read_state(
    cfg: CfgNode, args: argparse.Namespace
) -> tuple[dict[str, Any] | PublicWeights | None, str]:
    """Load the checkpoint that the flags ask for; return it with its path, or (None, "").

    Public weights are taken only to start a training from.

    Raises:
        UserError: --resume with nothing to resume, --eval-only without weights, or a file that
            cannot be used.
    """
    if args.resume:
        path, state = _read_last(cfg, with_training=not args.eval_only)
    elif cfg.MODEL.WEIGHTS:
        path = cfg.MODEL.WEIGHTS
        state = load_checkpoint(path) if args.eval_only else read_initial(path)
    elif args.eval_only:
        raise UserError(
            "--eval-only needs weights: add MODEL.WEIGHTS path/to/model_final.pth, or --resume for "
            "the last checkpoint in OUTPUT_DIR"
        )
    else:
        return None, ""
    if isinstance(state, PublicWeights):
        logger.info("read %s: %s", path, state.layout.name)
    else:
        logger.info("read %s (iteration %d)", path, state["iteration"])
    return state, str(path)


def _read_last(cfg: CfgNode, *, with_training: bool) -> tuple[Path, dict[str, Any]]:
    folder = cfg.OUTPUT_DIR
    if not holds_checkpoint(folder):
        raise UserError(
            f"--resume: {folder} holds no checkpoint; leave --resume out to start, or give the "
            "OUTPUT_DIR of the run to go on with"
        )
    check = partial(check_resumable, cfg) if with_training else lambda state, path: None
    path, state = load_last(folder, check)
    read = comm.all_gather((path.name, state["iteration"]))
    if len(set(read)) > 1:
        raise UserError(
            f"--resume: the ranks have read different checkpoints of {folder}: "
            f"{', '.join(f'{name} (iteration {at})' for name, at in read)}; give them one folder"
        )
    return path, state


def finished_results(cfg: CfgNode, state: dict[str, Any]) -> dict[str, Any] | None:
    """Tell of a run that had come to its end; return the results of its last evaluation.

    Returns:
        results as `evaluate` gives them; None for a run that is to go on, whose last evaluation
        was cut, or whose config has changed since, so that it is evaluated again.
    """
    done, length = state["iteration"], cfg.SOLVER.MAX_ITER
    if done != length:
        return None
    logger.info(
        "--resume: %d of %d iterations were done. Raise SOLVER.MAX_ITER to train on, or add "
        "--eval-only to score the run again",
        done,
        length,
    )
    changes = {key for key, *_ in changed_settings(state["config"], cfg.dump())}
    if changes - (NO_MATTER - {"TEST.FROC_HIT"}):
        return None
    try:
        *_, line = (Path(cfg.OUTPUT_DIR) / METRICS).read_text(encoding="utf-8").splitlines()
        last = json.loads(line)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(last, dict):
        return None
    sets = cfg.DATASETS.TEST if len(cfg.DATASETS.TEST) > 1 else ()
    results = _nested(last, sets)
    is_complete = all(results.get(name) for name in sets or ("bbox",))
    return results if last.get("iteration") == done and is_complete else None


def _nested(figures: dict[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """Turn "bbox/AP" of one set, or "name/bbox/AP" of several, into dicts in dicts."""
    if not sets:
        groups: dict[str, Any] = {}
        for key, value in figures.items():
            group, slash, name = key.partition("/")
            if slash:
                groups.setdefault(group, {})[name] = value
        return groups
    return {
        name: _nested(
            {
                key.removeprefix(f"{name}/"): value
                for key, value in figures.items()
                if key.startswith(f"{name}/")
            },
            (),
        )
        for name in sets
    }


def warn_of_changes(cfg: CfgNode, state: dict[str, Any]) -> None:
    """Log which settings of a resumed run differ from those that its checkpoint was made with."""
    for key, old, new in changed_settings(state["config"], cfg.dump()):
        if key not in NO_MATTER:
            logger.warning("--resume: %s was %s and is %s now", key, old, new)
    old, new = len(state["loss_normalizer"]), comm.get_world_size()
    if old != new:
        logger.warning(
            "--resume: the run had %d processes and has %d now: its images are the same, its last "
            "bits are not",
            old,
            new,
        )


def write_config(cfg: CfgNode) -> None:
    """Write the resolved config to `config.yaml`, from which the run can be repeated."""
    if comm.is_main_process():
        (Path(cfg.OUTPUT_DIR) / "config.yaml").write_text(cfg.dump(), encoding="utf-8")
