"""A micrograph of two kinds of cells in dense clusters, alike but for what their nuclei show.

Plain cells have one nucleus of fine grain; chimeric ones have nuclei of coarse grain, often two.
Both follow one law of sizes. Source of the recipe: simulated micrographs as in SimuCell and BMC
Bioinformatics 2017 18:176; the cells are ours and have no medical meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from .contour import Contour, draw_waves, inside, smooth_noise
from .scene import Place, Scene, SceneObject, measure_mask

DATASET_NUMBER = 5
CLASS_NAMES = ("plain", "chimeric")
EMPTY_SHARE = 0.1
# Height over width of an image.
ASPECT = 0.75
RADII = (0.055, 0.085)
COUNTS = (6, 14)
# Share of the radii that two neighbours may lie over each other.
OVERLAP = 0.3
# A cell of which less is visible is not one that anybody would have annotated.
LEAST_VISIBLE = 0.25
TRIES = 80
# Colours of the slide, the cell's body, and its nucleus.
SLIDE = np.array([0.86, 0.81, 0.86], np.float32)
BODY = np.array([0.80, 0.62, 0.78], np.float32)
NUCLEUS = np.array([0.46, 0.28, 0.58], np.float32)


@dataclass(frozen=True)
class Staining:
    """How cells and their kinds are told apart.

    Attributes:
        gap: how far the kinds differ, 0 to 1.
        depth: how strongly cells are stained, of a full stain.
        blur: width of the focus, in thousandths of the image's width.
        noise: deviation of the camera's noise, as a share of full white.
        debris: range of the number of stained spots that are no cells.
    """

    gap: float
    depth: float
    blur: float
    noise: float
    debris: tuple[int, int]


DIFFICULTIES = {
    "easy": Staining(1.0, 1.0, 2, 0.01, (0, 3)),
    "medium": Staining(0.6, 0.65, 5, 0.03, (2, 6)),
    "hard": Staining(0.25, 0.28, 8, 0.05, (4, 8)),
}


@dataclass(frozen=True)
class Cell:
    """Geometry of a cell: its outline, and the two places for nuclei in it."""

    class_name: str
    outline: Contour
    nuclei: tuple[Contour, Contour]
    has_two: bool


def make_cells(
    *, seed: int, split_number: int, index: int, size: int, difficulty: Staining
) -> Scene:
    """Make one image; the result depends on the arguments alone, never on other images.

    Args:
        seed: of the sample.
        split_number: number of the split.
        index: number of the image in its split.
        size: width in pixels.
        difficulty: how cells and their kinds are told apart.
    """
    place = Place(DATASET_NUMBER, seed, split_number, index)
    geometry, texture, extras = place.streams(3)
    cells = [] if place.is_empty(EMPTY_SHARE) else _draw_cells(geometry)
    rows = slice(0, max(1, round(ASPECT * size)))
    image = SLIDE * (1 + 0.02 * smooth_noise(texture, size, 9)[..., None])
    nulls = _paste_debris(image, cells, difficulty, extras)
    owner = np.zeros((size, size), np.int32)
    grain = smooth_noise(texture, size, 90), smooth_noise(texture, size, 34)
    for number, cell in enumerate(cells, start=1):
        _paste_cell(image, cell, grain, difficulty, texture)
        window = cell.outline.window(size, 1.0)
        owner[window][cell.outline.levels(size, window)[0] < 1] = number
    image = image * np.exp(0.06 * smooth_noise(texture, size, 2))[..., None]
    image = cv2.GaussianBlur(image, (0, 0), 0.3 + difficulty.blur * size / 1000)[rows]
    image += texture.standard_normal(image.shape, np.float32) * np.float32(difficulty.noise)
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return Scene(pixels, _objects(cells, owner[rows], size, pixels), nulls)


def _draw_cells(rng: Generator) -> list[Cell]:
    """Draw cells in clusters: each new one lies beside one that is there, or anywhere."""
    count = int(rng.integers(*COUNTS, endpoint=True))
    outlines: list[Contour] = []
    cells: list[Cell] = []
    for _ in range(TRIES):
        if len(cells) == count:
            break
        radius = float(rng.uniform(*RADII))
        x, y = rng.uniform(0.08, 0.92), ASPECT * rng.uniform(0.1, 0.9)
        if outlines and rng.uniform() < 0.75:
            beside = outlines[int(rng.integers(len(outlines)))]
            angle, distance = rng.uniform(0, 2 * np.pi), (beside.radius + radius) * (1 - OVERLAP)
            x, y = beside.x + distance * np.cos(angle), beside.y + distance * np.sin(angle)
        apart = [
            np.hypot(x - o.x, y - o.y) - (1 - OVERLAP) * 0.999 * (o.radius + radius)
            for o in outlines
        ]
        if min(apart, default=0.0) < 0 or not (0 < x < 1 and 0 < y < ASPECT):
            continue
        outline = _disc(rng, float(x), float(y), radius, 0.06)
        outlines.append(outline)
        cells.append(_cell(rng, outline))
    return cells


def _disc(rng: Generator, x: float, y: float, radius: float, wave: float) -> Contour:
    stretch = float(np.exp(rng.normal(0, 0.1)))
    waves, angle = draw_waves(rng, wave, 4), float(rng.uniform(0, np.pi))
    return Contour(x, y, radius * stretch, radius / stretch, angle, waves)


def _cell(rng: Generator, outline: Contour) -> Cell:
    name = str(rng.choice(CLASS_NAMES))
    angle = float(rng.uniform(0, 2 * np.pi))
    nuclei = []
    for side in (-1, 1):
        x = outline.x + side * 0.33 * outline.radius * np.cos(angle)
        y = outline.y + side * 0.33 * outline.radius * np.sin(angle)
        nuclei.append(_disc(rng, float(x), float(y), 0.34 * outline.radius, 0.08))
    return Cell(name, outline, (nuclei[0], nuclei[1]), bool(rng.uniform() < 0.7))


def _paste_cell(
    image: np.ndarray,
    cell: Cell,
    grain: tuple[np.ndarray, np.ndarray],
    difficulty: Staining,
    rng: Generator,
) -> None:
    """Paste a cell, in place: its body with a rim, then one nucleus or two."""
    size = image.shape[0]
    depth = np.float32(difficulty.depth * rng.uniform(0.85, 1.15))
    window = cell.outline.window(size, 1.3)
    levels, _ = cell.outline.levels(size, window)
    edge = max(0.12, 1.5 / (cell.outline.radius * size))
    share = inside(levels, 1.0, edge) * depth
    rim = np.exp(-(((levels - 0.9) / 0.12) ** 2)) * share
    _stain(image[window], BODY, share * 0.9)
    _stain(image[window], NUCLEUS, rim * 0.35)
    is_chimeric = cell.class_name == "chimeric"
    gap = difficulty.gap if is_chimeric else 0.0
    if is_chimeric and cell.has_two and difficulty.gap > 0:
        pair = cell.nuclei
    else:
        first = cell.nuclei[0]
        middle = Contour(
            x=(first.x + cell.outline.x) / 2,
            y=(first.y + cell.outline.y) / 2,
            radius_x=1.35 * first.radius_x,
            radius_y=1.35 * first.radius_y,
            angle=first.angle,
            waves=first.waves,
        )
        pair = (middle,)
    for nucleus in pair:
        inner = nucleus.window(size, 1.3)
        levels, _ = nucleus.levels(size, inner)
        texture = (1 - gap) * grain[0][inner] + gap * grain[1][inner]
        speckle = 0.8 + (0.12 + 0.28 * gap) * np.tanh(1.5 * texture)
        edge = max(0.25, 1.5 / (nucleus.radius * size))
        _stain(image[inner], NUCLEUS, inside(levels, 1.0, edge) * depth * speckle)


def _stain(image: np.ndarray, colour: np.ndarray, share: np.ndarray) -> None:
    image += share[..., None] * (colour - image)


def _paste_debris(
    image: np.ndarray, cells: list[Cell], difficulty: Staining, rng: Generator
) -> list[Contour]:
    """Paste plain slide like a cell, and spots that are none, in place; return the former."""
    size = image.shape[0]
    patch = _draw_free(rng, cells)
    window = patch.window(size, 1.3)
    levels, _ = patch.levels(size, window)
    plain = 1 + 0.02 * smooth_noise(rng, size, 9)[window][..., None]
    share = inside(levels, 1.0, max(0.12, 1.5 / (patch.radius * size)))[..., None]
    image[window] += share * (SLIDE * plain - image[window])
    for _ in range(int(rng.integers(*difficulty.debris, endpoint=True))):
        x, y = rng.uniform((0.03, 0.03), (0.97, 0.72))
        spot = _disc(rng, float(x), float(y), float(rng.uniform(0.008, 0.03)), 0.2)
        window = spot.window(size, 2.0)
        levels, _ = spot.levels(size, window)
        share = inside(levels, 1.0, 1.0) * difficulty.depth * rng.uniform(0.4, 0.9)
        _stain(image[window], NUCLEUS, share)
    return [patch]


def _draw_free(rng: Generator, cells: list[Cell]) -> Contour:
    """Draw the outline of a cell where the slide is as free as can be found."""
    places = rng.uniform((0.1, 0.1), (0.9, ASPECT - 0.1), (TRIES, 2))
    apart = np.full(TRIES, np.inf)
    for cell in cells:
        away = np.hypot(places[:, 0] - cell.outline.x, places[:, 1] - cell.outline.y)
        apart = np.minimum(apart, away - cell.outline.reach())
    x, y = places[apart.argmax()]
    return _disc(rng, float(x), float(y), float(rng.uniform(*RADII)), 0.06)


def _objects(
    cells: list[Cell], owner: np.ndarray, size: int, pixels: np.ndarray
) -> list[SceneObject]:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    objects = []
    for number, cell in enumerate(cells, start=1):
        window = cell.outline.window(size, 1.0)
        whole = int((cell.outline.levels(size, window)[0] < 1).sum())
        visible = owner == number
        if visible.sum() < max(1, LEAST_VISIBLE * whole):
            continue
        overlap = max(0.0, 1 - float(visible.sum()) / whole)
        objects.append(measure_mask(cell.class_name, visible, grey, owner == 0, overlap=overlap))
    return objects
