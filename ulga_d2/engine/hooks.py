"""Hooks of the training loop: saving, evaluating, writing the curves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from detectron2.engine import HookBase
from detectron2.engine.hooks import PeriodicWriter
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, JSONWriter, TensorboardXWriter

from ..evaluation.atomic import write_atomically
from ..folder_lock import check_still_locked
from .checkpoint import checkpoint_name, remove_old, save_together
from .history import WINDOW

METRICS = "metrics.json"  # a line of JSON a window of iterations


class CheckpointHook(HookBase):
    """Save the trainer's state every `period` iterations and after the last one.

    Every rank takes part in collecting the state; the main one writes.
    """

    def __init__(self, collect: Callable[[], dict], folder: str, *, period: int, keep: int) -> None:
        self._collect = collect
        self._folder = folder
        self._period = period
        self._keep = keep

    def after_step(self) -> None:
        """Save if this iteration is one to save after."""
        done = self.trainer.iter + 1
        if done % self._period and done != self.trainer.max_iter:
            return
        check_still_locked(self._folder)
        name = checkpoint_name(done, self.trainer.max_iter)
        save_together(self._folder, name, self._collect())
        if comm.is_main_process():
            remove_old(self._folder, self._keep, done)


class CurveWriter(PeriodicWriter):
    """Writes the figures every `period` iterations, with each evaluation, and at the end.

    It stands before the hook that saves, so what a checkpoint knows is written. A run that is cut
    writes nothing more, since the resumed one repeats what came after its checkpoint.
    """

    def before_train(self) -> None:
        """Write to the files what a resumed run has made up for."""
        if self.trainer.storage.latest():
            for writer in self._writers:
                if not isinstance(writer, CommonMetricPrinter):  # it would take it for a step
                    writer.write()

    def after_step(self) -> None:
        """Write if it is time, or if an evaluation was made."""
        done = self.trainer.iter + 1
        is_evaluated = self.trainer.evaluations[-1:] and self.trainer.evaluations[-1][0] == done
        if done % self._period == 0 or done == self.trainer.max_iter or is_evaluated:
            self._write()

    def after_train(self) -> None:
        """Write the last evaluation, if the run has come to its end."""
        if self.trainer.done == self.trainer.max_iter:
            self._write()
        for writer in self._writers:
            writer.close()

    def _write(self) -> None:
        for writer in self._writers:
            writer.write()


def build_writer(folder: str, start_iter: int, max_iter: int) -> CurveWriter:
    """Return the writer to the console, to `metrics.json` and to TensorBoard's file."""
    metrics_file = os.path.join(folder, METRICS)
    drop_lines_from(metrics_file, start_iter)
    writers = [
        CommonMetricPrinter(max_iter),
        JSONWriter(metrics_file),
        TensorboardXWriter(folder, purge_step=start_iter),
    ]
    return CurveWriter(writers, period=WINDOW)


def drop_lines_from(metrics_file: str, iteration: int) -> None:
    """Cut from a metrics file what an interrupted run wrote at or after `iteration`.

    A resumed run writes those iterations again; a half-written last line goes with them.
    """
    if not os.path.isfile(metrics_file):
        return
    kept = []
    with open(metrics_file, "rb") as file:
        for line in file:
            try:
                if json.loads(line.decode())["iteration"] < iteration:
                    kept.append(line)
            except (ValueError, LookupError, TypeError, RecursionError):  # no line of ours
                continue
    write_atomically(metrics_file, b"".join(kept))
