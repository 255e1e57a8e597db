"""What is wrong with the numbers of a box that a text file gives."""

from __future__ import annotations

from collections.abc import Mapping


def number_fault(fields: Mapping[str, str]) -> str | None:
    """Return what is wrong with the first field that is no number, and how to mend it, or None.

    Args:
        fields: the texts by their names; "nan" and "inf" count as numbers, which are dropped later.
    """
    for name, text in fields.items():
        try:
            float(text)
        except ValueError:
            if not text:
                return f"{name} is empty; write the number or delete the box"
            cure = "write a decimal point, not a comma" if "," in text else "write a plain number"
            return f"{name} {text[:20]!r} is not a number; {cure}"
    return None


def whole_number(text: str) -> int | None:
    """Return the whole number that a text such as "640" or "640.0" gives; None for any other."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None
