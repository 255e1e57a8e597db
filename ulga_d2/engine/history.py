"""What a run remembers of its figures while it goes on."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

from detectron2.utils.events import EventStorage
from fvcore.common.history_buffer import HistoryBuffer

KEPT = 1000  # iterations; writers look back over 20


class BoundedStorage(EventStorage):
    """detectron2's storage with a short memory.

    Its own keeps every figure of up to a million iterations, which makes a run grow by 1 MB per
    1,000 iterations.
    """

    def __init__(self, start_iter: int = 0) -> None:
        super().__init__(start_iter)
        self._history = defaultdict(partial(HistoryBuffer, max_length=KEPT))
