"""Log how far a long loop is, and when it will end."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
PERIOD = 5.0


def with_progress(items: Sequence[Item], what: str, logger: logging.Logger) -> Iterator[Item]:
    """Yield each item; a loop that takes long logs every 5 seconds how far it is, and its end."""
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= PERIOD:
            last = now
            left = (now - start) / done * (len(items) - done)
            logger.info("%s: %d of %d, about %.0f s left", what, done, len(items), left)
        yield item
    if last > start:
        logger.info("%s: %d of %d, %.0f s", what, len(items), len(items), time.monotonic() - start)
