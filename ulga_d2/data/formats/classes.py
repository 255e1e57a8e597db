"""Check class names, give them their numbers, and gather the names that are none."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ...errors import UserError
from ..report import Faults

# Line and paragraph separators, control characters and broken halves of characters.
_REFUSED_KINDS = frozenset(["Cc", "Cs", "Zl", "Zp"])
# They turn the direction of what follows.
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LONGEST_NAME = 500  # characters


def clean_class_name(name: str) -> str:
    """Return a class name without blanks around it.

    Raises:
        ValueError: the name is far too long, or holds control characters, which terminals and
            pages would act on.
    """
    name = name.strip()
    if len(name) > _LONGEST_NAME:
        raise ValueError(
            f"the class name {name[:20]!a}... has {len(name):,} characters, more than "
            f"{_LONGEST_NAME}; rename it"
        )
    if any(unicodedata.category(letter) in _REFUSED_KINDS for letter in name) or (
        _DIRECTIONS & set(name)
    ):
        raise ValueError(f"the class name {ascii(name)[:60]} holds control characters; rename it")
    return name


def clean_class_names(names: Iterable[str], source: Path) -> tuple[str, ...]:
    """Return class names without blanks around them, in their order.

    Args:
        names: as the files give them.
        source: where they stand, for messages.

    Raises:
        UserError: a name is too long or holds control characters.
    """
    try:
        return tuple(map(clean_class_name, names))
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None


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
