"""What no run can work with, found from the config alone, before any data is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from detectron2.modeling import build_model

from ..errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

SCHEDULES = ("WarmupMultiStepLR", "WarmupCosineLR")


def check_config(cfg: CfgNode) -> None:
    """Refuse values that no run can work with.

    Raises:
        UserError: naming the key and the values that are valid.
    """
    if cfg.SEED < 0:
        raise UserError(f"SEED is {cfg.SEED}; data order is a function of it, so give 0 or more")
    if cfg.DATALOADER.ASPECT_RATIO_GROUPING:
        raise UserError(
            "DATALOADER.ASPECT_RATIO_GROUPING must be False: it would make a batch depend on what "
            "the loader read before, and a resumed run would differ"
        )
    if cfg.SOLVER.CLIP_GRADIENTS.ENABLED and cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE != "full_model":
        raise UserError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE!r}; only "
            "'full_model' (one norm over all gradients) is built"
        )
    if cfg.INPUT.SQUARE_SIZE < 32 or cfg.INPUT.SQUARE_SIZE % 32:
        raise UserError(f"INPUT.SQUARE_SIZE is {cfg.INPUT.SQUARE_SIZE}; give a multiple of 32")
    if cfg.SOLVER.LR_SCHEDULER_NAME not in SCHEDULES:
        raise UserError(
            f"SOLVER.LR_SCHEDULER_NAME is {cfg.SOLVER.LR_SCHEDULER_NAME!r}; give "
            f"{' or '.join(SCHEDULES)}"
        )
    if cfg.SOLVER.IMS_PER_BATCH < 1 or cfg.SOLVER.ACCUMULATION_STEPS < 1:
        raise UserError("SOLVER.IMS_PER_BATCH and SOLVER.ACCUMULATION_STEPS must be 1 or more")


def check_model(cfg: CfgNode) -> None:
    """Build the model without memory or weights, so that its faults show before any data is read.

    Raises:
        UserError: what the builders refuse, or a name that no registry knows.
    """
    trial = cfg.clone()
    trial.MODEL.DEVICE = "meta"
    try:
        with torch.device("meta"):
            build_model(trial)
    except KeyError as error:
        raise UserError(
            f"MODEL.META_ARCHITECTURE or MODEL.BACKBONE.NAME: {error.args[0]}; configs/_base_/ has "
            "the names that work"
        ) from None
