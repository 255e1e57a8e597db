"""Evaluation during training: the best weights are kept, and a run that no longer gains stops."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from ..errors import UserError
from ..evaluation.summary import all_metrics
from .checkpoint import save_together

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from .datasets import RunData

logger = logging.getLogger(__name__)

BEST_CHECKPOINT = "model_best.pth"
# Groups of figures that are the better the higher, but for the one below.
RISING = ("bbox", "agnostic", "froc")
FALLING = "froc/FP_per_healthy_image"
Evaluations = list[tuple[int, float | None]]


class EvaluationHook(HookBase):
    """Evaluate every TEST.EVAL_PERIOD iterations and at the end; heed the chosen figure.

    It stands before the hook that saves, so a checkpoint knows every evaluation up to its own
    iteration, and a resumed run keeps and stops as the uninterrupted one.

    Args:
        cfg: of the run; read are TEST.EVAL_PERIOD, TEST.BEST_METRIC and TEST.PATIENCE.
        evaluate: scores the model; the main process gets the figures, the others an empty dict.
        collect: returns the trainer's state; every process must call it.
        seen: the evaluations of the run that is resumed.

    Attributes:
        seen: (iterations done, the chosen figure or None) of each evaluation, in their order.
    """

    def __init__(
        self,
        cfg: CfgNode,
        evaluate: Callable[[], dict[str, Any]],
        collect: Callable[[], dict[str, Any]],
        seen: Evaluations,
    ) -> None:
        self._period = cfg.TEST.EVAL_PERIOD
        self._patience = cfg.TEST.PATIENCE
        several = len(cfg.DATASETS.TEST) > 1
        self._metric = (f"{cfg.DATASETS.TEST[0]}/" if several else "") + cfg.TEST.BEST_METRIC
        self._folder = cfg.OUTPUT_DIR
        self._evaluate = evaluate
        self._collect = collect
        self.seen = seen
        self._evaluated = -1  # iterations done when this process last evaluated

    def before_train(self) -> None:
        """Make up for an evaluation that a signal cut; do not go on with a run that had stopped."""
        start = self.trainer.start_iter
        if self._is_due(start) and start not in dict(self.seen):
            storage = self.trainer.storage
            storage.count_as_new(self.trainer.recent)
            storage.iter = start - 1  # where the uninterrupted run noted it
            self._run(start)
            storage.iter = start
        if self._is_exhausted():
            self._stop(start)

    def after_step(self) -> None:
        """Evaluate if it is time, and stop the run if that was once too often without a gain."""
        done = self.trainer.iter + 1
        if self._is_due(done):
            self._run(done)
            if self._is_exhausted():
                self._stop(done)

    def finish(self) -> None:
        """Evaluate the last weights, unless the last evaluation was theirs."""
        done = self.trainer.max_iter
        if self._evaluated != done:
            self._run(done)

    def _is_due(self, done: int) -> bool:
        return bool(self._period) and 0 < done < self.trainer.max_iter and not done % self._period

    def _run(self, done: int) -> None:
        self._evaluated = done
        figures = flatten_results_dict(self._evaluate())
        self.trainer.storage.put_scalars(**figures, smoothing_hint=False)
        value = comm.all_gather(figures.get(self._metric))[0]
        before = [old for iteration, old in self.seen if iteration < done and old is not None]
        self.seen[:] = [pair for pair in self.seen if pair[0] < done] + [(done, value)]
        if not self._period or value is None or value <= max(before, default=float("-inf")):
            return
        save_together(self._folder, BEST_CHECKPOINT, self._collect(), is_last=False)
        if comm.is_main_process():
            logger.info("%s %.2f is the best so far: %s", self._metric, value, BEST_CHECKPOINT)

    def _is_exhausted(self) -> bool:
        values = [float("-inf") if value is None else value for _, value in self.seen]
        if not self._patience or not values:
            return False
        return len(values) - 1 - values.index(max(values)) >= self._patience

    def _stop(self, done: int) -> None:
        logger.info(
            "stopped after %d iterations: %s has not risen in %d evaluations (TEST.PATIENCE)",
            done,
            self._metric,
            self._patience,
        )
        self.trainer.max_iter = done


def check_best_metric(cfg: CfgNode, data: RunData) -> None:
    """Refuse a TEST.BEST_METRIC that no evaluation of these data will give.

    Raises:
        UserError: naming the figures that there are.
    """
    name = cfg.DATASETS.TEST[0]
    known = all_metrics(
        data.test[name],
        [],
        data.class_names,
        froc_hit=cfg.TEST.FROC_HIT,
        max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
    ).defined()
    figures = [f"{group}/{figure}" for group in RISING for figure in known[group]]
    figures = [figure for figure in figures if figure != FALLING]
    if cfg.MODEL.MASK_ON:
        figures += ["segm/AP", "segm/AP50", "segm/AP75"]
    if cfg.TEST.BEST_METRIC not in figures and (cfg.TEST.EVAL_PERIOD or cfg.TEST.PATIENCE):
        raise UserError(
            f"TEST.BEST_METRIC is {cfg.TEST.BEST_METRIC!r}, which is no figure of {name}; there "
            f"are {', '.join(figures)}"
        )
