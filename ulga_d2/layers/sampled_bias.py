"""The bias between the cells of a map and points anywhere on it, read from one table (DAT++)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor

from .places import centred_places


class SampledBias:
    """Reads the bias between each cell of a map and each of n points.

        bias[n, i, j] = sum over a, b of R[n, i, a] table[a, b] C[n, j, b]

    with R and C the weights of a linear read at row i and column j less the point's. The table's
    ends stand for the map's largest distances, so one table serves maps of all sizes. In float32 at
    least: an offset's gradient is a difference of neighbouring entries.

    Args:
        table: (h, T, T), by rows and columns of the distance.
        points: (B, g, H_k, W_k, 2), rows and columns from -1 to 1; n = H_k W_k.
        size: height and width of the map.
    """

    def __init__(self, table: Tensor, points: Tensor, size: Sequence[int]) -> None:
        self.rows, self.columns = (
            _read_weights(_distances(points[..., axis].flatten(2), side, length), length)
            for axis, (side, length) in enumerate(zip(size, table.shape[1:], strict=True))
        )  # (B, g, n, H, T), (B, g, n, W, T)
        # The table's columns of all heads of a group, side by side: (g, T, h / g * T).
        groups = points.shape[1]
        self.table = table.to(points.dtype).unflatten(0, (groups, -1)).transpose(1, 2).flatten(2)

    def read(self, first: int, last: int) -> Tensor:
        """Return the bias of the map's rows from `first` to before `last`.

        Returns:
            (B, g, h / g, n, last - first, W).
        """
        rows = self.rows[..., first:last, :]
        with _outside_autocast(rows.device):
            read = rows.flatten(2, 3) @ self.table  # (B, g, n * rows, h / g * T)
            read = read.view(*rows.shape[:3], -1, self.columns.shape[-1])
            read = read @ self.columns.transpose(-2, -1)  # (B, g, n, rows * h / g, W)
        return read.unflatten(3, (rows.shape[3], -1)).permute(0, 1, 4, 2, 3, 5)


def _distances(places: Tensor, side: int, length: int) -> Tensor:
    """Return how far each cell of a line is from each place, in entries of a table: (..., side).

    Entry 0 stands for a cell a whole line before the place, the last entry for one behind it.
    """
    cells = centred_places(side, side, places)
    return (cells - places[..., None] + 2) * ((length - 1) / 4)


def _read_weights(place: Tensor, length: int) -> Tensor:
    """Return what each entry of a table of `length` counts in a linear read: (..., length)."""
    before = place.detach().floor()
    share = place - before
    entries = torch.stack([before, before + 1], dim=-1).long().clamp(0, length - 1)
    weights = place.new_zeros(*place.shape, length)
    return weights.scatter_add_(-1, entries, torch.stack([1 - share, share], dim=-1))


def _outside_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()
