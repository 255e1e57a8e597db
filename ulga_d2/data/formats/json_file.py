"""Read a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import UserError
from .text import read_text


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        UserError: the file cannot be read, is not valid JSON, or gives a key of an object twice.
    """
    try:
        return json.loads(read_text(str(path)), object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg}); fetch or export the file "
            "again"
        ) from None
    except (ValueError, RecursionError) as error:
        # Keys given twice, numbers of thousands of digits, brackets without end.
        raise UserError(f"{path}: not valid JSON ({error}); export the file again") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; of a repeated key, `json` would silently keep the last value alone."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {ascii(twice)[:40]} stands twice in one object")
    return found
