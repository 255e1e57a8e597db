"""Line charts as plain geometry, which the templates draw as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 44
MAX_POINTS = 400  # a line has no more, so that a long run stays a small file


@dataclass(frozen=True)
class Line:
    """A curve to draw.

    Attributes:
        name: in the legend.
        points: (x, y) in the units of the axes.
        is_guide: a thin dashed line for comparison, such as a diagonal.
    """

    name: str
    points: Points
    is_guide: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart in pixels of its own.

    Attributes:
        title: what it shows.
        x_label, y_label: of the axes.
        lines: (name, path data, number of its colour or "guide").
        x_ticks, y_ticks: (place in pixels, words).
        frame: (left, top, right, bottom) of the plotting area.
        size: (width, height).
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[tuple[str, str, int | str], ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    frame: tuple[int, int, int, int] = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)
    size: tuple[int, int] = (WIDTH, HEIGHT)


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: int
    end: int
    is_log: bool

    def place(self, value: float) -> float:
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log2(low), math.log2(high), math.log2(max(value, low))
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        if self.is_log:
            steps = range(math.ceil(math.log2(self.low)), math.floor(math.log2(self.high)) + 1)
            return tuple((self.place(2.0**e), f"1/{2**-e}" if e < 0 else str(2**e)) for e in steps)
        step = _round_step((self.high - self.low) / 5)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple((self.place(i * step), f"{i * step:.6g}") for i in range(first, last + 1))


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    log_x: bool = False,
) -> Chart | None:
    """Lay out curves on common axes; None where there is no point to draw.

    Args:
        title: what the chart shows.
        lines: the curves; what is outside the ranges is drawn on their edges.
        x_label: of the x axis, with its unit.
        y_label: of the y axis, with its unit.
        x_range: lowest and highest x, or None for those of the points.
        y_range: likewise, for y.
        log_x: powers of two at equal steps.
    """
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    if not xs:
        return None
    x_axis = _Axis(*_range(xs, x_range), LEFT, WIDTH - RIGHT, log_x)
    y_axis = _Axis(*_range(ys, y_range), HEIGHT - BOTTOM, TOP, False)
    drawn = []
    for line in lines:
        color = "guide" if line.is_guide else sum(one[2] != "guide" for one in drawn)
        drawn.append((line.name, _path(line.points, x_axis, y_axis), color))
    return Chart(title, x_label, y_label, tuple(drawn), x_axis.ticks(), y_axis.ticks())


def _path(points: Points, x_axis: _Axis, y_axis: _Axis) -> str:
    step = max(1, math.ceil(len(points) / MAX_POINTS))
    kept = list(points)[::step]
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return "M" + "L".join(f"{x_axis.place(x)},{y_axis.place(y)}" for x, y in kept) if kept else ""


def _range(values: Sequence[float], given: tuple[float, float] | None) -> tuple[float, float]:
    if given is not None:
        return given
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5, high + 0.5
    margin = (high - low) * 0.05
    return (low if low == 0 else low - margin), high + margin


def _round_step(step: float) -> float:
    """Return the next of 1, 2, 5, 10, ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))
