"""One sample image: draw its geometry, render it, composite, and only then add noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

from .contour import Contour, smooth_noise
from .difficulty import Difficulty
from .head import BRAIN, Head, draw_head, render_head
from .lesion import CLASS_NAMES, LOOK_ALIKES, draw_vessel, paste, paste_vessel
from .places import RADII, draw_places

# First word of every image's seed, so that no two data sets share their random numbers.
DATASET_NUMBER = 1
HEALTHY_SHARE = 0.15
TWO_LESIONS_SHARE = 0.25
LOOK_ALIKE_RADII = (0.06, 0.14)
NULL_PATCHES = (1, 2)


@dataclass(frozen=True)
class SceneObject:
    """One lesion as it ended up in the image.

    Attributes:
        class_name: one of `CLASS_NAMES`.
        box: left, top, right, bottom of its mask; pixels, half-open.
        area: pixels of its mask.
        contrast: mean grey level above the surroundings, 0..255.
        cnr: that contrast over the deviation of the surroundings.
    """

    class_name: str
    box: tuple[int, int, int, int]
    area: int
    contrast: float
    cnr: float


@dataclass(frozen=True)
class Scene:
    """A rendered image, its objects, and the outlines of its null patches."""

    image: np.ndarray
    objects: list[SceneObject]
    null_patches: list[Contour]


def make_scene(
    *, seed: int, split_number: int, index: int, size: int, difficulty: Difficulty
) -> Scene:
    """Make one image; the result depends on the arguments alone, never on other images.

    Geometry, texture and look-alikes are drawn from separate streams, so that the difficulty
    changes how lesions look but not where they are.
    """
    sequence = SeedSequence([DATASET_NUMBER, seed, split_number, index])
    geometry, texture, extras = (Generator(PCG64(child)) for child in sequence.spawn(3))
    head = draw_head(geometry)
    classes = classes_of(seed, split_number, index, float(geometry.uniform()))
    blobs = draw_places(geometry, head, radii=RADII, count=len(classes), taken=[])
    classes = classes[: len(blobs)]
    image, brain = render_head(head, size, texture)
    for blob, class_name in zip(blobs, classes, strict=True):
        contrast = float(texture.uniform(*difficulty.contrast))
        paste(image, blob, class_name, contrast=contrast, edge=difficulty.edge, texture=texture)
    nulls = _paste_extras(image, brain, head, blobs, difficulty, extras)
    pixels = _measure(image, difficulty.noise, texture)
    objects = [
        _describe(blob, class_name, pixels, brain)
        for blob, class_name in zip(blobs, classes, strict=True)
    ]
    return Scene(pixels, objects, nulls)


def classes_of(seed: int, split_number: int, index: int, chance: float) -> list[str]:
    """Return the classes in an image: none (healthy), one or two.

    Healthy images are spread evenly and classes come in shuffled turns, so that even a small
    sample has the shares it should have.
    """
    start = Generator(PCG64(SeedSequence([DATASET_NUMBER, seed, split_number]))).uniform()
    offset = start * (1 - HEALTHY_SHARE)
    if int((index + 1) * HEALTHY_SHARE + offset) > int(index * HEALTHY_SHARE + offset):
        return []
    turn, position = divmod(index, len(CLASS_NAMES))
    shuffled = Generator(
        PCG64(SeedSequence([DATASET_NUMBER, seed, split_number, turn, 1]))
    ).permutation(CLASS_NAMES)
    count = 2 if chance < TWO_LESIONS_SHARE else 1
    return [str(shuffled[(position + step) % len(CLASS_NAMES)]) for step in range(count)]


def _paste_extras(
    image: np.ndarray,
    brain: np.ndarray,
    head: Head,
    lesions: list[Contour],
    difficulty: Difficulty,
    rng: Generator,
) -> list[Contour]:
    """Paste null patches, look-alikes and vessels; return the outlines of the null patches."""
    count = int(rng.integers(*NULL_PATCHES, endpoint=True))
    nulls = draw_places(rng, head, radii=RADII, count=count, taken=lesions)
    for patch in nulls:
        paste(image, patch, "null", contrast=0.0, edge=difficulty.edge, texture=rng)
    count = int(rng.integers(*difficulty.look_alikes, endpoint=True))
    taken = lesions + nulls
    for patch in draw_places(rng, head, radii=LOOK_ALIKE_RADII, count=count, taken=taken):
        paste(
            image,
            patch,
            str(rng.choice(LOOK_ALIKES)),
            contrast=float(rng.uniform(*difficulty.look_alike_contrast)),
            edge=difficulty.edge,
            texture=rng,
        )
    reach = head.outline.radius * BRAIN
    for _ in range(int(rng.integers(*difficulty.vessels, endpoint=True))):
        points = draw_vessel(rng, head.outline, reach)
        paste_vessel(image, points, brain, float(rng.uniform(0.15, 0.35)))
    return nulls


def _measure(image: np.ndarray, noise: float, rng: Generator) -> np.ndarray:
    """Return what a scanner would store: uneven coil, blur, Rician noise, 8 bits."""
    size = image.shape[0]
    coil = np.exp(0.06 * smooth_noise(rng, size, 2))
    signal = cv2.GaussianBlur(image * coil, (0, 0), 0.5 * size / 128 + 0.1)
    real, imaginary = rng.standard_normal((2, size, size), np.float32) * np.float32(noise)
    magnitude = np.hypot(signal + real, imaginary)
    return np.rint(np.clip(magnitude * 255, 0, 255)).astype(np.uint8)


def _describe(blob: Contour, class_name: str, pixels: np.ndarray, brain: np.ndarray) -> SceneObject:
    """Measure one lesion in the finished image."""
    size = pixels.shape[0]
    window = blob.window(size, 1.7)
    levels, _ = blob.levels(size, window)
    visible = levels < 1
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    top, left = window[0].start, window[1].start
    box = (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)
    grey = pixels[window].astype(np.float32)
    around = grey[(levels > 1.2) & (levels < 1.7) & (brain[window] > 0.5)]
    contrast = float(grey[visible].mean() - around.mean())
    return SceneObject(
        class_name=class_name,
        box=tuple(int(edge) for edge in box),
        area=int(visible.sum()),
        contrast=contrast,
        cnr=contrast / max(float(around.std()), 1e-6),
    )
