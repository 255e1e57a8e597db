"""What a chest film can show: opacities of several kinds, a gap of air, a large heart; nothing.

Kinds differ in shape, texture and place as the sizes of NIH's and RSNA's boxes do, and have no
medical meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from .contour import Contour, draw_waves, inside, smooth_noise
from .thorax import Film, Thorax

# Median width and height of a finding, in shares of the side: NIH's boxes at 1024 pixels, and
# RSNA's (its median area, and height over width).
SIZES = {
    "Atelectasis": (171 / 1024, 118 / 1024),
    "Effusion": (208 / 1024, 277 / 1024),
    "Infiltration": (228 / 1024, 265 / 1024),
    "Mass": (120 / 1024, 141 / 1024),
    "Nodule": (70 / 1024, 68 / 1024),
    "Pneumonia": (229 / 1024, 275 / 1024),
    "Pneumothorax": (201 / 1024, 206 / 1024),
    "Lung Opacity": (212 / 1024, 307 / 1024),
}
# Deviation of the logarithm of a size.
SPREAD = 0.22
# Height in the lung, from its top (0) to its floor (1), where a kind's centre can lie.
_HEIGHTS = {"Effusion": (0.80, 0.92), "Pneumothorax": (0.08, 0.30)}
_ANYWHERE = (0.2, 0.8)
NULL = "null"
# Round, and not cut off where the lung ends.
BALLS = ("Mass", "Nodule", NULL)
# What can be added to a film is a share of what it lacks to this brightness.
BRIGHTEST = 1.1


@dataclass(frozen=True)
class Opacity:
    """Something in a lung: its kind, outline, and which lung (0 is left in the image)."""

    kind: str
    contour: Contour
    lung: int


def draw_opacity(rng: Generator, thorax: Thorax, kind: str, lung: int) -> Opacity:
    """Draw the geometry of an opacity in a lung; plain patches have the size of a mass."""
    width, height = SIZES.get(kind, SIZES["Mass"]) * np.exp(rng.normal(0, SPREAD, 2))
    field = thorax.lungs[lung]
    floor = thorax.domes[lung]
    top = field.y - field.radius_y
    x = field.x + field.radius_x * float(rng.uniform(-0.35, 0.35))
    y = top + (floor - top) * float(rng.uniform(*_HEIGHTS.get(kind, _ANYWHERE)))
    contour = Contour(
        x=float(x),
        y=float(y),
        radius_x=float(width) / 2,
        radius_y=float(height) / 2,
        angle=float(rng.normal(0, 0.25)),
        waves=draw_waves(rng, 0.05 if kind in BALLS else 0.12, 5),
    )
    return Opacity(kind, contour, lung)


def paste_opacity(
    film: Film, opacity: Opacity, *, contrast: float, edge: float, texture: Generator
) -> np.ndarray:
    """Add an opacity to the film, in place.

    Args:
        film: its image is changed.
        opacity: what and where.
        contrast: brightness that is added (a gap of air: taken away), as a share of full white.
        edge: width of the rim, as a share of the radius.
        texture: draws the inside.

    Returns:
        (H, H) bool: the pixels that the opacity covers.
    """
    size = film.image.shape[0]
    contour = opacity.contour
    window = contour.window(size, 1 + edge)
    levels, theta = contour.levels(size, window)
    patchy, fine = (smooth_noise(texture, size, cells)[window] for cells in (18, 50))
    softness = max(edge, 1.5 / (contour.radius * size))
    field = film.lungs[opacity.lung][window]
    is_ball = opacity.kind in BALLS
    share = inside(levels, 1.0, softness) * (1 if is_ball else field)
    below = np.sin(theta) * levels
    value = contrast * _inner(opacity.kind, levels, below, patchy) + 0.010 * fine
    # Absorption saturates: where the film is bright, as over the heart, little is left to add.
    film.image[window] += share * value * (BRIGHTEST - film.image[window])
    mask = np.zeros((size, size), bool)
    mask[window] = (levels < 1) & (is_ball | (field > 0.5))
    return mask


def _inner(kind: str, levels: np.ndarray, below: np.ndarray, patchy: np.ndarray) -> np.ndarray:
    """Return the brightness inside an outline, in units of the contrast."""
    if kind == NULL:
        return np.zeros_like(levels)
    if kind == "Effusion":
        return 1.2 * np.clip(0.6 + 0.6 * below, 0.1, 1.2)
    if kind == "Pneumothorax":
        return -0.5 - 0.2 * inside(levels, 0.8, 0.4)
    if kind == "Infiltration":
        return 0.55 + 0.45 * np.tanh(1.5 * patchy)
    if kind == "Atelectasis":
        return 0.7 + 0.5 * np.cos(9 * below)
    if kind in BALLS:
        # A ball: its thickness along the beam.
        return 1.1 * np.sqrt(np.clip(1.1 - levels**2, 0, 1))
    return 0.85 + 0.30 * np.tanh(2 * patchy)
