"""Settings of the config on the command line: KEY VALUE, or `--set KEY VALUE`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..config import split_settings


def set_trailing(words: Sequence[str]) -> list[str]:
    """Turn KEY VALUE pairs, which may stand before and behind flags, into `--set KEY VALUE`."""
    others, settings = split_settings(words)
    pairs = zip(settings[::2], settings[1::2], strict=True)
    behind = others.index("--") if "--" in others else len(others)
    sets = [word for key, value in pairs for word in ("--set", key, value)]
    return [*others[:behind], *sets, *others[behind:]]


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """Add `--set`, which may be given many times."""
    parser.add_argument(
        "--set",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        dest="options",
        help="change a setting of the config, or of every config; KEY VALUE alone does the same",
    )


def words_of(args: argparse.Namespace) -> list[str]:
    """Return the settings as KEY VALUE words, in the order in which they were given."""
    return [word for pair in args.options for word in pair]
