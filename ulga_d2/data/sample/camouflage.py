"""A camouflaged creature on textured ground: the same statistics, another phase, a soft outline.

The ground's texture and the creature's share their spectrum and palette but for a gap, which is
what `similarity` closes. Source of the recipe: `texture.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from .contour import Contour, draw_waves, inside
from .creature import Creature, draw_creature
from .scene import Place, Scene, SceneObject, measure_mask
from .texture import Texture, draw_texture

DATASET_NUMBER = 2
# How many creatures there are in an image that has any.
COUNTS = ((1, 0.75), (2, 0.18), (3, 0.07))
LENGTHS = (0.32, 0.65)
# Height over width of an image.
ASPECTS = (0.67, 1.0)
# How many blades of ground lie before everything; what they hide is part of the truth, so they are
# drawn alike at every difficulty.
BLADES = (0, 2)
# A creature of which less is visible is not one that anybody would have annotated.
LEAST_VISIBLE = 0.25
TRIES = 12


@dataclass(frozen=True)
class Camouflage:
    """How well creatures are hidden.

    Attributes:
        similarity: range of how alike the two textures are, up to 1.
        edge: width of a creature's outline, as a share of its parts' radii.
        relief: shading of a creature's round body, as a share of its light.
        noise: deviation of the camera's noise, as a share of full white.
    """

    similarity: tuple[float, float]
    edge: float
    relief: float
    noise: float


DIFFICULTIES = {
    "easy": Camouflage((0.00, 0.20), 0.10, 0.30, 0.010),
    "medium": Camouflage((0.30, 0.45), 0.18, 0.20, 0.020),
    "hard": Camouflage((0.60, 0.70), 0.35, 0.08, 0.030),
}


def make_camouflage(
    *,
    seed: int,
    split_number: int,
    index: int,
    size: int,
    difficulty: Camouflage,
    kind: str | None,
) -> Scene:
    """Make one image; the result depends on the arguments alone, never on other images.

    Args:
        seed: of the sample.
        split_number: number of the split.
        index: number of the image in its split.
        size: width in pixels; the height is drawn.
        difficulty: how well creatures are hidden.
        kind: super-class of the creatures; None for an image without any.
    """
    place = Place(DATASET_NUMBER, seed, split_number, index)
    geometry, texture, extras = place.streams(3)
    ground = draw_texture(geometry)
    rows = _rows(geometry, size)
    creatures = _draw_creatures(geometry, kind, rows, size) if kind else []
    image = ground.render(size, texture)
    owner = np.zeros((size, size), np.int32)
    for number, creature in enumerate(creatures, start=1):
        share = _paste(image, creature, ground, difficulty, texture)
        owner[share > 0.5] = number
    nulls = _paste_nulls(image, ground, creatures, difficulty, extras)
    share = _draw_blades(geometry, ground.angle, size)
    if share.any():
        image += share[..., None] * (ground.render(size, extras) - image)
        owner[share > 0.5] = 0
    image = cv2.GaussianBlur(image, (0, 0), 0.3 + 0.3 * size / 256)[rows]
    image += texture.standard_normal(image.shape, np.float32) * np.float32(difficulty.noise)
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return Scene(pixels, _objects(creatures, owner[rows], rows, size, pixels), nulls, kind or "")


def _rows(rng: Generator, size: int) -> slice:
    """Draw which rows of the square scene the camera takes."""
    height = max(1, round(size * float(rng.uniform(*ASPECTS))))
    top = int(rng.integers(0, size - height, endpoint=True))
    return slice(top, top + height)


def _draw_creatures(rng: Generator, kind: str, rows: slice, size: int) -> list[Creature]:
    numbers, shares = zip(*COUNTS, strict=True)
    count = int(rng.choice(numbers, p=shares))
    height = (rows.stop - rows.start) / size
    middle = rows.start / size + height / 2
    creatures: list[Creature] = []
    for _ in range(TRIES):
        length = float(np.exp(rng.uniform(*np.log(LENGTHS)))) * height / np.sqrt(count)
        x = float(rng.uniform(0.2, 0.8))
        y = middle + height * float(rng.uniform(-0.3, 0.3))
        bodies = [creature.parts[0] for creature in creatures]
        apart = [np.hypot(x - body.x, y - body.y) / body.radius_x for body in bodies]
        if len(creatures) < count and min(apart, default=9.0) > 1.2:
            creatures.append(draw_creature(rng, kind, length, x, y))
    return creatures


def _paste(
    image: np.ndarray, creature: Creature, ground: Texture, difficulty: Camouflage, rng: Generator
) -> np.ndarray:
    """Paste a creature, in place; return how far inside it each pixel is."""
    size = image.shape[0]
    gap = 1 - float(rng.uniform(*difficulty.similarity))
    signs = rng.choice([-1, 1], 4)
    skin = ground.shifted(
        slope=0.5 * gap * float(signs[0]),
        angle=1.5 * gap,
        stretch=2.4 ** (gap * float(signs[1])),
        light=0.3 * gap * float(signs[2]),
        tint=3.4 * gap * float(signs[3]),
    )
    body = creature.parts[0]
    share = creature.share(size, difficulty.edge)
    levels, theta = body.levels(size, (slice(0, size), slice(0, size)))
    # A round body is lit from one side.
    light = np.clip(levels, 0, 1) * np.cos(theta + np.float32(rng.uniform(0, 2 * np.pi)))
    skin_image = skin.render(size, rng) * (1 + np.float32(difficulty.relief) * light)[..., None]
    image += share[..., None] * (skin_image - image)
    return share


def _paste_nulls(
    image: np.ndarray,
    ground: Texture,
    creatures: list[Creature],
    difficulty: Camouflage,
    rng: Generator,
) -> list[Contour]:
    """Paste ground of another phase the way creatures are pasted; return the outlines."""
    size = image.shape[0]
    bodies = [part for creature in creatures for part in creature.parts]
    nulls: list[Contour] = []
    count = int(rng.integers(1, 2, endpoint=True))
    for _ in range(TRIES):
        x, y = rng.uniform(0.1, 0.9, 2)
        radius = float(rng.uniform(0.07, 0.15))
        patch = Contour(float(x), float(y), radius, 0.8 * radius, 0.0, draw_waves(rng, 0.15, 5))
        apart = [np.hypot(x - b.x, y - b.y) - b.reach() - patch.reach() for b in bodies + nulls]
        if len(nulls) == count or min(apart, default=1.0) < 0:
            continue
        window = patch.window(size, 1 + difficulty.edge)
        levels, _ = patch.levels(size, window)
        share = inside(levels, 1.0, max(difficulty.edge, 1.5 / (radius * size)))[..., None]
        image[window] += share * (ground.render(size, rng)[window] - image[window])
        nulls.append(patch)
    return nulls


def _draw_blades(rng: Generator, grain: float, size: int) -> np.ndarray:
    """Draw blades of ground along its grain; return how far inside one each pixel is."""
    mask = np.zeros((size, size), np.uint8)
    shift = 4
    for _ in range(int(rng.integers(*BLADES, endpoint=True))):
        angle = grain + float(rng.normal(0, 0.3))
        centre, half = rng.uniform(0.15, 0.85, 2), rng.uniform(0.15, 0.45)
        along = np.linspace(-half, half, 9)
        bend = float(rng.normal(0, 0.5)) * along**2
        x = centre[0] + along * np.cos(angle) - bend * np.sin(angle)
        y = centre[1] + along * np.sin(angle) + bend * np.cos(angle)
        points = np.rint((np.stack([x, y], 1) * size - 0.5) * 2**shift).astype(np.int32)
        width = max(1, round(size * float(rng.uniform(0.012, 0.03))))
        cv2.polylines(mask, [points[:, None]], False, 255, width, cv2.LINE_AA, shift)
    return mask.astype(np.float32) / 255


def _objects(
    creatures: list[Creature], owner: np.ndarray, rows: slice, size: int, pixels: np.ndarray
) -> list[SceneObject]:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    objects = []
    for number, creature in enumerate(creatures, start=1):
        visible = owner == number
        whole = int((creature.share(size, 0.0)[rows] > 0.5).sum())
        if visible.sum() < max(1, LEAST_VISIBLE * whole):
            continue
        overlap = max(0.0, 1 - float(visible.sum()) / whole)
        objects.append(measure_mask("foreground", visible, grey, owner != number, overlap=overlap))
    return objects
