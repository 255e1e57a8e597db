"""The worker processes of a loader, watched: one that is killed or stands still ends the wait.

torch tells of a killed worker by an exception out of whatever the main thread is doing, such as the
optimizer's step. Here it comes only while a batch is waited for.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader

from ..errors import UserError
from .signals import POLL_SECONDS, time_suspended

# How a killed worker shows while a batch is waited for: torch's error, or a connection that ends.
_SIGNS = (RuntimeError, OSError, EOFError, pickle.UnpicklingError)


class DataWorkerError(UserError):
    """The data workers give no batch any more."""


class _WorkerEnded(Exception):
    """Breaks off the wait for a batch."""


class DataWorkers:
    """Reads what the workers of a loader have packed; they live from entering to leaving.

    Args:
        loader: with workers; its batches are pickles, or user errors.
        timeout: seconds after which a batch that does not come is an error.
    """

    def __init__(self, loader: DataLoader, timeout: float) -> None:
        self._loader = loader
        self._timeout = timeout
        self._processes: list[Any] = []
        self._awaited_since: float | None = None
        self._is_late = False
        self._ended = threading.Event()
        self._handler_before: Any = None

    def __enter__(self) -> Iterator[Any]:
        before = set(multiprocessing.active_children())
        batches = iter(self._loader)
        self._processes = [p for p in multiprocessing.active_children() if p not in before]
        if threading.current_thread() is threading.main_thread():
            # In the place of torch's handler.
            self._handler_before = signal.signal(signal.SIGCHLD, self._hear_of_child)
        threading.Thread(target=self._watch, name="data workers", daemon=True).start()
        return self._read(batches)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        is_main_thread = threading.current_thread() is threading.main_thread()
        if is_main_thread and self._handler_before is not None:
            signal.signal(signal.SIGCHLD, self._handler_before)

    def _read(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                self._awaited_since = time.monotonic()
                packed = next(batches)
                batch = ForkingPickler.loads(packed) if isinstance(packed, bytes) else packed
            except StopIteration:
                return
            except _WorkerEnded:
                raise self._error() from None
            except _SIGNS as error:
                self._awaited_since = None
                fault = self._error(wait=1.0)
                if fault is None:
                    raise  # the worker's own, with its traceback
                raise fault from error
            finally:
                self._awaited_since = None
            yield batch

    def _hear_of_child(self, _number: int, _frame: FrameType | None) -> None:
        if self._awaited_since is not None and any(map(_is_killed, self._processes)):
            self._awaited_since = None  # once
            raise _WorkerEnded

    def _watch(self) -> None:
        """Kill workers that give no batch in time, which ends the wait for it."""
        looked, suspended = time.monotonic(), 0.0
        seen: float | None = None
        while not self._ended.wait(POLL_SECONDS):
            since, now = self._awaited_since, time.monotonic()
            if since != seen:
                seen, suspended = since, 0.0
            suspended += time_suspended(now - looked)
            looked = now
            if since is not None and now - since - suspended > self._timeout:
                self._is_late = True
                for process in self._processes:
                    process.kill()
                return

    def _error(self, wait: float = 0.0) -> DataWorkerError | None:
        deadline = time.monotonic() + wait
        while not (killed := [p for p in self._processes if _is_killed(p)]):
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.02)
        count = len(self._processes)
        if self._is_late:
            return DataWorkerError(
                f"no batch came within {self._timeout:g} s (DATALOADER.TIMEOUT) from {count} data "
                "workers. Check that the storage of the images answers and that /dev/shm has room. "
                "Raise DATALOADER.TIMEOUT for slow storage, and add --resume to resume the run"
            )
        code = killed[0].exitcode
        how = f"ended with exit code {code}"
        if code < 0:
            cause = {signal.SIGKILL: ": out of memory?", signal.SIGBUS: ": /dev/shm full?"}
            how = f"was killed (signal {-code}{cause.get(-code, '')})"
        return DataWorkerError(
            f"data worker {killed[0].pid} {how}. Lower DATALOADER.NUM_WORKERS (now {count}) or "
            "SOLVER.IMS_PER_BATCH, and add --resume to resume from the last checkpoint"
        )


def _is_killed(process: Any) -> bool:
    return bool(process.exitcode)
