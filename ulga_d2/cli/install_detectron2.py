"""`ulga install-detectron2`: detectron2 without a compiler; one that is there already is kept."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..installation.detectron2_wheel import find_detectron2, install, read_version
from ..terminal import show


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "install-detectron2",
        description="Put detectron2 into this Python from a hash-checked wheel. Its plain Python "
        "only: nothing is compiled. A detectron2 that can be imported already is kept.",
    )
    parser.add_argument(
        "--target",
        type=Path,
        metavar="FOLDER",
        help="put it into this folder instead of this Python's site-packages",
    )


def run(args: argparse.Namespace) -> int:
    """Install unless detectron2 is there; say which version lies where."""
    package = find_detectron2(args.target)
    if package is not None:
        show(f"detectron2 {read_version(package)} is there already, in {package}; kept")
        return 0
    package = install(args.target)
    show(f"detectron2 {read_version(package)} installed in {package}")
    return 0
