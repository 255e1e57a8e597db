"""What happens to tokens from block to block, over several images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .record import PLACES, BlockRecord, recorded
from .similarity import map_entropy, rank_share

GRID = 8  # cells a side on which blocks of all strides are compared


@dataclass(frozen=True)
class Depths:
    """What a detector's blocks do to tokens; means over images.

    Attributes:
        names: of the blocks, in order.
        similarity: mean cosine of a block's tokens, by "before", "after" the interaction and "out":
            (blocks,) each.
        concepts: by "entropy" of where they look, over log N, and effective "rank" of what they
            give, over K: (blocks,) each, NaN without CAT.
        features: of each block (n, C): its output, averaged on a grid of 8 x 8 cells an image, so
            that blocks of all strides have the same places; for `cka_matrix`.
    """

    names: tuple[str, ...]
    similarity: dict[str, np.ndarray]
    concepts: dict[str, np.ndarray]
    features: tuple[np.ndarray, ...]


def depths_of(detector: nn.Module, images: Iterable[Tensor]) -> Depths:
    """Run a detector's backbone on images, and return what its blocks do.

    Args:
        detector: as for `look`, in evaluation mode.
        images: (3, H, W) RGB in 0..255, as at test time.
    """
    figures, features = [], []
    backbone = detector.backbone.bottom_up
    for image in images:
        with torch.no_grad(), recorded(backbone) as blocks:
            backbone(detector.preprocess_image([{"image": image}]).tensor)
        figures.append([_figures(block) for block in blocks])
        features.append([_on_grid(block.tokens["out"]) for block in blocks])
    means = np.mean(figures, axis=0)  # (blocks, 5)
    return Depths(
        names=tuple(block.name for block in blocks),
        similarity={place: means[:, number] for number, place in enumerate(PLACES)},
        concepts={"entropy": means[:, 3], "rank": means[:, 4]},
        features=tuple(np.concatenate(of_block) for of_block in zip(*features, strict=True)),
    )


def _figures(block: BlockRecord) -> list[float]:
    cosines = block.similarity().values()
    if block.concepts is None:
        return [*cosines, np.nan, np.nan]
    forward, backward = block.concepts
    return [*cosines, map_entropy(forward[0]), rank_share(backward[0].t())]


def _on_grid(tokens: Tensor) -> np.ndarray:
    """Average a map (1, H, W, C) on the grid: (cells, C)."""
    pooled = F.adaptive_avg_pool2d(tokens.permute(0, 3, 1, 2), GRID)
    return pooled[0].flatten(1).t().double().cpu().numpy()
