"""Global settings that are changed while any thread needs it, and restored after the last one."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager


class SharedSwitch:
    """A context manager that many threads may be in at once.

    The first one in changes the setting, the last one out restores it. A plain "save, change,
    restore" of each thread would restore while others still rely on the change, and leave it
    changed for good.

    Args:
        change: returns the context manager that changes the setting.
    """

    def __init__(self, change: Callable[[], AbstractContextManager]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._count = 0
        self._context: AbstractContextManager | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._count == 0:
                self._context = self._change()
                self._context.__enter__()
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                self._context.__exit__(None, None, None)


@contextlib.contextmanager
def _ignore_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# One for all libraries: two of them that end in another order than they began would leave
# warnings off for good.
quiet_warnings = SharedSwitch(_ignore_warnings)
