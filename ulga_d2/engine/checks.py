"""What no run can work with, found from the config alone, before any data is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from detectron2.config import get_cfg as get_detectron2_cfg
from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, build_model

from ..config import leaf_keys, value_of
from ..errors import UserError
from ..inference.nms import build_suppression
from ..inference.preprocess import check_preprocessing
from ..values import check_values

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn

MOST_PARAMETERS = 2 * 10**9  # 32 GB with their gradients and moments; ours have at most 0.1 * 10**9

# detectron2's keys that a stock trainer reads and this one does not, with what to use instead.
OF_THE_STOCK_INPUT = "INPUT.SQUARE_SIZE and INPUT.SCALE_RANGE set the sizes"
OF_THE_STOCK_OPTIMIZER = "the optimizer is AdamW; vectors and tables do not decay"
NO_EFFECT = {
    "INPUT.MIN_SIZE_TRAIN": OF_THE_STOCK_INPUT,
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": OF_THE_STOCK_INPUT,
    "INPUT.MAX_SIZE_TRAIN": OF_THE_STOCK_INPUT,
    "INPUT.CROP.ENABLED": OF_THE_STOCK_INPUT,
    "INPUT.CROP.TYPE": OF_THE_STOCK_INPUT,
    "INPUT.CROP.SIZE": OF_THE_STOCK_INPUT,
    "SOLVER.MOMENTUM": OF_THE_STOCK_OPTIMIZER,
    "SOLVER.NESTEROV": OF_THE_STOCK_OPTIMIZER,
    "SOLVER.BIAS_LR_FACTOR": OF_THE_STOCK_OPTIMIZER,
    "SOLVER.WEIGHT_DECAY_NORM": OF_THE_STOCK_OPTIMIZER,
    "SOLVER.WEIGHT_DECAY_BIAS": OF_THE_STOCK_OPTIMIZER,
    "SOLVER.REFERENCE_WORLD_SIZE": "a batch is the same on any number of processes",
    "TEST.PRECISE_BN.ENABLED": "the recipe has no batch norm",
    "TEST.EXPECTED_RESULTS": "compare inference/metrics.json",
    "MODEL.BACKBONE.FREEZE_AT": "the whole backbone trains",
    "MODEL.LOAD_PROPOSALS": "proposals come from MODEL.RPN",
    "CUDNN_BENCHMARK": "it would pick kernels by their timing, and runs could not be repeated",
}


def check_config(cfg: CfgNode) -> None:
    """Refuse values that no run can work with, and keys that this trainer would not heed.

    Raises:
        UserError: naming the key and the values that are valid.
    """
    check_values(cfg)
    check_preprocessing(cfg)
    build_suppression(cfg)  # refuses what does not fit
    if not 0 <= cfg.SOLVER.BASE_LR_END <= cfg.SOLVER.BASE_LR:
        raise UserError(
            f"SOLVER.BASE_LR_END is {cfg.SOLVER.BASE_LR_END}; give 0 or more, and no more than "
            f"SOLVER.BASE_LR ({cfg.SOLVER.BASE_LR})"
        )
    if cfg.MODEL.MASK_ON and cfg.MODEL.META_ARCHITECTURE == "RetinaNet":
        raise UserError("MODEL.MASK_ON is True; RetinaNet has boxes alone: see configs/*_mask_*")
    if cfg.MODEL.RETINANET.CLASS_WEIGHTS and cfg.MODEL.META_ARCHITECTURE != "RetinaNet":
        raise UserError(
            "MODEL.RETINANET.CLASS_WEIGHTS weights RetinaNet's focal loss, which "
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} does not have; leave it out"
        )
    _check_sampler(cfg)
    if cfg.TEST.PATIENCE and not cfg.TEST.EVAL_PERIOD:
        raise UserError("TEST.PATIENCE counts evaluations, so give TEST.EVAL_PERIOD in iterations")
    if "://" in cfg.OUTPUT_DIR:
        raise UserError(f"OUTPUT_DIR is {cfg.OUTPUT_DIR}; give a folder of this machine")
    stock = get_detectron2_cfg()
    for key in ("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"):
        if value_of(cfg, key) not in (value_of(stock, key), cfg.INPUT.SQUARE_SIZE):
            raise UserError(
                f"{key} is {value_of(cfg, key)}, and follows from INPUT.SQUARE_SIZE "
                f"({cfg.INPUT.SQUARE_SIZE}); leave it out, and set that"
            )
    for key, instead in NO_EFFECT.items():
        if value_of(cfg, key) != value_of(stock, key):
            raise UserError(f"{key} has no effect here, so leave it out: {instead}")


def _check_sampler(cfg: CfgNode) -> None:
    """Refuse keys of the training's sampling that contradict each other."""
    loader = cfg.DATALOADER
    if loader.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        if not loader.REPEAT_THRESHOLD:
            raise UserError(
                "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler repeats nothing with "
                "DATALOADER.REPEAT_THRESHOLD 0; give the share of images below which a class "
                "counts as rare, such as 0.1"
            )
    elif loader.REPEAT_THRESHOLD or not loader.REPEAT_SQRT:
        raise UserError(
            "DATALOADER.REPEAT_THRESHOLD and REPEAT_SQRT have no effect with "
            f"DATALOADER.SAMPLER_TRAIN {loader.SAMPLER_TRAIN}; give RepeatFactorTrainingSampler, "
            "or leave them out"
        )
    if loader.NEGATIVE_RATIO and loader.FILTER_EMPTY_ANNOTATIONS:
        raise UserError(
            f"DATALOADER.NEGATIVE_RATIO {loader.NEGATIVE_RATIO:g} asks for images without boxes, "
            "which DATALOADER.FILTER_EMPTY_ANNOTATIONS True drops; leave one of them out"
        )


def check_training_tiles(cfg: CfgNode) -> None:
    """Refuse to train on tiles what could not ignore the boxes that a tile cuts.

    Raises:
        UserError: the detector is not RetinaNet, or keys that count images.
    """
    of_images = cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler"
    if cfg.INPUT.TILE.SIDE and (of_images or cfg.DATALOADER.NEGATIVE_RATIO is not None):
        raise UserError(
            "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler and DATALOADER.NEGATIVE_RATIO "
            "count whole images, and INPUT.TILE.SIDE trains on tiles; leave them out, and choose "
            "the number of tiles without a target by INPUT.TILE.EMPTY_SHARE"
        )
    if cfg.INPUT.TILE.SIDE and cfg.MODEL.META_ARCHITECTURE != "RetinaNet":
        raise UserError(
            f"INPUT.TILE.SIDE is {cfg.INPUT.TILE.SIDE}, but MODEL.META_ARCHITECTURE "
            f"{cfg.MODEL.META_ARCHITECTURE} cannot train on tiles: its proposals and masks have no "
            "areas to ignore. Train RetinaNet, or give INPUT.TILE.SIDE 0; a trained detector of "
            "any kind predicts by tiles"
        )


def check_model(cfg: CfgNode) -> None:
    """Build the model without memory or weights, so that its faults show before any data is read.

    Raises:
        UserError: what the builders refuse, or a name that nobody knows.
    """
    for key, registry in (
        ("MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY),
        ("MODEL.BACKBONE.NAME", BACKBONE_REGISTRY),
    ):
        if value_of(cfg, key) not in registry:
            raise UserError(
                f"{key} is {value_of(cfg, key)!r}, which nothing is registered as; configs/_base_/ "
                "has the names that work"
            )
    _check_norms(cfg)
    _check_anchors(cfg)
    model = build_empty_model(cfg)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MOST_PARAMETERS:
        raise UserError(
            f"the model of this config has {count:,} parameters, and {MOST_PARAMETERS:,} are taken "
            "at most; give smaller widths, depths and tables"
        )
    _check_anchor_sizes(cfg, model)


def build_empty_model(cfg: CfgNode) -> nn.Module:
    """Build the model of a config without memory for its weights.

    Raises:
        UserError: what the builders refuse.
    """
    trial = cfg.clone()
    trial.MODEL.DEVICE = "meta"
    try:
        with torch.device("meta"):
            return build_model(trial)
    except KeyError as error:
        message = error.args[0] if error.args else error
        what = message if "registry" in str(message) else f"nothing in it is named {message!r}"
        raise UserError(
            f"the model cannot be built: {what}; IN_FEATURES of a head must name maps of the "
            "backbone, and NAME a class that detectron2 knows"
        ) from None
    except UserError:
        raise
    except Exception as error:  # what detectron2 asserts, in its words
        kind = type(error).__name__
        raise UserError(f"the model cannot be built from this config: {kind} {error}") from None


def _check_norms(cfg: CfgNode) -> None:
    for key in (key for key in leaf_keys(cfg.MODEL, "MODEL.") if key.endswith(".NORM")):
        try:
            get_norm(value_of(cfg, key), 32)
        except KeyError:
            raise UserError(
                f"{key} is {value_of(cfg, key)!r}; give GN, LN, BN, SyncBN, FrozenBN or ''"
            ) from None


def _head_levels(cfg: CfgNode) -> tuple[str, list[str]]:
    owner = "RETINANET" if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "RPN"
    return f"MODEL.{owner}.IN_FEATURES", cfg.MODEL[owner].IN_FEATURES


def _check_anchors(cfg: CfgNode) -> None:
    owner, levels = _head_levels(cfg)
    for key in ("MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"):
        rows = value_of(cfg, key)
        if len(rows) not in (1, len(levels)):
            raise UserError(
                f"{key} has {len(rows)} rows; give one for all levels, or one for each of "
                f"{owner} ({', '.join(levels)})"
            )


def _check_anchor_sizes(cfg: CfgNode, model: nn.Module) -> None:
    """Refuse anchors that leave gaps in a level's grid, or that no image can hold."""
    _, levels = _head_levels(cfg)
    rows, side = cfg.MODEL.ANCHOR_GENERATOR.SIZES, cfg.INPUT.SQUARE_SIZE
    shapes = model.backbone.output_shape()
    for level, row in zip(levels, rows if len(rows) > 1 else rows * len(levels), strict=True):
        if max(row) < shapes[level].stride:
            raise UserError(
                f"MODEL.ANCHOR_GENERATOR.SIZES has {list(row)} pixels for {level}, whose anchors "
                f"stand {shapes[level].stride} pixels apart; give at least one size as large, or "
                "objects between them meet no anchor"
            )
    if min(min(row) for row in rows) > side:
        raise UserError(
            f"MODEL.ANCHOR_GENERATOR.SIZES is {rows}: every anchor is larger than an image of "
            f"INPUT.SQUARE_SIZE {side}; give sizes in pixels of the network's input"
        )
