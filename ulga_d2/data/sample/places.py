"""Where lesions and patches lie: inside the brain, apart from each other."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .contour import Contour, draw_waves
from .head import BRAIN, Head

# Radius of a lesion, in shares of the image's side: 20 to 44 px across at 128 px.
RADII = (0.08, 0.17)
TRIES = 64


def draw_places(
    rng: Generator, head: Head, *, radii: tuple[float, float], count: int, taken: list[Contour]
) -> list[Contour]:
    """Draw up to `count` outlines inside the brain, away from `taken` and from each other.

    An outline for which there is no room is drawn once more with the smallest radius, then given
    up; the first one always finds room in an empty brain.
    """
    placed: list[Contour] = []
    for _ in range(count):
        radius = float(np.exp(rng.uniform(*np.log(radii))))
        found = _place(rng, head, radius, taken + placed)
        found = found or _place(rng, head, radii[0], taken + placed)
        if found:
            placed.append(found)
    return placed


def _place(rng: Generator, head: Head, radius: float, others: list[Contour]) -> Contour | None:
    stretch = float(np.exp(rng.normal(0, 0.1)))
    radius_x, radius_y = radius * stretch, radius / stretch
    angle, waves = float(rng.uniform(0, np.pi)), draw_waves(rng, 0.05, 4)
    centres = _points_in_brain(rng, head, 1.1 * radius)
    free = np.ones(TRIES, bool)
    reach = Contour(0, 0, radius_x, radius_y, angle, waves).reach()
    for other in others:
        apart = np.hypot(centres[:, 0] - other.x, centres[:, 1] - other.y)
        free &= apart > reach + other.reach()
    if not free.any():
        return None
    x, y = centres[free.argmax()]
    return Contour(float(x), float(y), radius_x, radius_y, angle, waves)


def _points_in_brain(rng: Generator, head: Head, margin: float) -> np.ndarray:
    """Draw (TRIES, 2) points x, y, spread evenly over the brain less a margin at its surface."""
    outline = head.outline
    axes = np.array([outline.radius_x, outline.radius_y]) * 0.97 * BRAIN
    axes = np.maximum(axes - margin, 0.0)
    theta = rng.uniform(0, 2 * np.pi, TRIES)
    distance = np.sqrt(rng.uniform(size=TRIES))
    own = np.stack([np.cos(theta), np.sin(theta)], 1) * distance[:, None] * axes
    cos, sin = np.cos(outline.angle), np.sin(outline.angle)
    return own @ np.array([[cos, sin], [-sin, cos]]) + [outline.x, outline.y]
