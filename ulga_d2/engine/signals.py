"""Signals that ask a run to stop: it saves first, so that what started it can go on with it."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

HEEDED = (signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """Heeds SIGTERM and SIGUSR1 while it is entered; they may come more than once.

    In training a signal is noted, and acted on between two steps (`asked`), when all ranks know of
    it. In an evaluation, which can be long, it is acted on at once (`at_once`).

    Attributes:
        asked: number of the signal that has come, or 0.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[int, Any] = {}
        self._act: Callable[[int], None] | None = None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python's rule for handlers
            self._before = {number: signal.signal(number, self._heed) for number in HEEDED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def at_once(self, act: Callable[[int], None]) -> Iterator[None]:
        """Call `act` with the signal's number as soon as one comes, or if one has come before.

        Args:
            act: saves and ends the process; called in the main thread, between any two steps of
                what the block does.
        """
        self._act = act
        try:
            if self.asked:
                act(self.asked)
            yield
        finally:
            self._act = None

    def _heed(self, number: int, _frame: FrameType | None) -> None:
        if self.asked:
            return  # the first one is being acted on
        self.asked = number
        if self._act is not None:
            self._act(number)


def outlive_first_signal(_worker: int) -> None:
    """Let a loader's worker live until its process ends it, after saving; a second signal ends it.

    Slurm and others signal every process of a run, and a trainer whose worker has died cannot go
    on to the end of its step.
    """
    for number in HEEDED:
        signal.signal(number, lambda come, _frame: signal.signal(come, signal.SIG_DFL))


def tell_of_stop(number: int, done: int) -> None:
    """Log that the run stops at a signal, and how to go on."""
    name = signal.Signals(number).name
    logger.info("%s: saved after %d iterations; --resume goes on from there", name, done)
