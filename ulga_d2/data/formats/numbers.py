"""Numbers as annotation files give them, as JSON values or as text: one rule for all formats.

A number is a JSON number or the text of one; a Boolean, NaN, infinity and all else is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_LONGEST = 400  # characters of a number's text, such as one printed with 40 decimals or more
_LARGEST = 10**15  # of a number; whole ones up to here are exact as floats
# What table programs write into a cell without a value.
_EMPTY_TEXTS = frozenset(["", "nan", "none", "null", "na", "n/a", "<na>", "#n/a"])
_FLAGS = {"0": 0, "1": 1, "false": 0, "true": 1, "null": 0, "none": 0, "": 0}


def read_number(value: object) -> float | None:
    """Return the number that a JSON value or a text gives, or None where it gives none."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
            return None
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # NaN fails the comparison, too.
    return float(value) if -_LARGEST < value < _LARGEST else None


def whole_number(value: object) -> int | None:
    """Return the whole number of 640, 640.0, "640" or "640.0"; None for any other value."""
    number = read_number(value)
    return int(number) if number is not None and number.is_integer() else None


def number_fault(fields: Mapping[str, object]) -> str | None:
    """Return what is wrong with the first field that is no number, and the fix, or None.

    Args:
        fields: numbers or texts by their names.
    """
    for name, value in fields.items():
        if read_number(value) is not None:
            continue
        if value is None or (isinstance(value, str) and is_empty(value)):
            return f"{name} is empty; write the number or delete the box"
        has_comma = isinstance(value, str) and "," in value
        fix = "write a decimal point, not a comma" if has_comma else "write a plain number"
        return f"{name} {str(value)[:20]!r} is not a number; {fix}"
    return None


def is_empty(text: str) -> bool:
    """Tell whether a table's cell has no value: "", "nan", "None", "null", "NA"."""
    return text.strip().lower() in _EMPTY_TEXTS


def stated_size(height: object, width: object) -> tuple[int, int] | None:
    """Return the size of an image (height, width) that annotations state.

    Returns:
        None where a side is missing, empty or 0, so the size is not stated.

    Raises:
        ValueError: a side is neither that nor a whole number above 0; the text says so.
    """
    sides = []
    for value in (height, width):
        is_missing = value is None or (isinstance(value, str) and is_empty(value))
        sides.append(0 if is_missing else whole_number(value))
    if any(side is None or side < 0 for side in sides):
        shown = " and ".join(str(value)[:20] for value in (height, width))
        raise ValueError(f"height and width are {shown}, not whole numbers; correct them")
    return None if 0 in sides else (sides[0], sides[1])


def read_flag(value: object) -> int | None:
    """Return 0 or 1 for a flag: 0, "0", false, "false", null and "" are 0; 1 and true are 1.

    Returns:
        None for every other value.
    """
    if value is None or isinstance(value, bool):
        return int(bool(value))
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    number = whole_number(value)
    return number if number in (0, 1) else None


def read_id(value: object) -> int | str | None:
    """Return an id to compare: 17, 17.0 and "17" are one id, and any other text is its own.

    Returns:
        None for what is no id: an empty text, a broken number, a Boolean, a list.
    """
    if isinstance(value, str):
        text = value.strip()
        # "017" is no number: such names differ in their zeros alone.
        return int(text) if re.fullmatch(r"0|-?[1-9]\d{0,17}", text, re.ASCII) else text or None
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 10**18 else None
    return whole_number(value)
