"""Times of candidates that take turns in one process, so that a machine's moods fall on all."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ratio:
    """How a candidate's time compares with another's, round by round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}-{self.high:.2f}]"


@dataclass(frozen=True)
class Times:
    """Seconds of each candidate in each round."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Return a candidate's median, in seconds."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, reference: str, minus: str | None = None) -> Ratio:
        """Compare a candidate with another, or what it takes beyond `minus` with it."""
        less = self.seconds[minus] if minus else [0.0] * len(self.seconds[name])
        ratios = [
            (own - base) / other
            for own, base, other in zip(
                self.seconds[name], less, self.seconds[reference], strict=True
            )
        ]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def take_turns(candidates: dict[str, Callable[[], object]], rounds: int) -> Times:
    """Call all candidates once to warm up, then in turns, `rounds` times each."""
    for call in candidates.values():
        _seconds(call)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds):
        for name, call in candidates.items():
            seconds[name].append(_seconds(call))
        print(f"\r  round {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return Times(seconds)


def _seconds(call: Callable[[], object]) -> float:
    wait_for_gpu()
    start = time.perf_counter()
    call()
    wait_for_gpu()
    return time.perf_counter() - start


def wait_for_gpu() -> None:
    """Wait until what was asked of the GPU is done; nothing to do without one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def forward(model: torch.nn.Module, image: torch.Tensor) -> Callable[[], object]:
    """Return a call that runs the model without gradients."""
    model.eval()

    def call() -> None:
        with torch.inference_mode():
            model(image)

    return call


def forward_backward(model: torch.nn.Module, image: torch.Tensor) -> Callable[[], object]:
    """Return a call that runs the model and a backward pass through random directions.

    The sum of outputs would not do: behind a norm its gradient is zero.
    """
    model.train()
    with torch.no_grad():
        directions = [torch.randn_like(value) for value in model(image).values()]

    def call() -> None:
        outputs = model(image).values()
        torch.autograd.backward(list(outputs), directions)
        model.zero_grad(set_to_none=True)

    return call
