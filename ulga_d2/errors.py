"""The one exception for what a user can cause and cure, and the hint at a name that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A fault in the user's input or machine: shown as one message, no traceback, exit code 2.

    The message names the place (file, record or config key), the fault, and the cure.
    """


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return "did you mean X?" with the known name that is most like `name`.

    Args:
        name: that is not known.
        known: the names that are.
        otherwise: what to say where none of them is like it.
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise
