"""The one exception for what a user can cause and fix, a hint at a name, and text safe to show."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A fault in the user's input or machine: shown as one message, no traceback, exit code 2.

    The message names the path, the record or the config key, the fault, and the fix. It has one
    line an argument: a line break or a control character inside of one, such as of a file's name,
    is shown as an escape.
    """

    def __str__(self) -> str:
        return "\n".join(printable(str(line)) for line in self.args)


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return "did you mean X?" with the known name that is most like `name`.

    Args:
        name: that is not known.
        known: the names that are.
        otherwise: what to say where none of them is like it.
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise


def printable(text: str) -> str:
    r"""Return text as it can be shown in one line of a terminal, a log or a page.

    Control characters, line breaks, marks that change the direction of writing and halves of
    surrogate pairs become Python's escapes, such as "\x1b".
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def one_line(error: BaseException) -> str:
    """Return the message of another library's error in one line, for a message of ours."""
    return printable(" ".join(str(error).split()))
