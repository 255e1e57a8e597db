"""Saved detections: COCO's result list as JSON, plain or packed with gzip."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from ulga_d2.errors import UserError

PLACES = (
    "inference/predictions.json",
    "inference/predictions.json.gz",
    "predictions.json",
    "detections.json.gz",
)


def find_predictions(folder: str | Path) -> Path:
    """Return where a run folder keeps its detections.

    Raises:
        UserError: it keeps none.
    """
    for place in PLACES:
        path = Path(folder) / place
        if path.is_file():
            return path
    raise UserError(
        f"{folder} holds no detections ({', '.join(PLACES)}); evaluate the run with --eval-only"
    )


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Read a result list.

    Args:
        path: of the file, or of a run folder.

    Raises:
        UserError: a file that is missing or damaged, or holds something else.
    """
    if Path(path).is_dir():
        path = find_predictions(path)
    try:
        content = Path(path).read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        found = json.loads(content)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} cannot be read as COCO's result list: {error}") from None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise UserError(f"{path} holds no list of detections; give COCO's result format")
    return found
