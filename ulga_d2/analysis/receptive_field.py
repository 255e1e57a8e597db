"""Effective receptive field: which pixels move a level's centre, measured by gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .view import ReceptiveField

SHARES = (0.5, 0.9)


def receptive_fields(
    backbone: nn.Module, images: Tensor, levels: Sequence[str]
) -> tuple[ReceptiveField, ...]:
    """Measure what moves the centre of each level.

        density(pixel) = mean over images, sum over colours, of |d f / d pixel|, over its sum

    with f the sum of the centre cell's channels, each with a sign of its own drawn once: a plain
    sum would be nearly constant behind a norm. Where a side has an even number of cells the centre
    is between two, and the density is the mean over both: it is that of the image's middle. A level
    that no pixel moves (a norm over a single cell) is left out.

    Source: arXiv:1701.04128; the signs are ours.

    Args:
        backbone: from images to maps by the names of levels, in evaluation mode.
        images: (B, 3, H, W), as the backbone gets them.
        levels: names of levels.
    """
    found = []
    with torch.enable_grad():
        images = images.detach().clone().requires_grad_()
        maps = backbone(images)
        for level in levels:
            sizes = torch.zeros_like(images)
            for f in _centres(maps[level]):
                sizes += torch.autograd.grad(f, images, retain_graph=True)[0].abs()
            density = sizes.sum(dim=(0, 1)).double().cpu().numpy()
            if density.any():
                density /= density.sum()
                found.append(ReceptiveField(level, density, radii_of(density)))
    return tuple(found)


def _centres(level: Tensor) -> list[Tensor]:
    """Return f of each cell in the middle of (B, C, H, W), one to four; summed over images."""
    rows, columns = (slice((side - 1) // 2, side // 2 + 1) for side in level.shape[2:])
    cells = level[:, :, rows, columns].sum(dim=0).flatten(1).t()  # (cells, C)
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, cells.shape[1:], generator=generator) * 2.0 - 1
    return list(cells @ signs.to(cells))


def radii_of(density: np.ndarray) -> dict[float, float]:
    """Return how far from the middle one must go to hold 50 % and 90 % of (H, W), in pixels."""
    rows, columns = (np.arange(side) + 0.5 - side / 2 for side in density.shape)
    distance = np.hypot(rows[:, None], columns[None, :]).ravel()
    order = np.argsort(distance, kind="stable")
    held = np.cumsum(density.ravel()[order])
    return {share: float(distance[order][np.searchsorted(held, share)]) for share in SHARES}
