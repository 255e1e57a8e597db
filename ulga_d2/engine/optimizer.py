"""AdamW with the usual decay exemptions, and a schedule that is counted in epochs."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import torch
from detectron2.config import get_cfg as get_detectron2_cfg
from torch import nn

from ..errors import UserError
from ..values import MOST_ITERATIONS

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

# Tables that place or name tokens: decay would shrink them without simplifying the function.
# Compared with the LAST part of a parameter's name, and in no other way.
NO_DECAY_NAMES = frozenset(
    {"relative_position_bias_table", "pos_embed", "rel_pos_h", "rel_pos_w", "concept_embed"}
)
WARMUP_SHARE = 0.05  # the warm-up never takes a larger share of the run than this


def resolve_schedule(cfg: CfgNode, epoch_length: int) -> None:
    """Turn SOLVER.NUM_EPOCHS into iterations, in place, and log the result.

    Sets MAX_ITER, STEPS and WARMUP_ITERS; with NUM_EPOCHS = 0 they stay as given. An epoch is
    ceil(epoch_length / IMS_PER_BATCH) iterations, where epoch_length counts the images (tiles, with
    INPUT.TILE) of an epoch; CHECKPOINT_PERIOD 0 becomes one epoch.

    Raises:
        UserError: NUM_EPOCHS and MAX_ITER that contradict each other.
    """
    solver = cfg.SOLVER
    epoch = math.ceil(epoch_length / solver.IMS_PER_BATCH)
    if solver.NUM_EPOCHS:
        _refuse_a_second_length(cfg, epoch)
        if epoch * solver.NUM_EPOCHS > MOST_ITERATIONS:
            raise UserError(
                f"SOLVER.NUM_EPOCHS is {solver.NUM_EPOCHS}, of {epoch} iterations each; give a "
                f"number with at most {MOST_ITERATIONS} iterations in all"
            )
        solver.MAX_ITER = epoch * solver.NUM_EPOCHS
        solver.STEPS = _steps(cfg)
        solver.WARMUP_ITERS = min(solver.WARMUP_ITERS, round(WARMUP_SHARE * solver.MAX_ITER))
    if solver.CHECKPOINT_PERIOD <= 0:
        solver.CHECKPOINT_PERIOD = epoch
    logger.info(
        "schedule: %d iterations (%.1f epochs of %d %s at batch %d), warm-up %d, %s",
        solver.MAX_ITER,
        solver.MAX_ITER / epoch,
        epoch_length,
        "tiles" if cfg.INPUT.TILE.SIDE else "images",
        solver.IMS_PER_BATCH,
        solver.WARMUP_ITERS,
        f"rate x{solver.GAMMA} at {list(solver.STEPS)}"
        if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR"
        else solver.LR_SCHEDULER_NAME,
    )


def _steps(cfg: CfgNode) -> tuple[int, ...]:
    """Return STEP_FRACTIONS in iterations; what a very short run cannot tell apart is one step."""
    length = cfg.SOLVER.MAX_ITER
    steps = {round(share * length) for share in cfg.SOLVER.STEP_FRACTIONS}
    return tuple(sorted(step for step in steps if 0 < step < length))


def _refuse_a_second_length(cfg: CfgNode, epoch: int) -> None:
    # The default, and what a resolved config.yaml states beside its NUM_EPOCHS, are no second one.
    asked, given = cfg.SOLVER.NUM_EPOCHS * epoch, cfg.SOLVER.MAX_ITER
    if given not in (asked, get_detectron2_cfg().SOLVER.MAX_ITER):
        raise UserError(
            f"SOLVER.MAX_ITER is {given}, but SOLVER.NUM_EPOCHS {cfg.SOLVER.NUM_EPOCHS} asks for "
            f"{asked} iterations ({epoch} an epoch); give SOLVER.NUM_EPOCHS 0 to train "
            f"{given} iterations, or SOLVER.MAX_ITER {asked}"
        )


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Tell whether weight decay acts on a parameter.

    It acts on matrices and kernels. Vectors are exempt (biases, gates and the weights of every
    norm, whichever library's class it is), and so are the tables in `NO_DECAY_NAMES`.
    """
    return parameter.ndim > 1 and name.rsplit(".", 1)[-1] not in NO_DECAY_NAMES


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.AdamW:
    """Build AdamW over the model's trainable parameters: one group with decay, one without."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for n, p in named if decays(n, p)],
            "weight_decay": cfg.SOLVER.WEIGHT_DECAY,
        },
        {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=cfg.SOLVER.BASE_LR, betas=(0.9, 0.999))
