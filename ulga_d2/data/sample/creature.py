"""Outlines of camouflaged animals: a body with what grows on it, seen from above or from the side.

A creature is a union of contours. The kinds follow COD10K's super-classes by rough shape alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from .contour import Contour, draw_waves, inside

# Per kind, its parts: where the centre lies along and across the body, the part's two semi-axes
# and its angle in radians; all lengths in body lengths. A part with an offset across is mirrored.
_PARTS = {
    "Aquatic": ((-0.62, 0.0, 0.14, 0.22, 0.0), (0.1, 0.20, 0.16, 0.07, 0.5)),
    "Terrestrial": (
        (0.55, 0.0, 0.17, 0.14, 0.0),
        (0.28, 0.27, 0.06, 0.20, 0.3),
        (-0.30, 0.27, 0.06, 0.20, -0.3),
    ),
    "Flying": ((0.05, 0.34, 0.20, 0.30, 0.25), (0.5, 0.0, 0.1, 0.1, 0.0)),
    "Amphibian": ((0.42, 0.0, 0.18, 0.19, 0.0), (-0.3, 0.26, 0.20, 0.09, 0.7)),
    "Other": (),
}
# Semi-axes of the body across its own length.
_BODIES = {
    "Aquatic": (0.20, 0.30),
    "Terrestrial": (0.18, 0.26),
    "Flying": (0.10, 0.16),
    "Amphibian": (0.24, 0.32),
    "Other": (0.30, 0.48),
}


@dataclass(frozen=True)
class Creature:
    """The parts of a creature, in shares of the image's side; the first is the body."""

    parts: tuple[Contour, ...]

    def share(self, size: int, edge: float) -> np.ndarray:
        """Return (size, size) how far inside the creature each pixel is, 0..1.

        Args:
            size: side of the image.
            edge: width of the rim, as a share of each part's radius.
        """
        share = np.zeros((size, size), np.float32)
        for part in self.parts:
            window = part.window(size, 1 + edge)
            levels, _ = part.levels(size, window)
            width = max(edge, 1.5 / (part.radius * size))
            np.maximum(share[window], inside(levels, 1.0, width), out=share[window])
        return share


def draw_creature(rng: Generator, kind: str, length: float, x: float, y: float) -> Creature:
    """Draw a creature.

    Args:
        rng: draws direction, proportions and rims.
        kind: a super-class.
        length: from end to end of the body, as a share of the image's side.
        x: centre of the body, likewise.
        y: centre of the body, likewise.
    """
    angle = float(rng.uniform(0, 2 * np.pi))
    width = float(rng.uniform(*_BODIES[kind]))
    waves = draw_waves(rng, 0.05, 5)
    parts = [Contour(x, y, 0.5 * length, width * length, angle, waves)]
    cos, sin = np.cos(angle), np.sin(angle)
    for along, across, radius_x, radius_y, turn in _PARTS[kind]:
        along, across = along * rng.uniform(0.9, 1.1), across * rng.uniform(0.85, 1.15)
        waves = draw_waves(rng, 0.05, 3)
        for side in (1, -1) if across else (1,):
            offset = side * across
            parts.append(
                Contour(
                    x=float(x + length * (along * cos - offset * sin)),
                    y=float(y + length * (along * sin + offset * cos)),
                    radius_x=radius_x * length,
                    radius_y=radius_y * length,
                    angle=angle + side * turn,
                    waves=waves,
                )
            )
    return Creature(tuple(parts))
