"""How alike the tokens of a map are, how alike two representations are, how wide concepts look."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def mean_cosine(tokens: Tensor) -> float:
    """Return the mean cosine of all pairs of different tokens.

        (|sum_i u_i|^2 - n) / (n (n - 1))        u_i the tokens at unit length

    which is the mean over the n x n matrix without its diagonal, and never makes it. 1 if all
    tokens point one way; NaN for a single token. A token of zeros has a cosine of 0 with all.

    Shape:
        tokens (..., C), at least one.
    """
    units = torch.nn.functional.normalize(tokens.flatten(0, -2).double(), dim=-1)
    count = len(units)
    own = units.square().sum()
    return float((units.sum(dim=0).square().sum() - own) / (count * (count - 1) or np.nan))


def linear_cka(one: np.ndarray, other: np.ndarray) -> float:
    """Return the centred kernel alignment of two representations, with a linear kernel.

        |Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F)        X, Y with the mean of each column taken off

    1 if one is the other, turned and scaled. The biased estimate: with few rows beside columns it
    lies too high. NaN where a representation does not vary.

    Source: arXiv:1905.00414.

    Shape:
        one (n, C), other (n, D): the same n places.
    """
    one, other = (side - side.mean(axis=0) for side in (one, other))
    cross, *own = (np.linalg.norm(a.T @ b) for a, b in ((other, one), (one, one), (other, other)))
    return float(cross**2 / (own[0] * own[1])) if own[0] * own[1] else float("nan")


def cka_matrix(rows: Sequence[np.ndarray], columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return the CKA of each of `rows` with each of `columns`, (len(rows), len(columns))."""
    return np.array([[linear_cka(row, column) for column in columns] for row in rows])


def map_entropy(maps: Tensor) -> float:
    """Return the mean entropy of maps over log N: 1 looks everywhere alike, 0 at a single token.

    Shape:
        maps (K, N), each of the K sums to 1; N at least 2.
    """
    entropy = torch.special.entr(maps.double()).sum(dim=-1)  # (K,)
    return float(entropy.mean() / np.log(maps.shape[-1]))


def rank_share(maps: Tensor) -> float:
    """Return how many different maps there are among K, over K: the effective rank.

        exp(-sum_i p_i log p_i) / K        p the singular values of the maps, over their sum

    1 if all K have nothing in common, 1 / K if all are one map, strengths aside.

    Source: the effective rank of Roy and Vetterli (2007).

    Shape:
        maps (K, N), not all 0.
    """
    strengths = torch.linalg.svdvals(maps.double())
    return float(torch.special.entr(strengths / strengths.sum()).sum().exp() / len(maps))
