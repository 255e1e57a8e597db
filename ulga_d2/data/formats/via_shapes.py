"""The shapes of VIA: the box around each, and its outline as a polygon."""

from __future__ import annotations

import math

from .numbers import read_number
from .units import XYXY

Polygons = list[list[float]]

# What can be drawn but encloses nothing.
FLAT_SHAPES = ("point", "polyline", "line")
# Corners of the polygon that stands for an ellipse: at a radius of 100 pixels it lies 0.1 inside.
_CORNERS = 64


def read_shape(shape: dict) -> tuple[XYXY, Polygons | None]:
    """Return the box of a shape, and its outline in COCO's form; a rectangle is a box alone.

    Args:
        shape: VIA's `shape_attributes`. The angle `theta` of an ellipse is in radians, from the x
            axis towards y.

    Raises:
        ValueError: the shape is unknown, or a number is missing or none.
    """
    name = shape.get("name")
    if name == "rect":
        x, y, width, height = _numbers(shape, "x", "y", "width", "height")
        return (x, y, x + width, y + height), None
    if name == "polygon":
        return _polygon(shape)
    if name == "circle":
        x, y, radius = _numbers(shape, "cx", "cy", "r")
        return _ellipse(x, y, radius, radius, 0.0)
    if name == "ellipse":
        x, y, radius_x, radius_y = _numbers(shape, "cx", "cy", "rx", "ry")
        theta = _numbers(shape, "theta")[0] if "theta" in shape else 0.0
        return _ellipse(x, y, radius_x, radius_y, theta)
    raise ValueError(f"{str(name)[:40]!r} is no shape that VIA draws")


def _numbers(shape: dict, *keys: str) -> list[float]:
    for key in keys:
        if read_number(shape.get(key)) is None:
            raise ValueError(f"the {key} of a {shape['name']} is {str(shape.get(key))[:40]!r}")
    return [read_number(shape[key]) for key in keys]


def _polygon(shape: dict) -> tuple[XYXY, Polygons | None]:
    xs, ys = (shape.get(f"all_points_{axis}") for axis in "xy")
    for values in (xs, ys):
        if not isinstance(values, list) or None in map(read_number, values):
            raise ValueError("all_points_x and all_points_y of a polygon are not lists of numbers")
    if len(xs) != len(ys) or len(xs) < 3:
        raise ValueError(f"a polygon has {len(xs)} x and {len(ys)} y; it takes three of each")
    xs, ys = ([read_number(value) for value in values] for values in (xs, ys))
    box = (min(xs), min(ys), max(xs), max(ys))
    return box, [[value for point in zip(xs, ys, strict=True) for value in point]]


def _ellipse(
    x: float, y: float, radius_x: float, radius_y: float, theta: float
) -> tuple[XYXY, Polygons | None]:
    cos, sin = math.cos(theta), math.sin(theta)
    half_width = math.hypot(radius_x * cos, radius_y * sin)
    half_height = math.hypot(radius_x * sin, radius_y * cos)
    # A negative radius is no mirrored ellipse but a fault: such a box has no area.
    if radius_x <= 0 or radius_y <= 0:
        half_width = half_height = 0.0
    points: list[float] = []
    for number in range(_CORNERS):
        angle = 2 * math.pi * number / _CORNERS
        along, across = radius_x * math.cos(angle), radius_y * math.sin(angle)
        points += [x + along * cos - across * sin, y + along * sin + across * cos]
    return (x - half_width, y - half_height, x + half_width, y + half_height), [points]
