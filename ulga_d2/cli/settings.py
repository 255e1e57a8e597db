"""Settings of the config on the command line: KEY VALUE at the end, or `--set KEY VALUE`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

# With a dot, or one of the few keys without.
_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+|SEED|OUTPUT_DIR|CUDNN_BENCHMARK|VERSION")


def set_trailing(words: Sequence[str]) -> list[str]:
    """Turn the KEY VALUE pairs that end a command line into `--set KEY VALUE`."""
    start = len(words)
    while start >= 2 and _KEY.fullmatch(words[start - 2]):
        start -= 2
        if words[start - 1 : start] == ["--set"]:
            return list(words)
    pairs = zip(words[start::2], words[start + 1 :: 2], strict=True)
    return [*words[:start], *(word for key, value in pairs for word in ("--set", key, value))]


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """Add `--set`, which may be given many times."""
    parser.add_argument(
        "--set",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        dest="options",
        help="change a setting of the config, or of every config; KEY VALUE at the end of the "
        "command do the same",
    )


def words_of(args: argparse.Namespace) -> list[str]:
    """Return the settings as KEY VALUE words, in the order in which they were given."""
    return [word for pair in args.options for word in pair]
