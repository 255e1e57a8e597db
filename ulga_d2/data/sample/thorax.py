"""A procedural chest film: body, two lung fields, heart, spine, ribs, vessels, diaphragm.

It resembles a frontal radiograph and has no medical meaning. All is a sum of absorptions, as in
projection: what is added lies before and behind everything else.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from .contour import Contour, draw_waves, inside, smooth_noise

# Mean brightness of body and lungs, as shares of full white.
BODY, LUNG = 0.70, 0.24


@dataclass(frozen=True)
class Thorax:
    """Geometry of a chest, in shares of the image's side.

    Attributes:
        lungs: left and right lung in the image.
        heart: its shadow, mostly on the image's right.
        domes: height of the diaphragm under each lung.
        spine: x of the spine.
        ribs: (first height, distance, slope) of the ribs.
    """

    lungs: tuple[Contour, Contour]
    heart: Contour
    domes: tuple[float, float]
    spine: float
    ribs: tuple[float, float, float]


@dataclass(frozen=True)
class Film:
    """A rendered healthy chest.

    Attributes:
        image: (H, H) brightness, 0..1.
        lungs: how far inside each lung field each pixel is, 0..1, left and right.
        heart: likewise for the heart.
    """

    image: np.ndarray
    lungs: tuple[np.ndarray, np.ndarray]
    heart: np.ndarray


def draw_thorax(rng: Generator, heart_scale: float = 1.0) -> Thorax:
    """Draw the geometry of a chest.

    Args:
        rng: draws it.
        heart_scale: width of the heart over the usual one.
    """
    spine = 0.5 + float(rng.uniform(-0.02, 0.02))
    apart, width, height = rng.uniform((0.195, 0.14, 0.34), (0.225, 0.17, 0.39))
    middle = 0.47 + float(rng.uniform(-0.02, 0.02))
    tilt = float(rng.uniform(0.06, 0.14))
    lungs = tuple(
        Contour(
            x=float(spine + side * apart),
            y=float(middle),
            radius_x=float(width),
            radius_y=float(height),
            angle=-side * tilt,
            waves=draw_waves(rng, 0.03, 4),
        )
        for side in (-1, 1)
    )
    dome = middle + float(rng.uniform(0.24, 0.29))
    radius = float(rng.uniform(0.145, 0.17))
    heart = Contour(
        x=float(spine + 0.045 + 0.03 * (heart_scale - 1)),
        y=float(dome - 0.11),
        radius_x=radius * heart_scale,
        radius_y=radius * 0.95 * np.sqrt(heart_scale),
        angle=float(rng.uniform(0.3, 0.6)),
        waves=draw_waves(rng, 0.05, 4),
    )
    domes = (dome, dome + float(rng.uniform(0.01, 0.04)))
    ribs = rng.uniform((0.08, 0.075, 0.5), (0.14, 0.09, 0.8))
    return Thorax(lungs, heart, domes, spine, tuple(map(float, ribs)))


def render_thorax(thorax: Thorax, size: int, rng: Generator) -> Film:
    """Render a healthy chest.

    Args:
        thorax: its geometry.
        size: side in pixels.
        rng: draws brightness and textures.
    """
    y, x = _grid(size)
    fields = _lung_fields(thorax, size, x, y)
    lungs = np.maximum(*fields)
    heart = _inside_all(thorax.heart, size, 0.12)
    body, dark = (np.float32(v * rng.uniform(0.92, 1.08)) for v in (BODY, LUNG))
    coarse, patchy, fine = (smooth_noise(rng, size, cells) for cells in (5, 22, 60))
    across = (x - thorax.spine) / np.float32(0.47 + 0.03 * np.sin(4 * (y - 0.2)))
    shoulders = np.clip((y + 0.05) / 0.22, 0, 1)
    trunk = inside(np.abs(across) / (0.55 + 0.45 * shoulders), 1.0, 0.08)
    image = trunk * body * (1 + 0.05 * coarse)
    image += lungs * (dark + np.float32(0.10) * (y - 0.4) - image)
    # Vessels thin out from the middle to the sides.
    hilum = np.exp(-((np.abs(x - thorax.spine) - 0.09) ** 2) / 0.006 - (y - 0.45) ** 2 / 0.02)
    vessels = np.maximum(0, patchy) * 0.05 + np.maximum(0, fine) * 0.025
    image += lungs * vessels * (0.5 + 1.5 * hilum) + 0.10 * hilum * lungs
    image += 0.9 * heart * np.maximum(0, body - image)
    image += _spine(thorax, x, y, rng) * trunk + _ribs(thorax, x, y) * trunk
    image += 0.012 * patchy + 0.006 * fine
    return Film(image.astype(np.float32), fields, heart)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    steps = (np.arange(size, dtype=np.float32) + 0.5) / size
    return steps[:, None], steps[None]


def _lung_fields(
    thorax: Thorax, size: int, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far inside each lung field each pixel is; the diaphragm's dome cuts it off."""
    fields = []
    for lung, dome in zip(thorax.lungs, thorax.domes, strict=True):
        floor = dome + 1.6 * (x - lung.x) ** 2
        above = np.clip((floor - y) / 0.02 + 0.5, 0, 1).astype(np.float32)
        fields.append(_inside_all(lung, size, 0.14) * above)
    return fields[0], fields[1]


def _inside_all(contour: Contour, size: int, softness: float) -> np.ndarray:
    levels, _ = contour.levels(size, (slice(0, size), slice(0, size)))
    return inside(levels, 1.0, softness)


def _spine(thorax: Thorax, x: np.ndarray, y: np.ndarray, rng: Generator) -> np.ndarray:
    """Return what the spine and the middle add; vertebrae repeat downwards."""
    phase = np.float32(rng.uniform(0, 2 * np.pi))
    bone = np.exp(-(((x - thorax.spine) / 0.035) ** 2))
    return (0.10 * bone * (1 + 0.25 * np.sin(100 * y + phase))).astype(np.float32)


def _ribs(thorax: Thorax, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return what the ribs add: arcs that fall to both sides, behind, and rise again, in front."""
    first, distance, slope = thorax.ribs
    aside = np.abs(x - thorax.spine)
    behind = y - first - slope * aside**1.5
    before = y - first - 0.16 + 0.9 * slope * (aside - 0.1)
    bones = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for height, strength in ((behind, 0.075), (before, 0.035)):
        # The distance to the nearest rib, in units of the distance between two.
        turns = height / distance
        off = np.abs(turns - np.rint(turns)) * 2
        bones += strength * inside(off, 0.38, 0.35) * ((turns > -0.5) & (turns < 8.5))
    clavicle = y - 0.13 + 0.28 * (aside - 0.05)
    bones += 0.07 * np.exp(-((clavicle / 0.014) ** 2)) * (aside > 0.03) * (aside < 0.36)
    return bones * np.clip((aside - 0.02) / 0.03, 0, 1)


def expose(image: np.ndarray, noise: float, rng: Generator) -> np.ndarray:
    """Return the film as stored: blur, quantum noise (more where it is dark), 8 bits."""
    size = image.shape[0]
    signal = cv2.GaussianBlur(image, (0, 0), 0.4 * size / 128 + 0.1)
    grain = rng.standard_normal((size, size), np.float32)
    deviation = np.float32(noise) * (1.3 - np.clip(signal, 0, 1))
    return np.rint(np.clip(signal + deviation * grain, 0, 1) * 255).astype(np.uint8)
