"""A trained detector, loaded from a run folder, a checkpoint, shared weights or the zoo."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .. import get_cfg
from ..config import (
    merge_config,
    merge_options,
    merge_text,
    resolve_classes,
    stated_category_ids,
)
from ..errors import UserError
from ..values import check_values
from ..weights.checkpoint import (
    evaluated_weights,
    holds_checkpoint,
    last_checkpoint_name,
    load_checkpoint,
    load_last,
    load_weights,
)
from ..weights.digest import weights_sha256
from .detections import Category
from .device import resolve_device
from .model import build_seeded_model
from .preprocess import adopt_intensity

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

INFERENCE_FOLDER = "inference"
INFERENCE_CHECKPOINT = "model_inference.pth"
THRESHOLD = "threshold/score"  # the metric whose value "best_f1" stands for


@dataclass(frozen=True)
class LoadedModel:
    """A trained detector and what it needs.

    Attributes:
        source: where it was loaded from.
        cfg: its resolved config, on the device of this machine.
        model: in evaluation mode, with the weights that its run evaluated.
        categories: its classes.
        best_f1: score of the highest F1 on the run's own test set; None where it is not stored.
        sha256: fingerprint of its weights.
    """

    source: str
    cfg: CfgNode
    model: nn.Module
    categories: tuple[Category, ...]
    best_f1: float | None
    sha256: str


def load_model(
    source: str | Path,
    weights: str | Path | None = None,
    *,
    device: str = "auto",
    options: Mapping[str, Any] | None = None,
    half_precision: bool = False,
) -> LoadedModel:
    """Load a trained detector.

    Args:
        source: a run folder, a checkpoint (.pth), shared weights (.safetensors), zoo://NAME, or a
            config file: of a run, or with `weights` or MODEL.WEIGHTS.
        weights: the checkpoint of a config; else the config comes from the checkpoint.
        device: "auto" takes CUDA where there is one.
        options: config keys that change the detector, such as TEST.DETECTIONS_PER_IMAGE.
        half_precision: it will compute in bfloat16.

    Raises:
        UserError: a file that is missing, damaged or not of a trained detector; weights that do
            not fit the config; a device that this machine does not have.
    """
    if weights is None and str(source).endswith((".yaml", ".yml")):
        source, weights = _of_config(Path(source))
    path, state = _read(source, weights)
    logger.info("%s: iteration %s", path, state.get("iteration"))
    cfg = _config_of(source, weights, path, state)
    names = _names_of(path, state)
    if weights is not None:
        _check_same_classes(str(source), cfg, path, names)
    cfg.MODEL.DEVICE = device
    cfg.MODEL.WEIGHTS = ""
    cfg.SOLVER.AMP.ENABLED = None
    for key, value in (options or {}).items():
        merge_options(cfg, [key, str(value)])
    adopt_intensity(cfg, state.get("config"), path)
    check_values(cfg)
    resolve_device(cfg)
    if half_precision and not cfg.SOLVER.AMP.ENABLED:
        raise UserError(
            f"half precision: {cfg.MODEL.DEVICE} has no bfloat16 instructions, and would be slower "
            "with it; leave the option out"
        )
    cfg.SOLVER.AMP.ENABLED = half_precision
    ids = stated_category_ids(state.get("config") or "{}", len(names))
    resolve_classes(cfg, names, ids)
    model = _build(cfg, path)
    weights_of = evaluated_weights(state)
    load_weights(model, {"model": weights_of}, path)
    return LoadedModel(
        source=str(source),
        cfg=cfg,
        model=model.eval(),
        categories=tuple(map(Category, ids, names)),
        best_f1=_threshold_of(path, state),
        sha256=weights_sha256(weights_of),
    )


def _of_config(config: Path) -> tuple[Path, str | Path | None]:
    """Return what a config without weights stands for: the run that it lies in, or its weights.

    MODEL.WEIGHTS of a run's own config.yaml is what its training started from.
    """
    beside = config.parent / INFERENCE_CHECKPOINT
    if beside.is_file():
        return config, beside
    if config.name == "config.yaml" and _is_run(config.parent):
        return config.parent, None
    cfg = get_cfg()
    merge_config(cfg, str(config), [])
    if not cfg.MODEL.WEIGHTS:
        raise UserError(f"{config} names no MODEL.WEIGHTS; give a checkpoint, or both of them")
    return config, cfg.MODEL.WEIGHTS


def _is_run(folder: Path) -> bool:
    evaluated = folder / INFERENCE_FOLDER / INFERENCE_CHECKPOINT
    return evaluated.is_file() or holds_checkpoint(folder)


def _check_same_classes(config: str, cfg: CfgNode, path: str, names: tuple[str, ...]) -> None:
    stated = tuple(cfg.DATASETS.CLASS_NAMES)
    if stated and stated != names:
        raise UserError(
            f"{config} and {path} belong to different runs: their classes are {list(stated)} and "
            f"{list(names)}; give the checkpoint alone, or the config of its run"
        )


def _read(source: str | Path, weights: str | Path | None) -> tuple[str, dict[str, Any]]:
    """Return the path of the checkpoint that `source` stands for, and what it holds."""
    if weights is not None:
        return str(weights), load_checkpoint(weights)
    folder = Path(source)
    if "://" not in str(source) and folder.is_dir():
        evaluated = folder / INFERENCE_FOLDER / INFERENCE_CHECKPOINT
        if evaluated.is_file():
            state = load_checkpoint(evaluated)
            _warn_of_newer(folder, state.get("iteration"))
            return str(evaluated), state
        if not _is_run(folder):
            raise UserError(
                f"{folder} holds no trained model ({INFERENCE_FOLDER}/{INFERENCE_CHECKPOINT} or "
                "model_*.pth); give the OUTPUT_DIR of a run, or a checkpoint"
            )
        path, state = load_last(folder)
        return str(path), state
    return str(source), load_checkpoint(source)


def _warn_of_newer(folder: Path, iteration: object) -> None:
    """Warn where a run has gone on since the evaluation whose weights are taken."""
    latest = re.fullmatch(r"model_(\d+)\.pth", last_checkpoint_name(folder))
    if latest and isinstance(iteration, int) and int(latest[1]) > iteration:
        logger.warning(
            "%s: the evaluated weights are those of iteration %d, and the run has come to %d; "
            "evaluate it again, or give %s",
            folder,
            iteration,
            int(latest[1]),
            folder / latest[0],
        )


def _config_of(
    source: str | Path, weights: str | Path | None, path: str, state: Mapping[str, Any]
) -> CfgNode:
    cfg = get_cfg()
    if weights is not None:
        merge_config(cfg, str(source), [])
    elif isinstance(state.get("config"), str):
        merge_text(cfg, state["config"], path)
    else:
        raise UserError(f"{path} holds no config; give the config of its run, too")
    return cfg


def _names_of(path: str, state: Mapping[str, Any]) -> tuple[str, ...]:
    names = state.get("class_names")
    is_list = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    if not names or not is_list:
        raise UserError(f"{path} holds no class names; it was not written by a run's evaluation")
    return tuple(names)


def _build(cfg: CfgNode, path: str) -> nn.Module:
    try:
        with torch.random.fork_rng():  # the caller's random numbers stay
            return build_seeded_model(cfg)
    except UserError:
        raise
    except Exception as error:  # what detectron2 asserts, in its words
        kind = type(error).__name__
        raise UserError(f"{path}: its config builds no model: {kind} {error}") from None


def _threshold_of(path: str, state: Mapping[str, Any]) -> float | None:
    """Return the score of the highest F1, from the checkpoint, else from its run's metrics."""
    metrics = state.get("metrics")
    if not isinstance(metrics, Mapping):
        metrics = _metrics_beside(path)
    value = metrics.get(THRESHOLD)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _metrics_beside(path: str) -> Mapping[str, Any]:
    """Return the metrics of the last evaluation in a checkpoint's run folder.

    They belong to the final weights alone.
    """
    file = Path(path).parent / INFERENCE_FOLDER / "metrics.json"
    if "://" in path or Path(path).name != "model_final.pth" or not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
