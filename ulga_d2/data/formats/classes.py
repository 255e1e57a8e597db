"""Give class names their numbers, and gather the names that are none."""

from __future__ import annotations

from collections import Counter

from ..report import Faults


class ClassNumbers:
    """The number of each class by name; other names are counted.

    Args:
        names: of the classes, in order of their numbers.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._numbers = {name: number for number, name in enumerate(names)}
        self._unknown: Counter[str] = Counter()

    def number(self, name: str) -> int | None:
        """Return the number of a class, or None where there is no such class."""
        if name not in self._numbers:
            self._unknown[name] += 1
        return self._numbers.get(name)

    def add_fault(self, place: str, faults: Faults) -> None:
        """Record all names that are no class, with their counts, as one fault of `place`."""
        if self._unknown:
            shown = [f"{name[:40]!r} ({n:,} boxes)" for name, n in self._unknown.most_common(10)]
            more = f" and {len(self._unknown) - 10} more" if len(self._unknown) > 10 else ""
            faults.add(
                place,
                f"unknown classes {', '.join(shown)}{more}; there are {', '.join(self._numbers)}. "
                "Correct the annotations or the class names",
            )
