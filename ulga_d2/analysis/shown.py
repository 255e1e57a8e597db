"""What a figure shows of a `View`: which blocks and concepts, colours of features, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .view import BlockView, View

DEPTHS = 3  # blocks whose attention is shown
CONCEPT_DEPTHS = 2
CONCEPTS = 3  # of a block
PERCENTILES = (1, 99)  # of a channel, that become the ends of its colour

Item = TypeVar("Item")


class Colors(NamedTuple):
    """Features as colours.

    Attributes:
        rgb: (H, W, 3), in 0..1.
        explained: share of the variance that red, green and blue each hold.
    """

    rgb: np.ndarray
    explained: tuple[float, ...]


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return up to `count` items at equal steps, each the middle one of its part."""
    count = min(count, len(items))
    return [items[int((number + 0.5) * len(items) / count)] for number in range(count)]


def attending(view: View) -> list[BlockView]:
    """Return the blocks whose attention maps are shown."""
    return spread([block for block in view.blocks if block.attention is not None], DEPTHS)


def sampling(view: View) -> list[BlockView]:
    """Return the blocks whose sampled points are shown."""
    return spread([block for block in view.blocks if block.points is not None], DEPTHS)


def conceiving(view: View) -> list[BlockView]:
    """Return the blocks whose concept maps are shown."""
    return spread([b for b in view.blocks if b.concept_maps is not None], CONCEPT_DEPTHS)


def largest_concepts(maps: np.ndarray) -> list[tuple[int, float]]:
    """Return number and share of the concepts that give most to the tokens of (K, H, W).

    A concept's share is the mean of its map; all shares sum to 1.
    """
    shares = maps.mean(axis=(1, 2))
    order = np.argsort(-shares, kind="stable")[:CONCEPTS]
    return [(int(number), float(shares[number])) for number in order]


def reach(attention: np.ndarray, query: np.ndarray, size: tuple[int, int]) -> float:
    """Return the mean distance in pixels from a query to where it looks.

        sum_j a_j |x_j - x_q|        x_j the centre of cell j, a the attention, over its sum

    Source: the mean attention distance of ViT (arXiv:2010.11929, figure 7).

    Args:
        attention: (h, w), of one query.
        query: its place (x, y) in pixels.
        size: height and width in pixels of what the map covers.
    """
    rows, columns = (
        (np.arange(cells) + 0.5) * side / cells
        for cells, side in zip(attention.shape, size, strict=True)
    )
    distance = np.hypot(rows[:, None] - query[1], columns[None, :] - query[0])
    total = attention.sum()
    return float((attention * distance).sum() / total) if total else float("nan")


def feature_colors(features: np.ndarray) -> Colors:
    """Return the three main components of (H, W, C) features as red, green and blue.

    The basis is that of these cells alone: their mean is taken off, and the right singular vectors
    are turned so that the largest weight of each is positive. Each component is scaled so that its
    1st and 99th percentile are 0 and 1, and what lies beyond is cut.
    """
    height, width, channels = features.shape
    cells = features.reshape(-1, channels).astype(np.float64)
    cells -= cells.mean(axis=0)
    _, strengths, basis = np.linalg.svd(cells, full_matrices=False)
    basis = (
        basis[:3] * np.sign(basis[np.arange(len(basis)), np.abs(basis).argmax(axis=1)])[:3, None]
    )
    total = float((strengths**2).sum())
    explained = tuple((strengths[:3] ** 2 / total).tolist()) if total else ()
    colors = np.full((len(cells), 3), 0.5)  # grey where there is no third component, or no variance
    for number, component in enumerate((cells @ basis.T).T[: len(explained)]):
        low, high = np.percentile(component, PERCENTILES)
        if high > low:
            colors[:, number] = np.clip((component - low) / (high - low), 0, 1)
    return Colors(colors.reshape(height, width, 3), explained)


def view_as_dict(view: View) -> dict[str, Any]:
    """Return the numbers of a view and of its figure as plain data, maps left out."""
    found = zip(view.labels, view.scores, view.boxes, strict=True)
    return {
        "detector": view.name,
        "height": view.image.shape[0],
        "width": view.image.shape[1],
        "detections": [
            {"label": label, "score": float(score), "box": box.tolist()}
            for label, score, box in found
        ],
        "queries": view.queries.tolist(),
        "blocks": [_block_as_dict(block, view) for block in view.blocks],
        "levels": {
            name: {"cells": list(level.shape[:2]), "explained": feature_colors(level).explained}
            for name, level in view.levels.items()
        },
        "receptive_fields": {
            field.level: {f"{share:g}": plain(radius) for share, radius in field.radii.items()}
            for field in view.fields
        },
    }


def plain(values: Any) -> Any:
    """Return a number or an array of them as plain data, with None for what is not finite."""
    if np.ndim(values):
        return [plain(value) for value in values]
    return float(values) if np.isfinite(values) else None


def _block_as_dict(block: BlockView, view: View) -> dict[str, Any]:
    known: dict[str, Any] = {
        "name": block.name,
        "stride": block.stride,
        "similarity": {place: plain(value) for place, value in block.similarity.items()},
    }
    if block.concept_maps is not None:
        largest = largest_concepts(block.concept_maps)
        known["concepts"] = [{"number": number, "share": share} for number, share in largest]
        known["concept_entropy"] = plain(block.concept_entropy)
    if block.attention is not None:
        size = view.image.shape[:2]
        known["attention"] = [
            {
                "largest": float(of_query.max()),
                "on_padding": max(0.0, 1 - float(of_query.sum())),
                "reach": plain(reach(of_query, query, size)),
            }
            for of_query, query in zip(block.attention, view.queries, strict=True)
        ]
    if block.points is not None:
        known["points"] = block.points.tolist()
    if block.offsets is not None:
        known["offsets"] = dict(zip(("mean", "std"), plain(block.offsets), strict=True))
    return known
