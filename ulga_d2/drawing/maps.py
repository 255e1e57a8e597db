"""What lies over an image: a map, points, circles. All axes count the image's pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke

from .marks import PALETTE
from .page import MAP, SIZE

COLORS = ["#{:02x}{:02x}{:02x}".format(*color) for color in PALETTE]
OPAQUE = 0.65  # how much of a map hides the image under it
EDGE = [withStroke(linewidth=2.5, foreground="black")]  # sets marks off from bright tissue
GROUND = {"facecolor": "black", "alpha": 0.65, "pad": 1.2, "linewidth": 0}  # of words


def color_of(number: int) -> str:
    """Return a colour of Okabe and Ito's palette; colours repeat after seven."""
    return COLORS[number % len(COLORS)]


def draw_image(axes: Axes, image: np.ndarray, size: tuple[int, int]) -> None:
    """Draw RGB cells (h, w, 3) over the extent of an image of `size` (height, width)."""
    height, width = size
    axes.imshow(image, extent=(0, width, height, 0), interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])


def draw_map(axes: Axes, image: np.ndarray, values: np.ndarray, norm: Normalize) -> None:
    """Draw a map of any size in colours over the grey image, each cell as the square it is."""
    height, width = image.shape[:2]
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2) / 255
    draw_image(axes, grey.clip(0, 1), (height, width))
    extent = (0, width, height, 0)
    axes.imshow(values, cmap=MAP, norm=norm, alpha=OPAQUE, extent=extent, interpolation="nearest")


def draw_points(axes: Axes, points: np.ndarray, color: str) -> None:
    """Draw points (P, 2) of pixels (x, y); many become smaller."""
    area = float(np.clip(2000 / max(1, len(points)), 4, 25))
    axes.scatter(*points.T, s=area, color=color, edgecolors="black", linewidths=0.4, zorder=3)


def draw_query(axes: Axes, place: np.ndarray, number: int) -> None:
    """Mark a query, counted from 0, by a cross in its colour with its number, from 1."""
    x, y = place
    color = color_of(number)
    (mark,) = axes.plot([x], [y], "+", color=color, markersize=9, markeredgewidth=1.5, zorder=4)
    mark.set_path_effects(EDGE)
    axes.annotate(
        str(number + 1),
        (x, y),
        (5, 3),
        textcoords="offset points",
        color=color,
        fontsize=SIZE,
        weight="bold",
        bbox=GROUND,
        zorder=5,
    )


def draw_circles(axes: Axes, centre: Sequence[float], radii: dict[float, float]) -> None:
    """Draw a circle a share of some mass: the smallest share solid, larger ones dashed."""
    for number, share in enumerate(sorted(radii)):
        style = "dashed" if number else "solid"
        circle = Circle(tuple(centre), radii[share], fill=False, edgecolor="white", linestyle=style)
        circle.set_path_effects([withStroke(linewidth=2.2, foreground="black")])
        circle.set_clip_on(True)
        axes.add_patch(circle)
