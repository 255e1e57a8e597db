"""Writing a result file so that a reader never meets half of it."""

from __future__ import annotations

import os

from detectron2.utils.file_io import PathManager


def write_atomically(path: str, content: bytes) -> None:
    """Write `content` to a file that appears, or replaces its elder, only when complete.

    A path with a scheme ("s3://...") is written in one go by its own handler.
    """
    if "://" in path:
        with PathManager.open(path, "wb") as file:
            file.write(content)
        return
    PathManager.mkdirs(os.path.dirname(path) or ".")
    unfinished = f"{path}.tmp"
    with PathManager.open(unfinished, "wb") as file:
        file.write(content)
    os.replace(unfinished, path)
