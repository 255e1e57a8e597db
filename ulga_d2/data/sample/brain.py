"""A slice through a head with lesions: draw its geometry, render it, composite, then add noise."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from .contour import Contour, smooth_noise
from .difficulty import Difficulty
from .head import BRAIN, Head, draw_head, render_head
from .lesion import CLASS_NAMES, LOOK_ALIKES, draw_vessel, paste, paste_vessel
from .places import RADII, draw_places
from .scene import Place, Scene, measure_contour

DATASET_NUMBER = 1
HEALTHY_SHARE = 0.15
TWO_LESIONS_SHARE = 0.25
LOOK_ALIKE_RADII = (0.06, 0.14)
NULL_PATCHES = (1, 2)
# The brightest level of an image of 8 bits, and of a scanner's own numbers.
WHITE_OF_8_BITS, WHITE_OF_SCANNER = 255, 2000


def make_brain(
    *,
    seed: int,
    split_number: int,
    index: int,
    size: int,
    difficulty: Difficulty,
    white: int = WHITE_OF_8_BITS,
    single: bool = False,
    radii: tuple[float, float] | None = None,
) -> Scene:
    """Make one image; the result depends on the arguments alone, never on other images.

    Args:
        seed: of the sample.
        split_number: number of the split.
        index: number of the image in its split.
        size: side in pixels.
        difficulty: how lesions and look-alikes appear.
        white: the stored number of full white; above 255 pixels are int16.
        single: the image has exactly one lesion, instead of none, one or two.
        radii: of lesions, null patches and look-alikes, as shares of the side; None for the usual.
    """
    place = Place(DATASET_NUMBER, seed, split_number, index)
    geometry, texture, extras = place.streams(3)
    head = draw_head(geometry)
    classes = _classes(place, float(geometry.uniform()), single)
    blobs = draw_places(geometry, head, radii=radii or RADII, count=len(classes), taken=[])
    image, brain = render_head(head, size, texture)
    classes = classes[: len(blobs)]
    for blob, class_name in zip(blobs, classes, strict=True):
        contrast = float(texture.uniform(*difficulty.contrast))
        paste(image, blob, class_name, contrast=contrast, edge=difficulty.edge, texture=texture)
    nulls = _paste_extras(image, brain, head, blobs, difficulty, radii, extras)
    pixels = scan(image, difficulty.noise, texture, white)
    grey = pixels if white == WHITE_OF_8_BITS else pixels * (WHITE_OF_8_BITS / white)
    pairs = zip(blobs, classes, strict=True)
    objects = [measure_contour(name, blob, grey, brain > 0.5) for blob, name in pairs]
    return Scene(pixels, objects, nulls)


def _classes(place: Place, chance: float, single: bool) -> list[str]:
    """Return the classes in an image: none (healthy), one or two.

    Healthy images are spread evenly and classes come in shuffled turns, so that even a small
    sample has the shares it should have.
    """
    if single:
        return place.turn(CLASS_NAMES)[:1]
    if place.is_empty(HEALTHY_SHARE):
        return []
    return place.turn(CLASS_NAMES)[: 2 if chance < TWO_LESIONS_SHARE else 1]


def _paste_extras(
    image: np.ndarray,
    brain: np.ndarray,
    head: Head,
    lesions: list[Contour],
    difficulty: Difficulty,
    radii: tuple[float, float] | None,
    rng: Generator,
) -> list[Contour]:
    """Paste null patches, look-alikes and vessels; return the outlines of the null patches."""
    count = int(rng.integers(*NULL_PATCHES, endpoint=True))
    nulls = draw_places(rng, head, radii=radii or RADII, count=count, taken=lesions)
    for patch in nulls:
        paste(image, patch, "null", contrast=0.0, edge=difficulty.edge, texture=rng)
    count = int(rng.integers(*difficulty.look_alikes, endpoint=True))
    taken = lesions + nulls
    radii = radii or LOOK_ALIKE_RADII
    for patch in draw_places(rng, head, radii=radii, count=count, taken=taken):
        paste(
            image,
            patch,
            str(rng.choice(LOOK_ALIKES)),
            contrast=float(rng.uniform(*difficulty.look_alike_contrast)),
            edge=difficulty.edge,
            texture=rng,
        )
    paste_vessels(image, brain, head, difficulty, rng)
    return nulls


def paste_vessels(
    image: np.ndarray, brain: np.ndarray, head: Head, difficulty: Difficulty, rng: Generator
) -> None:
    """Paste as many vessels as the difficulty asks for, in place."""
    reach = head.outline.radius * BRAIN
    for _ in range(int(rng.integers(*difficulty.vessels, endpoint=True))):
        points = draw_vessel(rng, head.outline, reach)
        paste_vessel(image, points, brain, float(rng.uniform(0.15, 0.35)))


def scan(image: np.ndarray, noise: float, rng: Generator, white: int) -> np.ndarray:
    """Return what a scanner would store: uneven coil, blur, Rician noise, whole numbers."""
    size = image.shape[0]
    coil = np.exp(0.06 * smooth_noise(rng, size, 2))
    signal = cv2.GaussianBlur(image * coil, (0, 0), 0.5 * size / 128 + 0.1)
    real, imaginary = rng.standard_normal((2, size, size), np.float32) * np.float32(noise)
    magnitude = np.hypot(signal + real, imaginary)
    stored = np.uint8 if white == WHITE_OF_8_BITS else np.int16
    return np.rint(np.clip(magnitude * white, 0, white)).astype(stored)
