"""Curves over depth, and matrices of one depth against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from .maps import color_of
from .page import MAP, SIZE

STYLES = ("--", ":", "-")
MARKERS = ("o", "^", "s")
ON_WHITE = (6, 5, 4, 2)  # of the palette, what reads best there: blue and vermilion first
MOST_NAMES = 14  # along an axis, before some are left out


def draw_curves(
    axes: Axes, groups: Mapping[str, Mapping[str, np.ndarray]], title: str, unit: str
) -> None:
    """Draw a colour and marker a group, a line style a curve in it; NaN leaves a gap.

    The legend lies below the axes, a column a group.

    Args:
        axes: to draw into.
        groups: curves by name, by the group's name; curve values at 1, 2, ... of depth.
        title: of the chart.
        unit: of the values.
    """
    for number, (group, curves) in enumerate(groups.items()):
        for place, (name, values) in enumerate(curves.items()):
            axes.plot(
                np.arange(1, len(values) + 1),
                values,
                STYLES[place % len(STYLES)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
                color=color_of(ON_WHITE[number % len(ON_WHITE)]),
                label=f"{group}: {name}",
            )
    axes.set_title(title, fontsize=SIZE + 1)
    axes.set_xlabel("block, counted from the input", fontsize=SIZE)
    axes.set_ylabel(unit, fontsize=SIZE)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(
        fontsize=SIZE - 1,
        ncols=len(groups),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.15),
        frameon=False,
    )


def draw_matrix(
    axes: Axes, matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str
) -> None:
    """Draw a matrix of values in 0..1 whose rows and columns are blocks, the first at the top."""
    axes.imshow(matrix, cmap=MAP, norm=Normalize(0, 1), interpolation="nearest")
    axes.set_title(title, fontsize=SIZE + 1)
    for axis, names in ((axes.yaxis, rows), (axes.xaxis, columns)):
        step = -(-len(names) // MOST_NAMES)
        axis.set_ticks(range(0, len(names), step), names[::step], fontsize=SIZE - 1)
    axes.tick_params(axis="x", rotation=90)
