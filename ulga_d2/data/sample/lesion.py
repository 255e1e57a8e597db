"""Lesions of three classes, and what looks like them: open rings, holes, hazes, vessels, nothing.

The classes differ in appearance only, never in place, size or side. They are procedural and have
no medical meaning.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from .contour import Contour, inside, smooth_noise

CLASS_NAMES = ("solid", "ring", "mottled")
LOOK_ALIKES = ("open ring", "hole", "haze")
# Fields are computed up to this level round a contour; softer rims fade out before it.
REACH = 1.6


def paste(
    image: np.ndarray,
    contour: Contour,
    kind: str,
    *,
    contrast: float,
    edge: float,
    texture: Generator,
) -> None:
    """Paste a lesion, a look-alike, or a null patch into the image, in place.

    All kinds go through the same steps: smoothed surroundings, own texture, soft rim. So a seam
    says nothing about what lies inside it.

    Args:
        image: grey levels in 0..1.
        contour: the outline.
        kind: a class name, a look-alike's name, or "null" for tissue like that around it.
        contrast: brightness above the surroundings.
        edge: width of the rim, as a share of the radius.
        texture: draws the inside.
    """
    size = image.shape[0]
    window = contour.window(size, REACH)
    levels, theta = contour.levels(size, window)
    surroundings = image[window]
    base = cv2.GaussianBlur(surroundings, (0, 0), max(0.8, 0.5 * contour.radius * size))
    fine, patchy = (smooth_noise(texture, size, cells)[window] for cells in (40, 24))
    if kind == "haze":
        share = inside(levels, 0.6, 1.6)
    else:
        share = inside(levels, 1.0, max(edge, 1.5 / (contour.radius * size)))
    inner = _inner(kind, levels, theta, patchy, texture)
    value = base + contrast * inner + 0.012 * patchy + 0.012 * fine
    surroundings += share * (value - surroundings)


def _inner(
    kind: str, levels: np.ndarray, theta: np.ndarray, patchy: np.ndarray, texture: Generator
) -> np.ndarray:
    """Return the brightness inside a contour, in units of the contrast."""
    if kind == "null":
        return np.zeros_like(levels)
    if kind in ("solid", "haze"):
        return np.ones_like(levels)
    if kind == "hole":
        return np.full_like(levels, -1.5)
    if kind == "mottled":
        return 0.75 + 0.65 * np.tanh(2 * patchy)
    rim = np.exp(-(((levels - 0.8) / 0.18) ** 2))
    if kind == "ring":
        return 1.4 * rim - 0.5 * inside(levels, 0.6, 0.3)
    turned = np.cos(theta - np.float32(texture.uniform(0, 2 * np.pi)))
    return 1.4 * rim * inside(turned, 0.0, 0.4)  # an open ring: half of it


def draw_vessel(rng: Generator, centre: Contour, reach: float) -> np.ndarray:
    """Draw a vessel: (N, 2) points x, y of a winding line, in shares of the side."""
    start = rng.uniform(0, 2 * np.pi)
    heading = start + np.pi + rng.uniform(-0.8, 0.8)
    radius = reach * rng.uniform(0.5, 0.95)
    point = np.array([centre.x + radius * np.cos(start), centre.y + radius * np.sin(start)])
    points = [point]
    for turn in rng.normal(0, 0.25, int(rng.integers(8, 20))):
        heading += turn
        point = point + 0.018 * np.array([np.cos(heading), np.sin(heading)])
        points.append(point)
    return np.array(points)


def paste_vessel(
    image: np.ndarray, points: np.ndarray, brain: np.ndarray, brightness: float
) -> None:
    """Paste a bright winding line of about one hundredth of the image's side, in place."""
    size = image.shape[0]
    mask = np.zeros((size, size), np.uint8)
    shift = 4
    pixels = np.rint((points * size - 0.5) * 2**shift).astype(np.int32)
    cv2.polylines(mask, [pixels[:, None]], False, 255, max(1, size // 110), cv2.LINE_AA, shift)
    share = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 0.004 * size) * brain
    image += np.float32(brightness) * share
