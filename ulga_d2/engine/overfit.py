"""One batch, learnt by heart: what every working detector can do in a minute."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.utils.events import EventStorage
from torch import nn

from ..data.mapper import DetectionMapper, test_augmentations
from ..errors import UserError
from ..inference.model import build_seeded_model
from ..inference.preprocess import build_intensity
from .optimizer import build_optimizer

if TYPE_CHECKING:
    from detectron2.config import CfgNode

# Sum of the losses for one object's anchor; an untrained detector starts near 2. Four offsets that
# are each wrong by a hundredth of an anchor's side give 0.04.
NEAR_ZERO = 0.05
LEARNING_RATE = 1e-3
WARMUP = 10  # iterations
MEAN_OF = 10  # iterations that say whether a loss still falls


@dataclass(frozen=True)
class Memorised:
    """What became of the batch.

    Attributes:
        losses: of each iteration, by name.
        seconds: in all.
        silent: parts of the model whose weights got no gradient in the first iteration.
        culprit: the first loss or gradient that was not finite, or "".
    """

    losses: list[dict[str, float]]
    seconds: float
    silent: tuple[str, ...]
    culprit: str = ""

    @property
    def is_learnt(self) -> bool:
        """Whether the sum of the losses came near zero."""
        return not self.culprit and sum(self.losses[-1].values()) < NEAR_ZERO


def read_batch(cfg: CfgNode, records: Sequence[dict], num_images: int) -> list[dict]:
    """Return the first images that have objects, as the network's input, without augmentation.

    Raises:
        UserError: too few such images, or one that cannot be read.
    """
    with_objects = [record for record in records if record["annotations"]][:num_images]
    if len(with_objects) < num_images:
        raise UserError(
            f"{num_images} images with objects were asked for, and the training set has "
            f"{len(with_objects)}; give a smaller --images"
        )
    mapper = DetectionMapper(
        test_augmentations(cfg.INPUT.SQUARE_SIZE),
        with_masks=cfg.MODEL.MASK_ON,
        intensity=build_intensity(cfg),
    )
    return [mapper(record) for record in with_objects]


def memorise(
    cfg: CfgNode,
    batch: list[dict],
    *,
    iterations: int,
    seconds: float = math.inf,
    report: Callable[[int, dict[str, float]], None] = lambda _number, _losses: None,
) -> Memorised:
    """Train on one batch, without decay, until its loss is near zero or the limit is reached.

    The rate is this test's own: constant, then falling to zero over the second half, since the
    gradient of an L1 loss does not shrink near its minimum.

    Args:
        cfg: a resolved config.
        batch: see `read_batch`.
        iterations: at most.
        seconds: at most.
        report: called with each iteration's number and losses.
    """
    model = build_seeded_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    silent: tuple[str, ...] = ()
    found: list[dict[str, float]] = []
    start = time.perf_counter()
    with EventStorage(0):
        _settle_normalizer(model, batch)
        for number in range(iterations):
            found.append(_set_gradients(model, batch))
            report(number, found[-1])
            silent = silent if number else _silent_parts(model)
            culprit = _first_not_finite(model, found[-1])
            passed = time.perf_counter() - start
            if culprit or sum(found[-1].values()) < NEAR_ZERO or passed > seconds:
                break
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            _set_rate(optimizer, number, iterations)
            optimizer.step()
    return Memorised(found, passed, silent, culprit)


def _set_gradients(model: nn.Module, batch: list[dict]) -> dict[str, float]:
    """Put the gradients of one pass into the weights; return the losses."""
    losses = model(batch)
    model.zero_grad()
    sum(losses.values()).backward()
    return {name: float(value.detach()) for name, value in losses.items()}


def _settle_normalizer(model: nn.Module, batch: list[dict]) -> None:
    """Make RetinaNet divide its losses by this batch's own number of positive anchors.

    It divides by a moving average, 0.9 of what was plus 0.1 of what is, which starts at 100 and
    would let the loss of few anchors look small.
    """
    if isinstance(model, DenseDetector):
        model.loss_normalizer = 0.0
        with torch.no_grad():
            model(batch)
        model.loss_normalizer *= 10


def _set_rate(optimizer: torch.optim.Optimizer, number: int, iterations: int) -> None:
    rising = min(1.0, (number + 1) / WARMUP)
    falling = min(1.0, 2 * (1 - number / iterations))
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE * rising * falling
        group["weight_decay"] = 0.0


def _silent_parts(model: nn.Module) -> tuple[str, ...]:
    """Name the modules, two levels deep, of which no weight got a gradient other than zero."""
    loud: dict[str, bool] = {}
    for name, weight in model.named_parameters():
        part = ".".join(name.split(".")[:3])
        has_gradient = weight.grad is not None and bool(weight.grad.any())
        loud[part] = loud.get(part, False) or has_gradient
    return tuple(part for part, is_loud in loud.items() if not is_loud)


def _first_not_finite(model: nn.Module, losses: dict[str, float]) -> str:
    for name, value in losses.items():
        if not math.isfinite(value):
            return name
    for name, weight in model.named_parameters():
        if weight.grad is not None and not bool(torch.isfinite(weight.grad).all()):
            return f"gradient of {name}"
    return ""


def diagnosis(outcome: Memorised) -> str:
    """Say in words why a batch was not learnt, as far as its losses tell."""
    first, last = outcome.losses[0], outcome.losses[-1]
    if outcome.culprit:
        number = len(outcome.losses) - 1
        return f"{outcome.culprit} is not finite in iteration {number} ({_words(last)})"
    if outcome.silent:
        return (
            f"no gradient reaches {', '.join(outcome.silent)}: they are not connected to the loss"
        )
    worst = max(last, key=lambda name: last[name])
    sums = [sum(losses.values()) for losses in outcome.losses]
    half = len(sums) // 2  # where the rate begins to fall: nothing falls as fast at the very end
    before, after = sums[max(0, half - MEAN_OF) : half], sums[-MEAN_OF:]
    if before and sum(after) / len(after) < 0.8 * sum(before) / len(before):
        return f"still falling ({_words(last)}): give more --iterations or --seconds"
    return (
        f"{worst} stays at {last[worst]:.3f} (from {first[worst]:.3f}; all: {_words(last)}): look "
        "at the boxes (`ulga data show`), the anchors (`ulga data check CONFIG`) and the levels of "
        "the head"
    )


def _words(losses: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
