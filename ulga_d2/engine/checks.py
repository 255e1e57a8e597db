"""What no run can work with, found from the config alone, before any data is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from detectron2.config import get_cfg as get_detectron2_cfg
from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, build_model

from ..config import leaf_keys, value_of
from ..errors import UserError
from .loader import build_intensity

if TYPE_CHECKING:
    from detectron2.config import CfgNode

SCHEDULES = ("WarmupMultiStepLR", "WarmupCosineLR")
FLIPS = ("none", "horizontal", "vertical")

# key, whether a value works, and the cure.
VALID: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("SEED", lambda v: v >= 0, "data order is a function of it, so give 0 or more"),
    (
        "DATALOADER.ASPECT_RATIO_GROUPING",
        lambda v: not v,
        "it must be False: it would make a batch depend on what the loader read before, and a "
        "resumed run would differ",
    ),
    ("DATASETS.NIH_NEGATIVES", lambda v: v >= 0, "give a number of images, or 0 for none"),
    ("DATASETS.COD10K_CLASSES", lambda v: v in (1, 69), "give 1, or 69 for the sub-classes"),
    ("DATASETS.FOLD", lambda v: v >= 0, "folds count from 0"),
    ("DATALOADER.NUM_WORKERS", lambda v: v >= 0, "give 0 or more"),
    ("INPUT.SQUARE_SIZE", lambda v: v >= 32 and v % 32 == 0, "give a multiple of 32"),
    (
        "INPUT.SCALE_RANGE",
        lambda v: len(v) == 2 and 0 < v[0] <= v[1],
        "give two factors, the smaller one first",
    ),
    ("INPUT.RANDOM_FLIP", lambda v: v in FLIPS, f"give {' or '.join(FLIPS)}"),
    ("SOLVER.IMS_PER_BATCH", lambda v: v >= 1, "give 1 or more"),
    ("SOLVER.ACCUMULATION_STEPS", lambda v: v >= 1, "give 1 or more"),
    ("SOLVER.CHECKPOINT_KEEP", lambda v: v >= 1, "give 1 or more"),
    ("SOLVER.NUM_EPOCHS", lambda v: v >= 0, "give 1 or more, or 0 for MAX_ITER"),
    ("SOLVER.MAX_ITER", lambda v: v >= 1, "give 1 or more"),
    ("SOLVER.BASE_LR", lambda v: v > 0, "give a rate above 0"),
    ("SOLVER.LR_SCHEDULER_NAME", lambda v: v in SCHEDULES, f"give {' or '.join(SCHEDULES)}"),
    (
        "SOLVER.STEPS",
        lambda v: all(a < b for a, b in zip((0, *v), v, strict=False)),
        "give iterations that grow",
    ),
    (
        "SOLVER.STEP_FRACTIONS",
        lambda v: all(a < b for a, b in zip((0, *v), (*v, 1), strict=True)),
        "give shares of the run that grow, between 0 and 1",
    ),
    (
        "SOLVER.AMP.ENABLED",
        lambda v: v is None or isinstance(v, bool),
        "give True, False, or None for what suits the device",
    ),
    (
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
        lambda v: v == "full_model",
        "only 'full_model' (one norm over all gradients) is built",
    ),
    ("TEST.EVAL_PERIOD", lambda v: v >= 0, "give iterations, or 0 for the end alone"),
    ("TEST.PATIENCE", lambda v: v >= 0, "give a number of evaluations, or 0 for no early stop"),
    ("MODEL.FPN.FUSE_TYPE", lambda v: v in ("sum", "avg"), "give sum or avg"),
    ("TEST.FROC_HIT", lambda v: v in ("iou", "centre"), "give iou or centre"),
    ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", lambda v: v > 0, "give a norm above 0"),
)

# detectron2's keys that a stock trainer reads and this one does not, with what to use instead.
OF_THE_STOCK_INPUT = "INPUT.SQUARE_SIZE and INPUT.SCALE_RANGE set the sizes"
OF_THE_STOCK_OPTIMIZER = "the optimizer is AdamW; vectors and tables do not decay"
NO_EFFECT = {
    "INPUT.MIN_SIZE_TRAIN": OF_THE_STOCK_INPUT,
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": OF_THE_STOCK_INPUT,
    "INPUT.MAX_SIZE_TRAIN": OF_THE_STOCK_INPUT,
    "INPUT.MIN_SIZE_TEST": OF_THE_STOCK_INPUT,
    "INPUT.MAX_SIZE_TEST": OF_THE_STOCK_INPUT,
    "INPUT.CROP.ENABLED": OF_THE_STOCK_INPUT,
    "INPUT.CROP.TYPE": OF_THE_STOCK_INPUT,
    "INPUT.CROP.SIZE": OF_THE_STOCK_INPUT,
    "DATALOADER.SAMPLER_TRAIN": "every epoch shows every image once",
    "DATALOADER.REPEAT_THRESHOLD": "every epoch shows every image once",
    "SOLVER.MOMENTUM": OF_THE_STOCK_OPTIMIZER,
    "SOLVER.NESTEROV": OF_THE_STOCK_OPTIMIZER,
    "SOLVER.BIAS_LR_FACTOR": OF_THE_STOCK_OPTIMIZER,
    "SOLVER.WEIGHT_DECAY_NORM": OF_THE_STOCK_OPTIMIZER,
    "SOLVER.WEIGHT_DECAY_BIAS": OF_THE_STOCK_OPTIMIZER,
    "SOLVER.REFERENCE_WORLD_SIZE": "a batch is the same on any number of processes",
    "TEST.AUG.ENABLED": "test-time augmentation is not built",
    "TEST.PRECISE_BN.ENABLED": "the recipe has no batch norm",
    "TEST.EXPECTED_RESULTS": "compare inference/metrics.json",
    "MODEL.BACKBONE.FREEZE_AT": "the whole backbone trains",
    "CUDNN_BENCHMARK": "it would pick kernels by their timing, and runs could not be repeated",
}


def check_config(cfg: CfgNode) -> None:
    """Refuse values that no run can work with, and keys that this trainer would not heed.

    Raises:
        UserError: naming the key and the values that are valid.
    """
    for key, is_valid, cure in VALID:
        value = value_of(cfg, key)
        if not is_valid(value):
            raise UserError(f"{key} is {value!r}; {cure}")
    build_intensity(cfg)
    if not 0 <= cfg.SOLVER.BASE_LR_END <= cfg.SOLVER.BASE_LR:
        raise UserError(
            f"SOLVER.BASE_LR_END is {cfg.SOLVER.BASE_LR_END}; give 0 or more, and no more than "
            f"SOLVER.BASE_LR ({cfg.SOLVER.BASE_LR})"
        )
    if cfg.TEST.PATIENCE and not cfg.TEST.EVAL_PERIOD:
        raise UserError("TEST.PATIENCE counts evaluations, so give TEST.EVAL_PERIOD in iterations")
    if "://" in cfg.OUTPUT_DIR:
        raise UserError(f"OUTPUT_DIR is {cfg.OUTPUT_DIR}; give a folder of this machine")
    stock = get_detectron2_cfg()
    for key, instead in NO_EFFECT.items():
        if value_of(cfg, key) != value_of(stock, key):
            raise UserError(f"{key} has no effect here, so leave it out: {instead}")


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
    trial = cfg.clone()
    trial.MODEL.DEVICE = "meta"
    try:
        with torch.device("meta"):
            build_model(trial)
    except KeyError as error:
        raise UserError(
            f"the model cannot be built: nothing in it is named {error}; IN_FEATURES of a head "
            "must name maps of the backbone"
        ) from None


def _check_norms(cfg: CfgNode) -> None:
    for key in (key for key in leaf_keys(cfg.MODEL, "MODEL.") if key.endswith(".NORM")):
        try:
            get_norm(value_of(cfg, key), 32)
        except KeyError:
            raise UserError(
                f"{key} is {value_of(cfg, key)!r}; give GN, LN, BN, SyncBN, FrozenBN or ''"
            ) from None


def _check_anchors(cfg: CfgNode) -> None:
    owner = "RETINANET" if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "RPN"
    levels = cfg.MODEL[owner].IN_FEATURES
    for key in ("MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"):
        rows = value_of(cfg, key)
        if len(rows) not in (1, len(levels)):
            raise UserError(
                f"{key} has {len(rows)} rows; give one for all levels, or one for each of "
                f"MODEL.{owner}.IN_FEATURES ({', '.join(levels)})"
            )
