"""Signals that ask a run to stop: it saves first, so that what started it can go on with it.

Python runs a signal's handler in the main thread, and only when that thread comes back from
compiled code: not while it waits for another rank. A second thread therefore hears of each signal
at once, and ends the process where the main thread does not act in time.
"""

from __future__ import annotations

import contextlib
import logging
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


class StopSignals:
    """Heeds SIGTERM and SIGUSR1 while it is entered.

    In training a signal is noted, and acted on between two steps (`asked`), when all ranks know of
    it. While the main thread waits for data, and in an evaluation, which can be long, it is acted
    on at once (`at_once`). If nothing is done for `grace` seconds, the process waits for something
    that does not come: it ends without saving. So it does at a second signal, more than 2 seconds
    after the first. Both are true of Ctrl-C, too, whose handler is not changed.

    Attributes:
        asked: number of the signal that has come, or 0.
        grace: seconds within which the main thread must act on a signal.
        is_acting: the signal is being acted on, and `grace` no longer counts.
    """

    def __init__(self, grace: float = GRACE_SECONDS) -> None:
        self.asked = 0
        self.grace = grace
        self.is_acting = False
        self._before: dict[int, Any] = {}
        self._act: Callable[[int], None] | None = None
        self._pid = os.getpid()
        self._wakeup: socket.socket | None = None
        self._wakeup_before = -1

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python's rule for handlers
            reader, self._wakeup = socket.socketpair()
            self._wakeup.setblocking(False)
            handle = self._wakeup.fileno()
            _wakeup_handles.add(handle)
            self._wakeup_before = signal.set_wakeup_fd(handle, warn_on_full_buffer=False)
            self._before = {number: signal.signal(number, self._heed) for number in HEEDED}
            threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
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
        first = deadline = None
        with reader:
            while True:
                left = None if deadline is None else max(0.01, deadline - time.monotonic())
                reader.settimeout(left)
                try:
                    numbers = reader.recv(4096)
                except TimeoutError:
                    deadline = first[1] + self.grace  # which a long step has raised
                    if self.is_acting:
                        deadline = None
                    elif time.monotonic() >= deadline:
                        _give_up(first[0], self.grace)
                    continue
                if not numbers:
                    return
                now = time.monotonic()
                for number in numbers:
                    if number not in (*HEEDED, signal.SIGINT):
                        continue
                    if first is None:
                        first, deadline = (number, now), now + self.grace
                    elif now - first[1] > REPEAT_SECONDS:
                        name = signal.Signals(number).name
                        print(f"{name}: the second signal; nothing was saved", file=sys.stderr)
                        end_process(128 + number)


_wakeup_handles: set[int] = set()


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
