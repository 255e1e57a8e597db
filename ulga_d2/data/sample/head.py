"""A procedural head in cross-section: scalp, skull, folded cortex, white matter, ventricles.

It resembles a contrast-enhanced T1 slice and has no medical meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from .contour import Contour, draw_waves, inside, smooth_noise

# Levels of the head's contour: scalp outside SKULL, bone down to DURA, brain inside BRAIN.
SKULL, DURA, BRAIN = 0.93, 0.875, 0.85
# Mean grey levels, as shares of full white.
FAT, BONE, FLUID, GREY, WHITE = 0.80, 0.05, 0.13, 0.36, 0.48


@dataclass(frozen=True)
class Head:
    """Geometry of a head: its outline, the pair of ventricles, and the nuclei beside them."""

    outline: Contour
    ventricles: tuple[Contour, Contour]
    nuclei: tuple[Contour, Contour]


def draw_head(rng: Generator) -> Head:
    """Draw the geometry of a head; left and right are alike in distribution."""
    angle = float(rng.normal(0, 0.12))
    outline = Contour(
        x=0.5 + float(rng.uniform(-0.02, 0.02)),
        y=0.5 + float(rng.uniform(-0.02, 0.02)),
        radius_x=float(rng.uniform(0.37, 0.42)),
        radius_y=float(rng.uniform(0.43, 0.47)),
        angle=angle,
        waves=draw_waves(rng, 0.012, 4),
    )
    apart, length, width = rng.uniform((0.035, 0.05, 0.012), (0.06, 0.10, 0.03))
    tilt, height = rng.uniform((0.1, -0.06), (0.5, 0.04))
    ventricles = _pair(outline, apart, height, (width, length), tilt, draw_waves(rng, 0.08, 3))
    nuclei = _pair(outline, apart + 0.06, height, (0.03, 0.06), tilt, draw_waves(rng, 0.08, 3))
    return Head(outline, ventricles, nuclei)


def _pair(
    outline: Contour,
    apart: float,
    height: float,
    radii: tuple[float, float],
    tilt: float,
    waves: tuple[tuple[float, float], ...],
) -> tuple[Contour, Contour]:
    """Return two contours that mirror each other across the head's long axis."""
    cos, sin = np.cos(outline.angle), np.sin(outline.angle)
    left, right = (
        Contour(
            x=float(outline.x + side * apart * cos - height * sin),
            y=float(outline.y + side * apart * sin + height * cos),
            radius_x=float(radii[0]),
            radius_y=float(radii[1]),
            angle=float(outline.angle + side * tilt),
            waves=waves,
        )
        for side in (-1, 1)
    )
    return left, right


def render_head(head: Head, size: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Render a healthy head.

    Args:
        head: its geometry.
        size: side in pixels.
        rng: draws grey levels and textures.

    Returns:
        The grey levels (0..1) and how far inside the brain each pixel is (0..1).
    """
    everything = (slice(0, size), slice(0, size))
    levels, theta = head.outline.levels(size, everything)
    pixel = 1 / (head.outline.radius * size)  # one pixel, in levels
    fat, bone, fluid, grey, white = _grey_levels(rng)
    folds, coarse, fine, patchy = (smooth_noise(rng, size, cells) for cells in (11, 7, 40, 16))
    brain = inside(levels, BRAIN, 2 * pixel)

    image = np.zeros((size, size), np.float32)
    _blend(image, fat * (1 + 0.12 * patchy), inside(levels, 1.0, 2 * pixel))
    _blend(image, bone, inside(levels, SKULL, 2 * pixel))
    _blend(image, fluid, inside(levels, DURA, 2 * pixel))
    _blend(image, grey, brain)
    _blend(image, white, inside(levels + 0.06 * coarse + 0.05 * folds, 0.66, 0.12))
    for nucleus in head.nuclei:
        _blend_contour(image, nucleus, 0.5 * (grey + white), size, 0.4)
    rind = (1 - inside(levels + 0.05 * coarse, 0.62, 0.3)) * brain
    _blend(image, grey, 0.8 * rind * np.exp(-((folds / 0.5) ** 2)))
    _blend(image, fluid, 0.8 * rind * np.exp(-((folds / 0.17) ** 2)))
    midline = np.exp(-(((levels * np.cos(theta) + 0.008 * coarse) / 0.02) ** 2)) * brain
    _blend(image, fluid, 0.7 * midline * (1 - inside(levels, 0.35, 0.2)))
    for ventricle in head.ventricles:
        _blend_contour(image, ventricle, fluid, size, 0.25)
    image += brain * (0.012 * patchy + 0.010 * fine) + 0.008 * fine * (image > 0.2)
    return image, brain


def _grey_levels(rng: Generator) -> np.ndarray:
    means = np.array([FAT, BONE, FLUID, GREY, WHITE], np.float32)
    return (means * rng.uniform(0.92, 1.08, means.size)).astype(np.float32)


def _blend(image: np.ndarray, value: np.ndarray | float, share: np.ndarray) -> None:
    image += share * (value - image)


def _blend_contour(
    image: np.ndarray, contour: Contour, value: float, size: int, softness: float
) -> None:
    window = contour.window(size, 1.4)
    levels, _ = contour.levels(size, window)
    _blend(image[window], value, inside(levels, 1.0, softness))
