"""Which values of a key can work at all, with the cure for each that cannot."""

from __future__ import annotations

import math
import re
import unicodedata
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
NMS_METHODS = ("hard", "linear", "gaussian")
SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler")
FLIPS = ("none", "horizontal", "vertical")

MOST_PIXELS = 16384  # of a side of the network's input
MOST_ITERATIONS = 10**9
LEAST, MOST = 1e-30, 1e30  # of floating-point numbers: beyond, float32 underflows or overflows
MOST_COUNT = 2**31 - 1  # of whole numbers
MOST_ID = 10**18 - 1  # of a dataset's own ids, as annotation files may have them

BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")
DEVICES = r"(auto|cpu|mps|cuda)(:\d+)?"

# key, whether a value works, and the cure.
OF_THE_RUN: Valid = (
    (
        "SEED",
        lambda v: 0 <= v < 2**63,
        "data order is a function of it, so give 0 or more, below 2**63",
    ),
    (
        "DATALOADER.ASPECT_RATIO_GROUPING",
        lambda v: not v,
        "it must be False: it would make a batch depend on what the loader read before, and a "
        "resumed run would differ",
    ),
    (
        "DATASETS.CATEGORY_IDS",
        lambda v: all(type(part) is int and abs(part) <= MOST_ID for part in v),
        f"give the dataset's own ids, whole numbers of at most {MOST_ID}",
    ),
    ("DATASETS.NIH_NEGATIVES", lambda v: v >= 0, "give a number of images, or 0 for none"),
    ("DATASETS.COD10K_CLASSES", lambda v: v in (1, 69), "give 1, or 69 for the sub-classes"),
    ("DATASETS.TRAIN", lambda v: _are_texts(v), "give names, such as ('brain_tumor_train',)"),
    ("DATASETS.TEST", lambda v: _are_texts(v), "give names, such as ('brain_tumor_val',)"),
    ("OUTPUT_DIR", lambda v: v.strip(), "give the folder of the run"),
    ("DATASETS.FOLD", lambda v: v >= 0, "folds count from 0"),
    ("DATALOADER.NUM_WORKERS", lambda v: 0 <= v <= 1024, "give 0 or more, at most 1024"),
    (
        "DATALOADER.SAMPLER_TRAIN",
        lambda v: v in SAMPLERS,
        f"give {' or '.join(SAMPLERS)}",
    ),
    (
        "DATALOADER.REPEAT_THRESHOLD",
        lambda v: 0 <= v <= 1,
        "give the share of images below which a class counts as rare, 0 to 1",
    ),
    (
        "DATALOADER.NEGATIVE_RATIO",
        lambda v: v is None or (type(v) in (int, float) and 0 <= v <= 1e6),
        "give the images without boxes per image with boxes, 0 to 1000000, or None for all",
    ),
    ("DATALOADER.TIMEOUT", lambda v: 1 <= v <= 10**6, "give 1 to 1,000,000 seconds"),
    (
        "INPUT.SQUARE_SIZE",
        lambda v: v in range(32, MOST_PIXELS + 1, 32),
        f"give a multiple of 32, at most {MOST_PIXELS}",
    ),
    ("INPUT.FORMAT", lambda v: v == "RGB", "images are read as RGB, so give RGB"),
    (
        "INPUT.SCALE_RANGE",
        lambda v: len(v) == 2 and 0.01 <= v[0] <= v[1] <= 100,
        "give two factors from 0.01 to 100, the smaller one first",
    ),
    (
        "INPUT.TILE.SIDE",
        lambda v: v == 0 or 32 <= v <= 2**20,
        "give 32 or more pixels, or 0 for no tiles; at most 1048576",
    ),
    (
        "INPUT.FRAME",
        lambda v: v is None or (type(v) is int and 0 <= v < 2**31),
        "give the number of a frame, from 0, or None",
    ),
    ("INPUT.TILE.OVERLAP", lambda v: 0 <= v <= 0.9, "give a share of SIDE, 0 to 0.9"),
    ("INPUT.TILE.MIN_VISIBLE", lambda v: 0 < v <= 1, "give more than 0, at most 1"),
    ("INPUT.TILE.EMPTY_SHARE", lambda v: 0 <= v <= 1e6, "give 0 or more, at most 1000000"),
    ("INPUT.RANDOM_FLIP", lambda v: v in FLIPS, f"give {' or '.join(FLIPS)}"),
    ("SOLVER.IMS_PER_BATCH", lambda v: 1 <= v <= 2**16, "give 1 or more, at most 65536"),
    ("SOLVER.ACCUMULATION_STEPS", lambda v: 1 <= v <= 2**16, "give 1 or more, at most 65536"),
    ("SOLVER.CHECKPOINT_KEEP", lambda v: v >= 1, "give 1 or more"),
    (
        "SOLVER.NUM_EPOCHS",
        lambda v: 0 <= v <= 10**6,
        "give 1 or more, at most 1000000, or 0 for MAX_ITER",
    ),
    (
        "SOLVER.MAX_ITER",
        lambda v: 1 <= v <= MOST_ITERATIONS,
        f"give 1 or more, at most {MOST_ITERATIONS}",
    ),
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
    ("TEST.NMS.METHOD", lambda v: v in NMS_METHODS, f"give {' or '.join(NMS_METHODS)}"),
    ("TEST.NMS.SIGMA", lambda v: 0 < v <= 100, "give more than 0, at most 100, such as 0.5"),
    (
        "TEST.CLASS_SCORE_THRESH",
        lambda v: all(type(part) in (int, float) and 0 <= part <= 1 for part in v),
        "give numbers from 0 to 1, one a class, or [] for none",
    ),
    ("TEST.FROC_HIT", lambda v: v in ("iou", "centre"), "give iou or centre"),
    (
        "TEST.AUG.MIN_SIZES",
        lambda v: v and 1 <= min(v) <= max(v) <= MOST_PIXELS,
        "give the shorter sides of the views in pixels, such as (400, 512)",
    ),
    (
        "TEST.AUG.MAX_SIZE",
        lambda v: 1 <= v <= MOST_PIXELS,
        f"give the longest side of a view in pixels, at most {MOST_PIXELS}",
    ),
    ("TEST.DETECTIONS_PER_IMAGE", lambda v: 1 <= v <= 10**6, "give 1 or more, at most 1000000"),
    ("SOLVER.CLIP_GRADIENTS.NORM_TYPE", lambda v: v > 0, "give a p-norm, such as 2.0"),
    ("MODEL.FPN.FUSE_TYPE", lambda v: v in ("sum", "avg"), "give sum or avg"),
    ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", lambda v: v > 0, "give a norm above 0"),
)

SHARE = (lambda v: 0 < v <= 1, "give more than 0, at most 1")
COUNT = (lambda v: v >= 1, "give 1 or more")
WIDTH = (lambda v: 1 <= v <= 2**16, "give 1 or more, at most 65536")
CLASSES = (lambda v: 1 <= v <= 10**5, "give 1 or more, at most 100000")
DEPTH = (lambda v: 1 <= v <= 100, "give 1 or more, at most 100")
DEPTHS = (lambda v: len(v) == 4 and all(1 <= part <= 100 for part in v), "give four, 1 to 100")
OF_THE_MODEL: Valid = (
    ("MODEL.DEVICE", lambda v: re.fullmatch(DEVICES, v), "give auto, cpu, cuda, cuda:N or mps"),
    ("MODEL.KEYPOINT_ON", lambda v: not v, "no backbone or data set here has keypoints"),
    (
        "MODEL.PIXEL_MEAN",
        lambda v: len(v) == 3 and all(abs(part) <= 1e6 for part in v),
        "give three numbers, red, green and blue, of pixels from 0 to 255",
    ),
    (
        "MODEL.PIXEL_STD",
        lambda v: len(v) == 3 and all(1e-3 <= part <= 1e6 for part in v),
        "give three numbers from 0.001, red, green and blue, of pixels from 0 to 255",
    ),
    ("MODEL.FPN.OUT_CHANNELS", *WIDTH),
    ("MODEL.ULGA.VIT.EMBED_DIM", *WIDTH),
    ("MODEL.ULGA.SWIN.EMBED_DIM", *WIDTH),
    ("MODEL.ULGA.DAT.EMBED_DIM", *WIDTH),
    ("MODEL.ULGA.VIT.DEPTH", *DEPTH),
    ("MODEL.ULGA.SWIN.DEPTHS", *DEPTHS),
    ("MODEL.ULGA.DAT.DEPTHS", *DEPTHS),
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
    ("MODEL.RETINANET.NUM_CLASSES", *CLASSES),
    ("MODEL.ROI_HEADS.NUM_CLASSES", *CLASSES),
    ("MODEL.RETINANET.NUM_CONVS", *DEPTH),
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
    (
        "MODEL.RETINANET.CLASS_WEIGHTS",
        lambda v: all(type(part) in (int, float) and 0 < part <= 1000 for part in v),
        "give numbers above 0, at most 1000, one a class, or [] for none",
    ),
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
        for part in found:
            _check_size(key, part)
        kinds = set() if default is None else {_kind(part) for part in _flat(default)}
        if kinds and not kinds >= {_kind(part) for part in found}:
            raise UserError(f"{key} is {value!r}; give {' or '.join(kinds)}s, like {default!r}")


def _check_size(key: str, part: Any) -> None:
    """Refuse numbers that no 32 bits hold, and text that no file can be named by."""
    if isinstance(part, float) and part and not LEAST <= abs(part) <= MOST:
        raise UserError(f"{key} has {part!r}; give 0, or a size from {LEAST:g} to {MOST:g}")
    has_own_bound = key in ("SEED", "DATASETS.CATEGORY_IDS")
    if isinstance(part, int) and abs(part) > MOST_COUNT and not has_own_bound:
        raise UserError(f"{key} has {part}; give at most {MOST_COUNT}")
    if isinstance(part, str) and any(unicodedata.category(sign) in ("Cc", "Cs") for sign in part):
        raise UserError(f"{key} has {part!r}; leave the control characters out")


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
