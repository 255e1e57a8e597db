"""A running mean of the weights, which is evaluated and shared in place of the last ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..weights.checkpoint import evaluated_weights, load_weights

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def build_averaged(cfg: CfgNode, model: nn.Module) -> AveragedModel | None:
    """Return torch's exponential moving average of a model, or None with SOLVER.EMA off.

    After the first step it equals the model; each later one moves it by 1 - SOLVER.EMA.DECAY of
    the way. Buffers are the model's last ones.
    """
    if not cfg.SOLVER.EMA.ENABLED:
        return None
    average = get_ema_multi_avg_fn(cfg.SOLVER.EMA.DECAY)
    return AveragedModel(model, multi_avg_fn=average)


def averaged_state(averaged: AveragedModel | None) -> dict[str, Any]:
    """Return the entries of a checkpoint: "ema" has the names of "model"."""
    if averaged is None:
        return {}
    return {"ema": dict(averaged.module.state_dict()), "ema_steps": int(averaged.n_averaged)}


def load_averaged(averaged: AveragedModel, state: dict[str, Any]) -> None:
    """Take the mean from a checkpoint; one without has it begin at the checkpoint's weights."""
    load_weights(averaged.module, {"model": evaluated_weights(state)}, "the checkpoint")
    averaged.n_averaged.fill_(state.get("ema_steps", 1))
