"""A white page of panels, placed by pixels from its upper left corner, so that nothing is cut."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

DPI = 100
SIZE = 8  # of the letters, in points
LINE = 16  # pixels from one line of words to the next
LETTER = 5.8  # pixels that a letter takes on the average
BAR = 10  # pixels across a colour bar
MAP = "viridis"


class Page:
    """A figure of a fixed size in pixels.

    Args:
        width: of the page in pixels.
        height: likewise.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._figure = Figure((width / DPI, height / DPI), dpi=DPI, facecolor="white")
        self._canvas = FigureCanvasAgg(self._figure)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Return axes whose upper left corner is at (x, y)."""
        bottom = self.height - y - height
        place = (x / self.width, bottom / self.height, width / self.width, height / self.height)
        axes = self._figure.add_axes(place)
        axes.tick_params(labelsize=SIZE - 1)
        return axes

    def write(self, x: float, y: float, words: str, *, bold: bool = False) -> None:
        """Write lines of words whose upper left corner is at (x, y)."""
        self._figure.text(
            x / self.width,
            1 - y / self.height,
            words,
            fontsize=SIZE,
            va="top",
            weight="bold" if bold else "normal",
            linespacing=LINE / (SIZE * DPI / 72 * 1.2),
        )

    def bar(
        self, x: float, y: float, height: float, norm: Normalize, words: str, alpha: float = 1.0
    ) -> None:
        """Draw the colour bar of `norm` with its unit, to the right of panels."""
        scale = ScalarMappable(norm, MAP)
        bar = self._figure.colorbar(scale, cax=self.axes(x, y, BAR, height), alpha=alpha)
        bar.set_label(words, fontsize=SIZE - 1)
        if not isinstance(norm, LogNorm):
            bar.locator.set_params(nbins=5)
        bar.ax.tick_params(labelsize=SIZE - 1, length=2)

    def pixels(self) -> np.ndarray:
        """Return the page as RGB, (height, width, 3), uint8."""
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()


def fold(words: str, width: float) -> str:
    """Break words into lines of at most `width` pixels, nearly."""
    paragraphs = words.split("\n")
    return "\n".join(textwrap.fill(line, max(8, int(width / LETTER))) for line in paragraphs)
