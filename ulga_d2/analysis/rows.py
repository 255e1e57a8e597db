"""The rows of panels that the figure of one image has, ready to be drawn into axes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize

from ..drawing.maps import (
    color_of,
    draw_circles,
    draw_image,
    draw_map,
    draw_points,
    draw_query,
)
from .shown import attending, conceiving, feature_colors, largest_concepts, reach, sampling
from .view import BlockView, ReceptiveField, View

LEVELS = ("p3", "p4", "p5")
TOLD_PADDING = 0.005  # of the attention, from which on the title says so
FAINTEST = 1e-3  # of a receptive field's maximum, that has a colour of its own


class Panel(NamedTuple):
    """A title of two lines, and what draws into the axes under it."""

    title: str
    draw: Callable[[Axes], None]


class Row(NamedTuple):
    """Panels side by side under a heading, with the scale of their colours, if they have one."""

    heading: str
    panels: tuple[Panel, ...]
    scale: Normalize | None = None
    unit: str = ""


def rows_of(view: View) -> dict[str, Row]:
    """Return the rows of a view by their keys: a kind, and what tells rows of a kind apart."""
    count = len(view.queries)
    rows = {f"attention {_key(number, count)}": _attention(view, number) for number in range(count)}
    rows |= _points(view)
    for number, block in enumerate(conceiving(view)):
        rows[f"concepts {number}"] = _concepts(view, block)
    levels = [name for name in LEVELS if name in view.levels]
    rows["features"] = Row(
        "features of a level: main components as red, green, blue",
        tuple(_features(view, name) for name in levels),
    )
    rows["fields"] = Row(
        "effective receptive field of a level's centre",
        tuple(_field(view, field) for field in view.fields if field.level in LEVELS),
        LogNorm(FAINTEST, 1),
        "of the maximum",
    )
    return {key: row for key, row in rows.items() if row.panels}


def _key(number: int, count: int) -> str:
    """Return what stands for a query; two detectors' places of the background have one key."""
    return "background" if number == count - 1 else str(number)


def query_in_words(view: View, number: int) -> str:
    """Name a query by its number, from 1, and by what is there."""
    if number == len(view.queries) - 1:
        return f"query {number + 1} (background)"
    if number < len(view.labels):
        return f"query {number + 1} ({view.labels[number]} {view.scores[number]:.2f})"
    return f"query {number + 1}"


def _attention(view: View, number: int) -> Row:
    panels = []
    for block in attending(view):
        of_query = block.attention[number]
        distance = reach(of_query, view.queries[number], view.image.shape[:2])
        title = f"{_name(block)}\nmax {_percent(of_query.max())}, {distance:.0f} px away"
        if (outside := 1 - of_query.sum()) > TOLD_PADDING:
            title += f", {_percent(outside)} on padding"
        panels.append(Panel(title, partial(_draw_attention, view, number, of_query)))
    heading = f"attention of {query_in_words(view, number)}"
    return Row(heading, tuple(panels), Normalize(0, 1), "of the panel's maximum")


def _draw_attention(view: View, number: int, of_query: np.ndarray, axes: Axes) -> None:
    draw_map(axes, view.image, of_query / (of_query.max() or 1), Normalize(0, 1))
    draw_query(axes, view.queries[number], number)


def _points(view: View) -> dict[str, Row]:
    """Return one row where all queries sample the same points, else one a query."""
    blocks = sampling(view)
    if all(np.array_equal(query, block.points[0]) for block in blocks for query in block.points):
        panels = tuple(_points_panel(view, block, 0, range(len(view.queries))) for block in blocks)
        return {"points": Row("sampled points, the same for every query", panels)}
    rows = {}
    count = len(view.queries)
    for number in range(count):
        panels = tuple(_points_panel(view, block, number, [number]) for block in blocks)
        rows[f"points {_key(number, count)}"] = Row(
            f"points of {query_in_words(view, number)}", panels
        )
    return rows


def _points_panel(view: View, block: BlockView, number: int, marked: range | list[int]) -> Panel:
    title = f"{_name(block)}\n{len(block.points[number])} points"
    if block.offsets is not None:
        mean, deviation = block.offsets
        title += f", moved {mean:.1f} ± {deviation:.1f} tokens"

    def draw(axes: Axes) -> None:
        draw_image(axes, (view.image / 255).clip(0, 1), view.image.shape[:2])
        draw_points(axes, block.points[number], color_of(number if len(marked) == 1 else 1))
        for query in marked:
            draw_query(axes, view.queries[query], query)

    return Panel(title, draw)


def _concepts(view: View, block: BlockView) -> Row:
    largest = largest_concepts(block.concept_maps)
    maps = [block.concept_maps[number] for number, _ in largest]
    scale = Normalize(0, max(float(one.max()) for one in maps))
    panels = tuple(
        Panel(
            f"concept {number + 1} of {len(block.concept_maps)}\nshare {_percent(share)}",
            partial(draw_map, image=view.image, values=values, norm=scale),
        )
        for (number, share), values in zip(largest, maps, strict=True)
    )
    heading = f"largest concepts at {_name(block)}"
    if block.concept_entropy is not None:
        heading += f" (entropy {block.concept_entropy:.2f})"
    return Row(heading, panels, scale, "share of the token")


def _features(view: View, name: str) -> Panel:
    colors = feature_colors(view.levels[name])
    parts = ", ".join(_percent(part) for part in colors.explained)
    title = f"{name}\nof the variance: {parts}"
    size = view.image.shape[:2]
    return Panel(title, partial(draw_image, image=colors.rgb, size=size))


def _field(view: View, field: ReceptiveField) -> Panel:
    density = np.maximum(field.density / field.density.max(), FAINTEST)
    words = ", ".join(f"{share:.0%} in {radius:.0f} px" for share, radius in field.radii.items())

    def draw(axes: Axes) -> None:
        height, width = view.image.shape[:2]
        draw_map(axes, view.image, density, LogNorm(FAINTEST, 1))
        draw_circles(axes, (width / 2, height / 2), field.radii)

    return Panel(f"{field.level}\n{words}", draw)


def _name(block: BlockView) -> str:
    return f"{block.name}, stride {block.stride}"


def _percent(share: float) -> str:
    """Write a share with two figures."""
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"
