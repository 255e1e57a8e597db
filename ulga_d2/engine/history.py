"""What a run remembers of its figures while it goes on."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

from detectron2.utils.events import EventStorage
from fvcore.common.history_buffer import HistoryBuffer

KEPT = 1000  # iterations
WINDOW = 20  # iterations that the writers look back over
TIMES = ("time", "data_time", "eta_seconds")
Recent = dict[str, tuple[bool, list[list[float]]]]


class BoundedStorage(EventStorage):
    """detectron2's storage with a short memory.

    Its own keeps every figure of up to a million iterations, which makes a run grow by 1 MB per
    1,000 iterations.
    """

    def __init__(self, start_iter: int = 0) -> None:
        super().__init__(start_iter)
        self._history = defaultdict(partial(HistoryBuffer, max_length=KEPT))

    def recent(self, iteration: int) -> Recent:
        """Return what the writers' medians look back on, of the figures of a step.

        Args:
            iteration: the step's; times are left out, since no two runs share them.
        """
        found = {}
        for name, buffer in self._history.items():
            values = buffer.values()[-WINDOW:]
            if name not in TIMES and "/" not in name and values[-1][1] == iteration:
                pairs = [[float(value), int(at)] for value, at in values]
                found[name] = (self._smoothing_hints[name], pairs)
        return found

    def recall(self, recent: Recent) -> None:
        """Let medians look back on what `recent` returned in the run that is resumed."""
        for name, (is_smoothed, pairs) in recent.items():
            self._smoothing_hints[name] = is_smoothed
            for value, at in pairs:
                self._history[name].update(value, at)

    def count_as_new(self, recent: Recent) -> None:
        """Let the writers write the last of these figures, which the resumed run had not."""
        for name, (_, pairs) in recent.items():
            self._latest_scalars[name] = tuple(pairs[-1])
