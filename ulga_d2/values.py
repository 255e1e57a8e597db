"""Which values of a key can work at all, with the cure for each that cannot."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from . import get_cfg
from .config import leaf_keys, value_of
from .errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

Valid = tuple[tuple[str, Callable[[Any], bool], str], ...]

SCHEDULES = ("WarmupMultiStepLR", "WarmupCosineLR")
WARMUPS = ("linear", "constant")
FLIPS = ("none", "horizontal", "vertical")

BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")
DEVICES = r"(auto|cpu|mps|cuda)(:\d+)?"

# key, whether a value works, and the cure.
OF_THE_RUN: Valid = (
    ("SEED", lambda v: v >= 0, "data order is a function of it, so give 0 or more"),
    (
        "DATALOADER.ASPECT_RATIO_GROUPING",
        lambda v: not v,
        "it must be False: it would make a batch depend on what the loader read before, and a "
        "resumed run would differ",
    ),
    ("DATASETS.NIH_NEGATIVES", lambda v: v >= 0, "give a number of images, or 0 for none"),
    ("DATASETS.COD10K_CLASSES", lambda v: v in (1, 69), "give 1, or 69 for the sub-classes"),
    ("DATASETS.TRAIN", lambda v: _are_texts(v), "give names, such as ('brain_tumor_train',)"),
    ("DATASETS.TEST", lambda v: _are_texts(v), "give names, such as ('brain_tumor_val',)"),
    ("OUTPUT_DIR", lambda v: v.strip(), "give the folder of the run"),
    ("DATASETS.FOLD", lambda v: v >= 0, "folds count from 0"),
    ("DATALOADER.NUM_WORKERS", lambda v: v >= 0, "give 0 or more"),
    ("DATALOADER.TIMEOUT", lambda v: 1 <= v <= 10**6, "give 1 to 1,000,000 seconds"),
    (
        "INPUT.SQUARE_SIZE",
        lambda v: v in range(32, 16385, 32),
        "give a multiple of 32, at most 16384",
    ),
    ("INPUT.FORMAT", lambda v: v == "RGB", "images are read as RGB, so give RGB"),
    (
        "INPUT.SCALE_RANGE",
        lambda v: len(v) == 2 and 0 < v[0] <= v[1],
        "give two factors, the smaller one first",
    ),
    ("INPUT.TILE.SIDE", lambda v: v == 0 or v >= 32, "give 32 or more pixels, or 0 for no tiles"),
    ("INPUT.TILE.OVERLAP", lambda v: 0 <= v <= 0.9, "give a share of SIDE, 0 to 0.9"),
    ("INPUT.TILE.MIN_VISIBLE", lambda v: 0 < v <= 1, "give more than 0, at most 1"),
    ("INPUT.TILE.EMPTY_SHARE", lambda v: v >= 0, "give 0 or more"),
    ("INPUT.RANDOM_FLIP", lambda v: v in FLIPS, f"give {' or '.join(FLIPS)}"),
    ("SOLVER.IMS_PER_BATCH", lambda v: v >= 1, "give 1 or more"),
    ("SOLVER.ACCUMULATION_STEPS", lambda v: v >= 1, "give 1 or more"),
    ("SOLVER.CHECKPOINT_KEEP", lambda v: v >= 1, "give 1 or more"),
    ("SOLVER.NUM_EPOCHS", lambda v: v >= 0, "give 1 or more, or 0 for MAX_ITER"),
    ("SOLVER.MAX_ITER", lambda v: v >= 1, "give 1 or more"),
    ("SOLVER.CHECKPOINT_PERIOD", lambda v: v >= 0, "give iterations, or 0 for once an epoch"),
    ("SOLVER.GAMMA", lambda v: 0 < v <= 1, "give more than 0, at most 1"),
    ("SOLVER.WEIGHT_DECAY", lambda v: v >= 0, "give 0 or more"),
    ("SOLVER.WARMUP_ITERS", lambda v: v >= 0, "give iterations, or 0 for none"),
    ("SOLVER.WARMUP_FACTOR", lambda v: 0 <= v <= 1, "give a share of BASE_LR, 0 to 1"),
    ("SOLVER.WARMUP_METHOD", lambda v: v in WARMUPS, f"give {' or '.join(WARMUPS)}"),
    ("SOLVER.BASE_LR", lambda v: v > 0, "give a rate above 0"),
    ("SOLVER.LR_SCHEDULER_NAME", lambda v: v in SCHEDULES, f"give {' or '.join(SCHEDULES)}"),
    (
        "SOLVER.STEPS",
        lambda v: all(a < b == int(b) for a, b in zip((0, *v), v, strict=False)),
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
    ("SOLVER.EMA.DECAY", lambda v: 0 < v < 1, "give a number between 0 and 1, such as 0.999"),
    (
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
        lambda v: v == "full_model",
        "only 'full_model' (one norm over all gradients) is built",
    ),
    ("TEST.EVAL_PERIOD", lambda v: v >= 0, "give iterations, or 0 for the end alone"),
    ("TEST.PATIENCE", lambda v: v >= 0, "give a number of evaluations, or 0 for no early stop"),
    ("TEST.FROC_HIT", lambda v: v in ("iou", "centre"), "give iou or centre"),
    (
        "TEST.AUG.MIN_SIZES",
        lambda v: v and min(v) >= 1,
        "give the shorter sides of the views in pixels, such as (400, 512)",
    ),
    ("TEST.AUG.MAX_SIZE", lambda v: v >= 1, "give the longest side of a view in pixels"),
    ("TEST.DETECTIONS_PER_IMAGE", lambda v: v >= 1, "give 1 or more"),
    ("SOLVER.CLIP_GRADIENTS.NORM_TYPE", lambda v: v > 0, "give a p-norm, such as 2.0"),
    ("MODEL.FPN.FUSE_TYPE", lambda v: v in ("sum", "avg"), "give sum or avg"),
    ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", lambda v: v > 0, "give a norm above 0"),
)

SHARE = (lambda v: 0 < v <= 1, "give more than 0, at most 1")
COUNT = (lambda v: v >= 1, "give 1 or more")
THREE = (lambda v: len(v) == 3, "give three numbers: red, green, blue")
OF_THE_MODEL: Valid = (
    ("MODEL.DEVICE", lambda v: re.fullmatch(DEVICES, v), "give auto, cpu, cuda, cuda:N or mps"),
    ("MODEL.KEYPOINT_ON", lambda v: not v, "no backbone or data set here has keypoints"),
    ("MODEL.PIXEL_MEAN", *THREE),
    ("MODEL.PIXEL_STD", lambda v: len(v) == 3 and min(v) > 0, "give three numbers above 0"),
    ("MODEL.FPN.OUT_CHANNELS", *COUNT),
    (
        "MODEL.ANCHOR_GENERATOR.SIZES",
        lambda v: v and all(row and min(row) > 0 for row in v),
        "give rows of sizes in pixels, such as [[16, 32], [64]]",
    ),
    (
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
        lambda v: v and all(row and min(row) > 0 for row in v),
        "give rows of heights over widths, such as [[0.5, 1.0, 2.0]]",
    ),
    ("MODEL.ANCHOR_GENERATOR.OFFSET", lambda v: 0 <= v < 1, "give 0 or more, less than 1"),
    ("MODEL.RETINANET.NUM_CLASSES", *COUNT),
    ("MODEL.RETINANET.NUM_CONVS", *COUNT),
    (
        "MODEL.RETINANET.IOU_THRESHOLDS",
        lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1,
        "give two, the smaller one first: below it is background, from the other on an object",
    ),
    (
        "MODEL.RETINANET.IOU_LABELS",
        lambda v: len(v) == 3 and set(v) <= {-1, 0, 1},
        "give three labels, such as [0, -1, 1]: background, ignored, object",
    ),
    ("MODEL.RETINANET.PRIOR_PROB", lambda v: 0 < v < 1, "give a share between 0 and 1"),
    ("MODEL.RETINANET.FOCAL_LOSS_ALPHA", lambda v: v == -1 or 0 <= v <= 1, "give 0 to 1, or -1"),
    ("MODEL.RETINANET.FOCAL_LOSS_GAMMA", lambda v: v >= 0, "give 0 or more"),
    (
        "MODEL.RETINANET.BBOX_REG_WEIGHTS",
        lambda v: len(v) == 4 and min(v) > 0,
        "give four numbers above 0",
    ),
    (
        "MODEL.RETINANET.BBOX_REG_LOSS_TYPE",
        lambda v: v in BOX_LOSSES,
        f"give {', '.join(BOX_LOSSES)}",
    ),
    ("MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", lambda v: v >= 0, "give 0 or more"),
    ("MODEL.RETINANET.NMS_THRESH_TEST", *SHARE),
    ("MODEL.RETINANET.SCORE_THRESH_TEST", lambda v: 0 <= v < 1, "give 0 or more, less than 1"),
    ("MODEL.RETINANET.TOPK_CANDIDATES_TEST", *COUNT),
    ("MODEL.RPN.BATCH_SIZE_PER_IMAGE", *COUNT),
    ("MODEL.RPN.POSITIVE_FRACTION", *SHARE),
    ("MODEL.RPN.NMS_THRESH", *SHARE),
    ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", *COUNT),
    ("MODEL.ROI_HEADS.POSITIVE_FRACTION", *SHARE),
    ("MODEL.ROI_HEADS.NMS_THRESH_TEST", *SHARE),
    ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", lambda v: 0 <= v < 1, "give 0 or more, less than 1"),
    ("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", *COUNT),
    ("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", *COUNT),
)


def check_values(cfg: CfgNode) -> None:
    """Refuse values of a wrong kind, and those that no run can work with.

    Raises:
        UserError: naming the key, the value and what to give.
    """
    _check_kinds(cfg)
    for key, is_valid, cure in (*OF_THE_RUN, *OF_THE_MODEL):
        value = value_of(cfg, key)
        try:
            works = is_valid(value)
        except TypeError:  # a list where a number is due, or the reverse
            works = False
        if not works:
            raise UserError(f"{key} is {value!r}; {cure}")


def _check_kinds(cfg: CfgNode) -> None:
    """Refuse what the merging lets pass: None, infinity, and lists with wrong things in them."""
    stock = get_cfg()
    for key in leaf_keys(stock):
        value, default = value_of(cfg, key), value_of(stock, key)
        if value is None and default is not None:
            raise UserError(f"{key} is None; give a value like {default!r}")
        found = list(_flat(value))
        if any(isinstance(part, float) and not math.isfinite(part) for part in found):
            raise UserError(f"{key} is {value!r}; give numbers that are finite")
        kinds = {_kind(part) for part in _flat(default)} if _is_list(default) else set()
        if kinds and not kinds >= {_kind(part) for part in found}:
            raise UserError(f"{key} is {value!r}; give {' or '.join(kinds)}s, like {default!r}")


def _are_texts(value: Any) -> bool:
    return all(isinstance(part, str) for part in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _flat(value: Any) -> Iterator[Any]:
    for part in value if _is_list(value) else [value]:
        yield from _flat(part) if _is_list(part) else [part]


def _kind(value: Any) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return "number" if is_number else {str: "text"}.get(type(value), type(value).__name__)
