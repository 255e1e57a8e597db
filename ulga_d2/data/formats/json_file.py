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
        UserError: the file cannot be read or is not valid JSON.
    """
    try:
        return json.loads(read_text(str(path)))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg}); fetch or export the file "
            "again"
        ) from None
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits, brackets without end.
        raise UserError(f"{path}: not valid JSON ({error}); export the file again") from None
