"""The option `--set KEY VALUE` of commands that take a config and other options too."""

from __future__ import annotations

import argparse


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """Add `--set`, which may be given many times."""
    parser.add_argument(
        "--set",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        dest="options",
        help="change a setting of the config, or of every config",
    )


def words_of(args: argparse.Namespace) -> list[str]:
    """Return the settings as KEY VALUE words, in the order in which they were given."""
    return [word for pair in args.options for word in pair]
