"""One thing that the data doctor has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What makes a result wrong or a run impossible; what should be mended; what should be known.
ERROR, PROBLEM, NOTE = "error", "problem", "note"
KEPT_PLACES = 20


@dataclass(frozen=True)
class Finding:
    """What was found, where, how often, and what to do about it.

    Attributes:
        level: ERROR, PROBLEM or NOTE.
        split: the split or splits it concerns.
        what: the fact in words.
        count: of how many images, boxes, classes or patients it is true; 0 where it is true of the
            split as a whole.
        places: the first KEPT_PLACES of them.
        cure: what the user can do; empty where nothing need be done.
    """

    level: str
    split: str
    what: str
    count: int
    places: tuple[str, ...] = ()
    cure: str = ""

    def as_dict(self) -> dict:
        """Return the finding as plain data."""
        return {
            "level": self.level,
            "split": self.split,
            "what": self.what,
            "count": self.count,
            "first_places": list(self.places),
            "cure": self.cure,
        }


def finding(level: str, split: str, what: str, places: Sequence[str], cure: str = "") -> Finding:
    """Return a finding that is true of each of `places`; the first of them keep their name."""
    return Finding(level, split, what, len(places), tuple(places[:KEPT_PLACES]), cure)
