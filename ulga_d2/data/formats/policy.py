"""How many records may be lost before a data set counts as broken."""

from __future__ import annotations

from ...errors import UserError
from ..report import shortened

# A data set that lacks more than this share of its images is refused.
MAX_MISSING = 0.01


def check_missing(missing: list[str], total: int, what: str) -> None:
    """Refuse a data set of which more than 1 % is missing.

    Args:
        missing: the places of the missing items.
        total: number of items expected.
        what: the items in plural, for the message.

    Raises:
        UserError: too many are missing.
    """
    if len(missing) > MAX_MISSING * total:
        shown = ", ".join(map(shortened, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise UserError(
            f"{len(missing):,} {what}, of {total:,} (more than 1 %): {shown}; restore the images "
            "or remove their annotations"
        )
