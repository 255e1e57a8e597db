"""The one exception for what a user can cause and cure."""

from __future__ import annotations


class UserError(Exception):
    """A fault in the user's input or machine: shown as one message, no traceback, exit code 2.

    The message names the place (file, record or config key), the fault, and the cure.
    """
