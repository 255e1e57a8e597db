"""The training loop: detectron2's hooks and events around a step that runs on CPU and GPU alike."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.engine import TrainerBase, hooks
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import (
    CommonMetricPrinter,
    JSONWriter,
    TensorboardXWriter,
)
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UserError
from .checkpoint import load_weights
from .evaluate import evaluate
from .evaluation_hook import EvaluationHook, Evaluations
from .history import BoundedStorage
from .hooks import CheckpointHook, drop_lines_from
from .initial import start_from
from .loader import build_train_loader
from .optimizer import build_optimizer

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ..weights.layout import PublicWeights
    from .datasets import RunData

logger = logging.getLogger(__name__)

_STEP_STREAM = 2  # beside the streams of the sampler
WRITE_PERIOD = 20  # iterations between two lines of progress


class Trainer(TrainerBase):
    """Train a detector as the config says.

    A step is a function of (seed, iteration, weights and optimizer state): torch's generators are
    seeded anew in each micro-batch, so a checkpoint needs no generator state and a resumed run
    repeats the uninterrupted one.

    Args:
        cfg: a resolved config (see `launch.setup`).
        data: the run's records.
        state: a checkpoint, public weights, or None to start from random weights.
        resume: go on with the checkpoint's run; else only its weights are taken.
    """

    def __init__(
        self,
        cfg: CfgNode,
        data: RunData,
        state: dict[str, Any] | PublicWeights | None = None,
        *,
        resume: bool = False,
    ) -> None:
        super().__init__()
        self.cfg = cfg
        self.data = data
        self.model = build_seeded_model(cfg)
        self.optimizer = build_optimizer(cfg, self.model)
        self.scheduler = build_lr_scheduler(cfg, self.optimizer)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.evaluations: Evaluations = []
        if resume:
            load_weights(self.model, state, "the checkpoint")
            self._load_progress(state)
        elif state is not None:
            start_from(cfg, self.model, state)
        self.replica = _distribute(self.model)
        self.device_type = cfg.MODEL.DEVICE.split(":")[0]
        self.results: dict[str, Any] = {}
        self.register_hooks(self._hooks_in_order())

    def _hooks_in_order(self) -> list[hooks.HookBase]:
        cfg = self.cfg
        period, keep = cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.CHECKPOINT_KEEP
        self._evaluation = EvaluationHook(cfg, self._evaluate, self.state, self.evaluations)
        ordered = [
            hooks.IterationTimer(),
            hooks.LRScheduler(),  # steps the schedule, so it stands before the checkpoint
            self._evaluation,  # may make this step the last one
            CheckpointHook(self.state, cfg.OUTPUT_DIR, period=period, keep=keep),
        ]
        if comm.is_main_process():
            metrics_file = os.path.join(cfg.OUTPUT_DIR, "metrics.json")
            drop_lines_from(metrics_file, self.start_iter)
            writers = [
                CommonMetricPrinter(self.max_iter),
                JSONWriter(metrics_file),
                TensorboardXWriter(cfg.OUTPUT_DIR, purge_step=self.start_iter),
            ]
            ordered.append(hooks.PeriodicWriter(writers, period=WRITE_PERIOD))
        return ordered

    def train(self) -> dict[str, Any]:
        """Run from the first or the resumed iteration to the last; return the last evaluation."""
        self.iter = self.start_iter
        self._batches = build_train_loader(self.cfg, self.data.train, self.start_iter)
        self.replica.train()
        with BoundedStorage(self.start_iter) as self.storage:
            try:
                self.before_train()
                while self.iter < self.max_iter:  # which an early stop lowers
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
                self.storage.iter = self.max_iter
                self._evaluation.finish()
            finally:
                self.after_train()
        return self.results

    def run_step(self) -> None:
        """Add up the gradients of the step's micro-batches and take one optimizer step."""
        micro_batches = self.cfg.SOLVER.ACCUMULATION_STEPS
        sums: dict[str, float] = {}
        data_time = 0.0
        for micro in range(micro_batches):
            start = time.perf_counter()
            batch = next(self._batches)
            data_time += time.perf_counter() - start
            _seed_torch(self.cfg.SEED, self.iter, micro)  # the loader may have drawn numbers
            losses = self._backward(batch, is_last=micro == micro_batches - 1)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value / micro_batches
        losses, data_time = _mean_over_ranks(sums, data_time)
        norm = self._clip_gradients()
        # Both are equal on every rank, so that all stop together. A loss can be NaN while its
        # gradient is not: L1's is a sign.
        if not math.isfinite(norm + sum(losses.values())):
            raise UserError(
                f"iteration {self.iter}: losses {losses}, gradient {norm}: not finite. The last "
                "checkpoint is kept. Lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, or turn "
                "SOLVER.AMP off."
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.storage.put_scalars(
            total_loss=sum(losses.values()), **losses, gradient_norm=norm, data_time=data_time
        )

    def _backward(self, batch: list[dict], *, is_last: bool) -> dict[str, float]:
        # Ranks exchange gradients once a step, with the last micro-batch.
        waits = isinstance(self.replica, DistributedDataParallel) and not is_last
        with self.replica.no_sync() if waits else contextlib.nullcontext():
            # TorchScript rewrites the focal loss after its first calls, which moves the last bits:
            # a resumed process would do so at another iteration than the uninterrupted one.
            with (
                torch.jit.optimized_execution(False),
                torch.autocast(
                    self.device_type, dtype=torch.bfloat16, enabled=self.cfg.SOLVER.AMP.ENABLED
                ),
            ):
                losses = self.replica(batch)
            (sum(losses.values()) / self.cfg.SOLVER.ACCUMULATION_STEPS).backward()
        return {name: float(value.detach()) for name, value in losses.items()}

    def _clip_gradients(self) -> float:
        clip = self.cfg.SOLVER.CLIP_GRADIENTS
        limit = clip.CLIP_VALUE if clip.ENABLED else math.inf
        return float(nn.utils.clip_grad_norm_(self.model.parameters(), limit, clip.NORM_TYPE))

    def _evaluate(self) -> dict[str, Any]:
        self.results = evaluate(self.cfg, self.model, self.data)
        self.model.train()
        return self.results

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs; every rank must call it."""
        # RetinaNet's moving average of positive anchors is a plain attribute, one a rank.
        normalizers = comm.gather(getattr(self.model, "loss_normalizer", None))
        return {
            "model": self.model.state_dict(),
            "moments": self.optimizer.state_dict()["state"],
            "iteration": self.iter + 1,
            "loss_normalizer": normalizers,
            "evaluations": [list(pair) for pair in self.evaluations],
            "class_names": list(self.data.class_names),
            "config": self.cfg.dump(),
        }

    def _load_progress(self, state: dict[str, Any]) -> None:
        # Moments come from the checkpoint, rates and decay from the config as it is now.
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["moments"], "param_groups": groups})
        self.start_iter = self.scheduler.last_epoch = state["iteration"]
        for group, rate in zip(self.optimizer.param_groups, self.scheduler.get_lr(), strict=True):
            group["lr"] = rate
        self.evaluations = [tuple(pair) for pair in state.get("evaluations", [])]
        saved = state["loss_normalizer"]
        if saved[0] is not None:
            own_rank = saved[comm.get_rank()] if len(saved) == comm.get_world_size() else None
            self.model.loss_normalizer = np.mean(saved).item() if own_rank is None else own_rank


def build_seeded_model(cfg: CfgNode) -> nn.Module:
    """Build the detector on its device; its initial weights are a function of SEED."""
    torch.manual_seed(cfg.SEED)
    model = build_model(cfg)
    if cfg.SOLVER.AMP.ENABLED and hasattr(model, "head"):
        # The focal loss sums tens of thousands of terms: too many for bfloat16's eight bits.
        model.head.register_forward_hook(lambda _module, _inputs, output: _to_float32(output))
    return model


def _to_float32(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float()
    return type(value)(_to_float32(item) for item in value)


def _distribute(model: nn.Module) -> nn.Module:
    if comm.get_world_size() == 1:
        return model
    is_cuda = next(model.parameters()).is_cuda
    device_ids = [torch.cuda.current_device()] if is_cuda else None
    return DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)


def _mean_over_ranks(losses: dict[str, float], data_time: float) -> tuple[dict[str, float], float]:
    """Return the ranks' mean losses and the longest wait for data, on every rank."""
    if comm.get_world_size() == 1:
        return losses, data_time
    everyone = comm.all_gather((losses, data_time))
    means = {name: float(np.mean([one[name] for one, _ in everyone])) for name in losses}
    return means, max(wait for _, wait in everyone)


def _seed_torch(seed: int, iteration: int, micro: int) -> None:
    sequence = np.random.SeedSequence([seed, _STEP_STREAM, iteration, micro, comm.get_rank()])
    torch.manual_seed(int(sequence.generate_state(1)[0]))
