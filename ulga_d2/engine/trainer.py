"""The training loop: detectron2's hooks and events around a step that runs on CPU and GPU alike."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from detectron2.engine import TrainerBase, hooks
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm

from ..errors import UserError
from ..folder_lock import check_still_locked
from ..inference.model import build_seeded_model
from ..weights.checkpoint import load_weights
from .averaged import averaged_state, build_averaged, load_averaged
from .checkpoint import checkpoint_name, remove_old, save_checkpoint
from .evaluate import evaluate
from .evaluation_hook import EvaluationHook, Evaluations
from .history import BoundedStorage, Recent
from .hooks import CheckpointHook, build_writer
from .initial import start_from
from .loader import build_train_loader
from .not_finite import REPORT, has_finite_weights, report_not_finite
from .optimizer import build_optimizer
from .signals import GRACE_SECONDS, StopSignals, end_process, tell_of_stop
from .step import GradientStep, StepOutcome
from .workers import DataWorkerError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ..weights.layout import PublicWeights
    from .datasets import RunData


FIRST_STEP_SECONDS = 60.0  # that a signal leaves to the first step, whose length nobody knows


class Trainer(TrainerBase):
    """Train a detector as the config says.

    A step is a function of (seed, iteration, weights and optimizer state), so a resumed run repeats
    the uninterrupted one. SIGTERM and SIGUSR1 end a run after saving it.

    Args:
        cfg: a resolved config (see `launch.setup`).
        data: the run's records.
        state: a checkpoint, public weights, or None to start from random weights.
        resume: go on with the checkpoint's run; else only its weights are taken.

    Attributes:
        done: iterations whose step has been taken.
        averaged: the running mean of the weights, with SOLVER.EMA, which is evaluated; else None.
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
        self._data = data.fingerprint()
        self.evaluations: Evaluations = []
        self.recent: Recent = {}  # figures before the first iteration
        if state is not None and not resume:
            start_from(cfg, self.model, state)
        self.averaged = build_averaged(cfg, self.model)
        if resume:
            load_weights(self.model, state, "the checkpoint")
            self._load_progress(state)
        self.done = self.start_iter
        self._step = GradientStep(cfg, self.model)
        self._signals = StopSignals(grace=FIRST_STEP_SECONDS)
        self._longest_step = 0.0
        self._stop = 0  # the signal that all ranks know of
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
        ]
        if comm.is_main_process():
            ordered.append(build_writer(cfg.OUTPUT_DIR, self.start_iter, self.max_iter))
        return [*ordered, CheckpointHook(self.state, cfg.OUTPUT_DIR, period=period, keep=keep)]

    def train(self) -> dict[str, Any]:
        """Run from the first or the resumed iteration to the last; return the last evaluation."""
        self.iter = self.start_iter
        self._batches = build_train_loader(self.cfg, self.data, self.start_iter)
        self.model.train()
        with BoundedStorage(self.start_iter) as self.storage, self._signals:
            self.storage.recall(self.recent)
            try:
                self.before_train()
                while self.iter < self.max_iter:  # which an early stop lowers
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
                    if self._stop:
                        self._save_and_stop()
                self.storage.iter = self.max_iter
                self._evaluation.finish()
            finally:
                self._batches.close()  # ends the loader's workers
                self.after_train()
        return self.results

    def run_step(self) -> None:
        """Take one optimizer step, unless its loss or its gradient is not finite."""
        normalizer = getattr(self.model, "loss_normalizer", None)
        start = time.perf_counter()
        batches = self._read_batches()
        waited = time.perf_counter() - start
        outcome = self._step.gradient(batches, self.iter, waited, self._signals.asked)
        if not outcome.is_finite:
            self._refuse(batches, outcome, normalizer)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        self.done, self._stop = self.iter + 1, outcome.stop
        self._longest_step = max(self._longest_step, time.perf_counter() - start)
        # A step that takes much longer than the longest one waits for a rank that does not come.
        self._signals.grace = max(GRACE_SECONDS, 3 * self._longest_step)
        self.storage.put_scalars(
            total_loss=sum(outcome.losses.values()),
            **outcome.losses,
            gradient_norm=outcome.norm,
            data_time=outcome.data_time,
        )

    def _read_batches(self) -> list[list[dict]]:
        """Return the step's micro-batches; nothing of the step has been done before.

        So one process can save at once where the data do not come. With ranks it cannot, since
        the others may be elsewhere.
        """
        is_alone = comm.get_world_size() == 1
        act = self._signals.at_once(self._save_and_leave) if is_alone else nullcontext()
        try:
            with act:
                return [next(self._batches) for _ in range(self.cfg.SOLVER.ACCUMULATION_STEPS)]
        except DataWorkerError as error:
            if is_alone and self.done > self.start_iter:
                name = self._save(self.state())
                raise UserError(f"{error}. {self.done} iterations are saved in {name}") from None
            raise

    def _save_and_leave(self, number: int) -> NoReturn:
        """End the process at once, whatever its data workers wait for."""
        if self.done > self.start_iter:
            self._save(self.state())
        tell_of_stop(number, self.done)
        self.after_train()  # closes the files of the curves
        end_process(128 + number)

    def _refuse(
        self, batches: list[list[dict]], outcome: StepOutcome, normalizer: float | None
    ) -> NoReturn:
        """Keep the weights that the step began with, tell where it went wrong, and stop."""
        rate = self.optimizer.param_groups[0]["lr"]
        folder = self.cfg.OUTPUT_DIR
        self._set_normalizer(normalizer)  # which every forward pass moves
        what = report_not_finite(folder, self._step, batches, self.iter, outcome, rate)
        self._set_normalizer(normalizer)
        kept = "The last checkpoint is kept"
        if all(comm.all_gather(has_finite_weights(self.model))):
            kept = f"The weights before it are in {self._save(self.state())}"
        comm.synchronize()  # the main process has written
        raise UserError(
            f"{what}. {kept}; see {folder}/{REPORT}, which names each rank's images. Lower "
            "SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, or turn SOLVER.AMP off, and add --resume"
        )

    def _save(self, state: dict[str, Any]) -> str:
        """Save on the main process, and ask nothing of the others, which may be elsewhere."""
        name = checkpoint_name(state["iteration"], self.max_iter)
        check_still_locked(self.cfg.OUTPUT_DIR)
        if comm.is_main_process():
            save_checkpoint(self.cfg.OUTPUT_DIR, name, state)
            remove_old(self.cfg.OUTPUT_DIR, self.cfg.SOLVER.CHECKPOINT_KEEP, state["iteration"])
        return name

    def _save_and_stop(self) -> NoReturn:
        """End the process as the signal asked; --resume goes on after the step just taken."""
        self._signals.is_acting = True
        if self.done < self.max_iter:  # else the final weights are saved
            self._save(self.state())
        tell_of_stop(self._stop, self.done)
        raise SystemExit(128 + self._stop)

    def _evaluate(self) -> dict[str, Any]:
        state = self.state()  # an evaluation changes nothing of it

        def save_and_leave(number: int) -> None:
            self._save(state)
            tell_of_stop(number, state["iteration"])
            end_process(128 + number)

        model = self.model if self.averaged is None else self.averaged.module
        with self._signals.at_once(save_and_leave):
            if self._stop:
                save_and_leave(self._stop)
            self.results = evaluate(self.cfg, model, self.data, state["iteration"])
        self.model.train()
        return self.results

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs; every rank must call it."""
        # RetinaNet's moving average of positive anchors is a plain attribute, one a rank.
        normalizers = comm.gather(getattr(self.model, "loss_normalizer", None))
        return {
            "model": dict(self.model.state_dict()),  # without what hangs on torch's own dict
            **averaged_state(self.averaged),
            "moments": self.optimizer.state_dict()["state"],
            "iteration": self.done,
            "loss_normalizer": normalizers,
            "recent": self.storage.recent(self.done - 1),
            "evaluations": [list(pair) for pair in self.evaluations],
            "class_names": list(self.data.class_names),
            "config": self.cfg.dump(),
            "data": self._data,
        }

    def _load_progress(self, state: dict[str, Any]) -> None:
        # Moments come from the checkpoint, rates and decay from the config as it is now.
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["moments"], "param_groups": groups})
        self.start_iter = self.scheduler.last_epoch = state["iteration"]
        for group, rate in zip(self.optimizer.param_groups, self.scheduler.get_lr(), strict=True):
            group["lr"] = rate
        self.recent = state.get("recent", {})
        self.evaluations = [tuple(pair) for pair in state.get("evaluations", [])]
        saved = state["loss_normalizer"]
        if saved[0] is not None:
            own_rank = saved[comm.get_rank()] if len(saved) == comm.get_world_size() else None
            self._set_normalizer(np.mean(saved).item() if own_rank is None else own_rank)
        if self.averaged is not None:
            load_averaged(self.averaged, state)

    def _set_normalizer(self, value: float | None) -> None:
        if value is not None:
            self.model.loss_normalizer = value
