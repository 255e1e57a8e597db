"""Saved detections: COCO's result list as JSON, plain or packed with gzip."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Mapping
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


META_VERSION = 1


class JsonList:
    """A JSON list that is written item by item, so that it needs no memory.

    Args:
        path: the file; it appears when it is complete, under another name until then.
        before: text before the list, such as '{"images": '.
    """

    def __init__(self, path: Path, before: str = "") -> None:
        self._path = path
        self._unfinished = Path(f"{path}.tmp")
        self._file = self._unfinished.open("w", encoding="utf-8")
        self._file.write(f"{before}[")
        self._separator = "\n"

    def add(self, item: Mapping[str, Any]) -> None:
        """Write one item on a line of its own."""
        self._file.write(self._separator + json.dumps(item))
        self._separator = ",\n"

    def close(self, after: Iterable[str] = ()) -> None:
        """End the list, write the texts that follow it, and put the file in its place."""
        self._file.write("\n]")
        self._file.writelines(after)
        self._file.write("\n")
        self._file.close()
        os.replace(self._unfinished, self._path)


class ResultFiles:
    """Writes `predictions.json`, a COCO result list, and `predictions_meta.json` beside it.

    Both are written image by image. The second holds "images", "categories" and "info".

    Args:
        folder: that gets the two files; it exists.
        categories: "id" and "name" of each class; the ids are those of the results.
        info: settings that the results depend on; `format_version` is added.
    """

    def __init__(
        self, folder: Path, categories: Iterable[Mapping[str, Any]], info: Mapping[str, Any]
    ) -> None:
        self._results = JsonList(folder / "predictions.json")
        self._images = JsonList(folder / "predictions_meta.json", '{"images": ')
        self._rest = {
            "categories": list(categories),
            "info": {"format_version": META_VERSION, **info},
        }

    def add(self, image: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> None:
        """Write an image and its results.

        Args:
            image: "id", "file_name", "height" and "width".
            results: in COCO's format; boxes are rounded to 3 decimals, scores to 6.
        """
        self._images.add(image)
        for result in results:
            box = [round(value, 3) for value in result["bbox"]]
            self._results.add({**result, "bbox": box, "score": round(result["score"], 6)})

    def close(self) -> None:
        """Complete the two files."""
        self._results.close()
        self._images.close([f", {json.dumps(self._rest)[1:]}"])
