"""Read a JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...io import parse_json
from .text import read_text


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        UserError: the file cannot be read, is not valid JSON, or gives a key of an object twice.
    """
    return parse_json(read_text(str(path)), path)
