"""Find a data set's file in its folder, or say what to do where it is not there."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..errors import UserError


def check_root(root: Path, title: str) -> None:
    """Refuse a data set's folder that does not exist.

    Args:
        root: the folder; its name is the data set's.
        title: of the data set, in words.

    Raises:
        UserError: with the ways to get the data.
    """
    if not root.is_dir():
        raise UserError(
            f"no {title} data: {root} does not exist. Get them as datasets/README.md says, or set "
            f"DETECTRON2_DATASETS to the folder that holds {root.name}/. To try without them: "
            f"ulga sample {root.name} {shlex.quote(str(root))}"
        )


def find_file(root: Path, pattern: str) -> Path:
    """Return the one file of a name in `root`, or in one of its subfolders.

    Raises:
        UserError: there is none, or more than one.
    """
    found = sorted([*root.glob(pattern), *root.glob(f"*/{pattern}")])
    if not found:
        raise UserError(
            f"{root} holds no {pattern}; put the release's there, see datasets/README.md"
        )
    if len(found) > 1:
        raise UserError(
            f"{found[0]} and {found[1]} would both do, so which one counts is unclear; move one "
            "away"
        )
    return found[0]
