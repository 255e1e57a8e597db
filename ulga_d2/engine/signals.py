"""Signals that ask a run to stop: it saves first, so that what started it can go on with it.

Python runs a signal's handler in the main thread, and only when that thread comes back from
compiled code: not while it waits for another rank. A second thread therefore hears of each signal
at once, and ends the process where the main thread does not act in time.
"""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from ..folder_lock import exit_now

logger = logging.getLogger(__name__)

HEEDED = (signal.SIGTERM, signal.SIGUSR1)
GRACE_SECONDS = 20.0
# Schedulers and launchers pass the same signal on, so it can arrive several times at once.
REPEAT_SECONDS = 2.0
POLL_SECONDS = 0.5  # between two looks at the time; a process that is suspended takes none
SUSPENDED_SECONDS = 4.0  # between two looks that show that it was


class StopSignals:
    """Heeds SIGTERM and SIGUSR1 while it is entered.

    In training a signal is noted, and acted on between two steps (`asked`), when all ranks know of
    it. While the main thread waits for data, and in an evaluation, which can be long, it is acted
    on at once (`at_once`). If nothing is done for `grace` seconds, the process waits for something
    that does not come: it ends without saving. So it does at a second signal, more than 2 seconds
    after the first. Both are true of Ctrl-C, too, whose handler is not changed.

    A save takes the time that it needs: while a signal is acted on, and in a block of `working`,
    `grace` does not count, and of second signals Ctrl-C alone ends the process.

    Attributes:
        asked: number of the signal that has come, or 0.
        grace: seconds within which the main thread must act on a signal.
        is_acting: the signal is being acted on, and `grace` no longer counts.
        blocks: of `working` that the main thread is in.
        worked_until: time at which the last of them ended, by `time.monotonic`.
    """

    def __init__(self, grace: float = GRACE_SECONDS) -> None:
        self.asked = 0
        self.grace = grace
        self.is_acting = False
        self.blocks = 0
        self.worked_until = 0.0
        self._before: dict[int, Any] = {}
        self._act: Callable[[int], None] | None = None
        self._pid = os.getpid()
        self._wakeup: socket.socket | None = None
        self._wakeup_before = -1
        self._suspended = 0.0  # seconds since the first signal

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python's rule for handlers
            reader, self._wakeup = socket.socketpair()
            self._wakeup.setblocking(False)
            handle = self._wakeup.fileno()
            _wakeup_handles.add(handle)
            self._wakeup_before = signal.set_wakeup_fd(handle, warn_on_full_buffer=False)
            self._before = {number: signal.signal(number, self._heed) for number in HEEDED}
            _entered.append(self)
            threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self in _entered:
            _entered.remove(self)
        if self._wakeup is not None:
            signal.set_wakeup_fd(self._wakeup_before, warn_on_full_buffer=False)
            _wakeup_handles.discard(self._wakeup.fileno())
            self._wakeup.close()  # ends the thread

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
                self.is_acting = True
                act(self.asked)
            yield
        finally:
            self._act = None

    def _heed(self, number: int, _frame: FrameType | None) -> None:
        if self.asked or os.getpid() != self._pid:
            return  # the first one is being acted on; a forked child acts on none
        self.asked = number
        if self._act is not None:
            self.is_acting = True
            self._act(number)

    def _watch(self, reader: socket.socket) -> None:
        first: tuple[int, float] | None = None
        with reader:
            while True:
                asked = time.monotonic()
                reader.settimeout(None if first is None else POLL_SECONDS)
                try:
                    numbers = reader.recv(4096)
                except TimeoutError:
                    now = time.monotonic()
                    self._suspended += time_suspended(now - asked)
                    if now >= self._deadline(first[1]):
                        _give_up(first[0], self.grace)
                    continue
                if not numbers:
                    return
                now = time.monotonic()
                for number in numbers:
                    if number not in (*HEEDED, signal.SIGINT):
                        continue
                    if first is None:
                        first = (number, now)
                    elif now - first[1] > REPEAT_SECONDS:
                        self._end_at_second(number)

    def _deadline(self, first: float) -> float:
        """Return until when the main thread may take to act on a signal that came at `first`."""
        if self.is_acting or self.blocks:
            return math.inf
        # A long step raises `grace` in the meantime.
        return max(first, self.worked_until) + self._suspended + self.grace

    def _end_at_second(self, number: int) -> None:
        """End the process, unless it saves and a scheduler has sent the signal."""
        is_working = self.is_acting or self.blocks
        if is_working and number in HEEDED:
            return
        saved = "what was being saved is lost" if is_working else "nothing was saved"
        print(f"{signal.Signals(number).name}: the second signal; {saved}", file=sys.stderr)
        end_process(128 + number)


_entered: list[StopSignals] = []  # of the main thread, the innermost last
_wakeup_handles: set[int] = set()


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Have no signal end the process during the block, which does what must not be cut: a save.

    A signal is acted on after the block, and its `grace` starts anew there. Every rank that waits
    for the block's end on another rank must be in such a block, too.
    """
    signals = _entered[-1] if _entered else None
    if signals is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    signals.blocks += 1
    try:
        yield
    finally:
        signals.worked_until = time.monotonic()
        signals.blocks -= 1


def time_suspended(passed: float) -> float:
    """Return the part of a wait of POLL_SECONDS in which the whole process stood still.

    Args:
        passed: seconds that the wait took; far more than asked for means SIGSTOP and SIGCONT, as a
            scheduler sends them to a job that gives way to another.
    """
    return passed - POLL_SECONDS if passed > SUSPENDED_SECONDS else 0.0


def _forget_wakeup() -> None:
    """Have a forked child not report its signals as its parent's."""
    handle = signal.set_wakeup_fd(-1)
    if handle not in _wakeup_handles:
        signal.set_wakeup_fd(handle)


os.register_at_fork(after_in_child=_forget_wakeup)


def _give_up(number: int, seconds: float) -> NoReturn:
    print(
        f"{signal.Signals(number).name}: nothing was saved, since the process has been waiting for "
        f"other ranks or a device for {seconds:.0f} s; --resume goes on from the last checkpoint",
        file=sys.stderr,
    )
    end_process(128 + number)


def stop_now(number: int) -> NoReturn:
    """End the process at a signal that comes where there is nothing to save."""
    print(f"{signal.Signals(number).name}: stopped", file=sys.stderr)
    end_process(128 + number)


def end_process(code: int) -> NoReturn:
    """End the process and its data workers, whatever they wait for."""
    for child in multiprocessing.active_children():
        child.kill()
    exit_now(code)


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
    if done:
        logger.info("%s: saved after %d iterations; --resume goes on from there", name, done)
    else:
        logger.info("%s: stopped before the first iteration, so nothing was saved", name)
