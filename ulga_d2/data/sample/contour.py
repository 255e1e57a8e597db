"""Closed curves and smooth noise: the shapes and textures that every sample image is made of."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator


@dataclass(frozen=True)
class Contour:
    """An ellipse with a wavy rim, in shares of the image's side (0..1).

    Attributes:
        x: centre.
        y: centre.
        radius_x: semi-axis along the contour's own x.
        radius_y: semi-axis along the contour's own y.
        angle: rotation of the axes in radians.
        waves: (amplitude, phase) of the rim's waves, from 2 to len(waves) + 1 round the contour.
    """

    x: float
    y: float
    radius_x: float
    radius_y: float
    angle: float
    waves: tuple[tuple[float, float], ...]

    @property
    def radius(self) -> float:
        """Mean radius."""
        return float(np.sqrt(self.radius_x * self.radius_y))

    def reach(self) -> float:
        """Return the largest distance of the rim from the centre."""
        return max(self.radius_x, self.radius_y) * (1 + sum(abs(a) for a, _ in self.waves))

    def window(self, size: int, scale: float) -> tuple[slice, slice]:
        """Return the rows and columns that hold the contour blown up by `scale`."""
        spans = []
        for centre in (self.y, self.x):
            reach = self.reach() * scale * size
            first = max(0, int(np.floor(centre * size - reach)))
            spans.append(slice(first, min(size, int(np.ceil(centre * size + reach)))))
        return spans[0], spans[1]

    def levels(self, size: int, window: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """Return for each pixel of the window its level and its angle in the contour's own frame.

        The level is 0 in the centre, 1 on the rim, and grows outwards in proportion.
        """
        rows, columns = window
        y = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5) / size - self.y
        x = (np.arange(columns.start, columns.stop, dtype=np.float32)[None] + 0.5) / size - self.x
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        own_x = (x * cos + y * sin) / np.float32(self.radius_x)
        own_y = (y * cos - x * sin) / np.float32(self.radius_y)
        theta = np.arctan2(own_y, own_x)
        rim = np.ones_like(theta)
        for number, (amplitude, phase) in enumerate(self.waves, start=2):
            rim += np.float32(amplitude) * np.cos(number * theta + np.float32(phase))
        return np.hypot(own_x, own_y) / rim, theta


def draw_waves(rng: Generator, amplitude: float, count: int) -> tuple[tuple[float, float], ...]:
    """Draw a rim: `count` waves whose amplitudes fall with their number."""
    return tuple(
        (float(rng.normal(0, amplitude / number)), float(rng.uniform(0, 2 * np.pi)))
        for number in range(1, count + 1)
    )


def inside(levels: np.ndarray, rim: float, softness: float) -> np.ndarray:
    """Return how far inside a level each pixel is: 0 outside, 0.5 on the rim, 1 inside.

    Args:
        levels: from `Contour.levels`.
        rim: the level of the rim.
        softness: width of the change from 0 to 1, in levels.
    """
    ramp = np.clip((rim - levels) / np.float32(softness) + np.float32(0.5), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def smooth_noise(rng: Generator, size: int, cells: int) -> np.ndarray:
    """Return (size, size) noise of mean 0 and deviation about 1, smooth over size / cells pixels.

    The drawn numbers depend on `cells` alone, so the same field comes out at every size.
    """
    coarse = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    if size < cells:
        return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_AREA)
    fine = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return fine / max(float(fine.std()), 1e-6)
