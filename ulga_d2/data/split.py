"""Split a data set by a hash of whom an image shows, where no official split exists.

A place in a split is a function of (seed, key) alone: it depends on no order, no other file and no
machine, and adding images moves none of the others. Ours; no data set prescribes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

# The seed of every split that a data set of ours has by itself; fold files state their own.
SEED = 0
# Bits of the hash that a float holds exactly.
_FLOAT_BITS = 53


def _hash(seed: int, key: str) -> int:
    digest = hashlib.sha256(f"{seed}/{key}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big")


def hash_fraction(seed: int, key: str) -> float:
    """Return a number in [0, 1), evenly spread over the keys of one seed.

    Args:
        seed: numbers of two seeds are independent.
        key: a patient, or an image where nothing tells whose it is.
    """
    return (_hash(seed, key) >> (64 - _FLOAT_BITS)) / 2**_FLOAT_BITS


def fold_of(seed: int, key: str, folds: int) -> int:
    """Return the fold of `key`, a number from 0 to `folds` - 1."""
    return _hash(seed, key) % folds


def split_of(key: str, shares: Mapping[str, float], seed: int = SEED) -> str:
    """Return the split of `key`.

    Args:
        key: a patient, or an image where nothing tells whose it is.
        shares: the share of the keys that each split gets, in order; they add up to 1.
        seed: of the hash.
    """
    fraction = hash_fraction(seed, key)
    end = 0.0
    for name, share in shares.items():
        end += share
        if fraction < end:
            return name
    return name  # the shares add up to 1 but for rounding
