"""The gradient of one step: micro-batches added up, ranks agreed, the norm clipped."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from detectron2.config import CfgNode

_STEP_STREAM = 2  # beside the streams of the sampler


@dataclass(frozen=True)
class StepOutcome:
    """What the backward passes of a step gave; equal on every rank.

    Attributes:
        losses: mean over micro-batches and ranks, by name.
        norm: length of the gradient before it is clipped.
        data_time: seconds that the slowest rank waited for its images.
        stop: number of the signal that asked any rank to stop; 0 if none did.
    """

    losses: dict[str, float]
    norm: float
    data_time: float
    stop: int

    @property
    def is_finite(self) -> bool:
        """Tell whether the step may be taken.

        A loss can be NaN while its gradient is not: L1's is a sign.
        """
        return math.isfinite(self.norm + sum(self.losses.values()))


class GradientStep:
    """Computes the gradient of a step as a function of (seed, iteration, weights, images).

    torch's generators are seeded anew in each micro-batch, so a checkpoint needs no generator
    state and a resumed run repeats the uninterrupted one.

    Args:
        cfg: a resolved config.
        model: the detector; where there are ranks it is replicated over them.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        self.model = model
        self._replica = _distribute(model)
        self._seed = cfg.SEED
        self._micro_batches = cfg.SOLVER.ACCUMULATION_STEPS
        self._device_type = cfg.MODEL.DEVICE.split(":")[0]
        self._is_mixed = cfg.SOLVER.AMP.ENABLED
        clip = cfg.SOLVER.CLIP_GRADIENTS
        self._limit = clip.CLIP_VALUE if clip.ENABLED else math.inf
        self._norm_type = clip.NORM_TYPE

    def gradient(
        self, batches: Sequence[list[dict]], iteration: int, data_time: float, stop: int
    ) -> StepOutcome:
        """Leave the step's clipped gradient on the parameters.

        Args:
            batches: this rank's micro-batches.
            iteration: counted from 0.
            data_time: seconds that this rank waited for them.
            stop: number of the signal that has asked this rank to stop, or 0.
        """
        sums: dict[str, float] = {}
        for micro, batch in enumerate(batches):
            # Ranks exchange gradients once a step, with the last micro-batch.
            is_last = micro == len(batches) - 1
            waits = isinstance(self._replica, DistributedDataParallel) and not is_last
            with self._replica.no_sync() if waits else contextlib.nullcontext():
                losses = self.losses(self._replica, batch, iteration, micro)
                self.backward(losses)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / len(batches)
        losses, data_time, stop = _agree(sums, data_time, stop)
        return StepOutcome(losses, self._clip(), data_time, stop)

    def losses(
        self, module: nn.Module, batch: list[dict], iteration: int, micro: int
    ) -> dict[str, torch.Tensor]:
        """Return the losses of a micro-batch, with the random numbers of its place in the run.

        Args:
            module: the detector or its replica.
            batch: images as the loader gives them.
            iteration: counted from 0.
            micro: number of the micro-batch in the step.
        """
        _seed_torch(self._seed, iteration, micro)  # the loader may have drawn numbers
        # TorchScript rewrites the focal loss after its first calls, which moves the last bits: a
        # resumed process would do so at another iteration than the uninterrupted one.
        with (
            torch.jit.optimized_execution(False),
            torch.autocast(self._device_type, dtype=torch.bfloat16, enabled=self._is_mixed),
        ):
            return module(batch)

    def backward(self, losses: dict[str, torch.Tensor]) -> None:
        """Add a micro-batch's share of the step's gradient to the parameters."""
        with torch.jit.optimized_execution(False):
            (sum(losses.values()) / self._micro_batches).backward()

    def _clip(self) -> float:
        parameters = self.model.parameters()
        return float(nn.utils.clip_grad_norm_(parameters, self._limit, self._norm_type))


def _distribute(model: nn.Module) -> nn.Module:
    if comm.get_world_size() == 1:
        return model
    is_cuda = next(model.parameters()).is_cuda
    device_ids = [torch.cuda.current_device()] if is_cuda else None
    return DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)


def _agree(
    losses: dict[str, float], data_time: float, stop: int
) -> tuple[dict[str, float], float, int]:
    """Return the ranks' mean losses, their longest wait and any signal: the same on every rank."""
    if comm.get_world_size() == 1:
        return losses, data_time, stop
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    own = torch.tensor([*losses.values(), data_time, stop], dtype=torch.float64, device=device)
    everyone = [torch.empty_like(own) for _ in range(comm.get_world_size())]
    dist.all_gather(everyone, own)
    table = torch.stack(everyone).cpu()
    means = dict(zip(losses, table[:, :-2].mean(dim=0).tolist(), strict=True))
    return means, float(table[:, -2].max()), int(table[:, -1].max())


def _seed_torch(seed: int, iteration: int, micro: int) -> None:
    sequence = np.random.SeedSequence([seed, _STEP_STREAM, iteration, micro, comm.get_rank()])
    torch.manual_seed(int(sequence.generate_state(1)[0]))
