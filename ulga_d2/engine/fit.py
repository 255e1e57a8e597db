"""What a training will take, foretold from short trials, and how to make it fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .trial import Cost

if TYPE_CHECKING:
    from detectron2.config import CfgNode

Measure = Callable[[dict[str, Any]], Cost]

BATCH, MICRO, CHECKPOINTING, SIZE = (
    "SOLVER.IMS_PER_BATCH",
    "SOLVER.ACCUMULATION_STEPS",
    "MODEL.ULGA.GRADIENT_CHECKPOINTING",
    "INPUT.SQUARE_SIZE",
)
LARGEST_TEST = 8  # images that the trial of the evaluation reads at once
MARGIN = 0.95  # of the limit: what is foretold is not exact


@dataclass(frozen=True)
class Plan:
    """Settings of a training that decide what it takes."""

    batch: int
    accumulation: int
    checkpointing: bool
    size: int

    @property
    def micro_batch(self) -> int:
        """Images in the network at once."""
        return self.batch // self.accumulation

    def options(self, other: Plan | None = None) -> dict[str, Any]:
        """Return the config's settings, or only those in which this plan differs from another."""
        own = {
            BATCH: self.batch,
            MICRO: self.accumulation,
            CHECKPOINTING: self.checkpointing,
            SIZE: self.size,
        }
        theirs = other.options() if other else {}
        return {key: value for key, value in own.items() if theirs.get(key) != value}


def plan_of(cfg: CfgNode) -> Plan:
    """Return the plan that a config states."""
    return Plan(
        cfg.SOLVER.IMS_PER_BATCH,
        cfg.SOLVER.ACCUMULATION_STEPS,
        cfg.MODEL.ULGA.GRADIENT_CHECKPOINTING,
        cfg.INPUT.SQUARE_SIZE,
    )


class Trials:
    """Lines through measured points: what any batch takes at one size.

    A micro-batch of m images takes `fixed + m * each` bytes and seconds, from the trials with m = 1
    and m = 2. The evaluation reads a whole batch at once, in inference: its line starts at the same
    fixed bytes and goes through the trial of a batch of up to 8, read one by one in training.

    Args:
        measure: runs a trial with changed settings.
        size: side of the images.
        checkpointing: whether activations are recomputed.
        largest: the largest batch that will be asked for.
    """

    def __init__(self, measure: Measure, size: int, checkpointing: bool, largest: int) -> None:
        self._measure = measure
        self.size, self.checkpointing = size, checkpointing
        self._test = min(largest, LARGEST_TEST)

    def _cost(self, batch: int, accumulation: int) -> Cost:
        return self._measure(Plan(batch, accumulation, self.checkpointing, self.size).options())

    @cached_property
    def _one(self) -> Cost:
        return self._cost(1, 1)

    @cached_property
    def _two(self) -> Cost:
        return self._cost(2, 1)

    @cached_property
    def _evaluation_each(self) -> float:
        if self._test < 3:
            return 0.0
        return (self._cost(self._test, self._test).peak - self._fixed) / self._test

    @property
    def _each(self) -> float:
        return max(0.0, self._two.peak - self._one.peak)

    @property
    def _fixed(self) -> float:
        return self._one.peak - self._each

    def peak(self, plan: Plan) -> float:
        """Foretell the bytes of a plan of this size."""
        training = self._fixed + plan.micro_batch * self._each
        return max(training, self._fixed + plan.batch * self._evaluation_each)

    def step_seconds(self, plan: Plan) -> float:
        """Foretell the time of an optimizer step."""
        each = max(0.0, self._two.step_seconds - self._one.step_seconds)
        micro = self._one.step_seconds + (plan.micro_batch - 1) * each
        return micro * plan.accumulation


@dataclass(frozen=True)
class Forecast:
    """A plan and what it is foretold to take."""

    what: str
    plan: Plan
    peak: float
    step_seconds: float

    def epoch_seconds(self, images: int) -> float:
        """Return the time of an epoch's steps; evaluations and checkpoints come on top."""
        return math.ceil(images / self.plan.batch) * self.step_seconds


def forecasts(asked: Plan, measure: Measure, limit: float) -> Iterator[Forecast]:
    """Yield the plan that is asked for, then ways to need less, until one fits.

    First what leaves the result as it is: more accumulation, recomputation, both. Then what does
    not: half the batch, and so on, and at last smaller images.
    """
    as_it_is = Trials(measure, asked.size, asked.checkpointing, asked.batch)
    recomputed = Trials(measure, asked.size, True, asked.batch)
    for what, plan in _plans(asked):
        trials = as_it_is if plan.checkpointing == asked.checkpointing else recomputed
        found = Forecast(what, plan, trials.peak(plan), trials.step_seconds(plan))
        yield found
        if found.peak <= MARGIN * limit:
            return
    yield from _smaller_images(asked, measure, limit)


def _plans(asked: Plan) -> Iterator[tuple[str, Plan]]:
    yield "as it is", asked
    steps = [a for a in range(asked.accumulation + 1, asked.batch + 1) if asked.batch % a == 0]
    less = [Plan(asked.batch, a, asked.checkpointing, asked.size) for a in steps]
    yield from (("more accumulation", plan) for plan in less)
    if not asked.checkpointing:
        both = [Plan(asked.batch, a, True, asked.size) for a in (asked.accumulation, *steps)]
        yield "checkpointing", both[0]
        yield from (("checkpointing and accumulation", plan) for plan in both[1:])
    batch = asked.batch // 2
    while batch:
        yield "smaller batch", Plan(batch, batch, True, asked.size)
        batch //= 2


def _smaller_images(asked: Plan, measure: Measure, limit: float) -> Iterator[Forecast]:
    """Yield three quarters, half, ... of the size, with a batch as asked for, one by one."""
    size = asked.size
    while size > 32:
        size = max(32, size * 3 // 4 // 32 * 32)
        trials = Trials(measure, size, True, asked.batch)
        plan = Plan(asked.batch, asked.batch, True, size)
        found = Forecast("smaller images", plan, trials.peak(plan), trials.step_seconds(plan))
        yield found
        if found.peak <= MARGIN * limit:
            return
