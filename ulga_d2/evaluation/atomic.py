"""Writing a result file so that a reader never meets half of it."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from detectron2.utils.file_io import PathManager

from ..folder_lock import LOCK_PREFIX

logger = logging.getLogger(__name__)

# Earlier versions left the process's number out; only their own names count without it.
_UNFINISHED = re.compile(
    r"(.+)\.\d+\.tmp"
    r"|(model_\w+\.pth|last_checkpoint|predictions\.csv|data\.yaml|contact_sheet\.png"
    r"|(?:metrics|predictions|predictions_meta|dataset|dataset_images|complete)\.json)\.tmp"
)


def unfinished_path(path: str | Path) -> Path:
    """Return the name that a file has until it is complete; it carries the process's number."""
    return Path(f"{path}.{os.getpid()}.tmp")


def final_name(name: str) -> str:
    """Return the name that a file gets when it is complete, given either name."""
    match = _UNFINISHED.fullmatch(name)
    return (match[1] or match[2]) if match else name


def remove_unfinished(folder: str | Path) -> None:
    """Delete the unfinished files that killed processes have left in a folder.

    Call it with the lock on the folder held: then no other process is writing one, but for those
    of the lock itself, which stay. What cannot be deleted is logged.
    """
    try:
        for path in Path(folder).glob("*.tmp"):
            is_ours = _UNFINISHED.fullmatch(path.name) and not path.name.startswith(LOCK_PREFIX)
            if is_ours and path.is_file():
                path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning(
            "unfinished files in %s cannot be deleted (%s); delete *.tmp there",
            folder,
            error.strerror,
        )


def write_atomically(path: str, content: bytes) -> None:
    """Write `content` to a file that appears, or replaces its elder, only when complete.

    A path with a scheme ("s3://...") is written in one go by its own handler.
    """
    if "://" in path:
        with PathManager.open(path, "wb") as file:
            file.write(content)
        return
    PathManager.mkdirs(os.path.dirname(path) or ".")
    unfinished = unfinished_path(path)
    try:
        with PathManager.open(str(unfinished), "wb") as file:
            file.write(content)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
