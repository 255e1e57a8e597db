"""A head with one lesion whose class is decided by a sign on the other side of the head.

The lesion and all that lies around it are drawn from streams that know nothing of the class: two
images that differ in class alone differ in the pixels of the sign alone. So whatever sees less far
than the sign cannot tell the classes apart.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .brain import WHITE_OF_8_BITS, paste_vessels, scan
from .contour import Contour, draw_waves
from .difficulty import Difficulty
from .head import BRAIN, Head, draw_head, render_head
from .lesion import paste
from .places import draw_places
from .scene import Place, Scene, measure_contour

DATASET_NUMBER = 6
# Brightness of the sign, in contrasts of a lesion, by the class that it gives. It is plain to see:
# what is hard about the class is its distance.
SIGNS = {"across_bright": 2.0, "across_dark": -1.0}
CLASS_NAMES = tuple(SIGNS)
# Radius of lesion and sign, as shares of the side: 18 to 22 px across at 256 px.
RADII = (0.036, 0.044)
# Distance of both from the long axis, as a share of the brain's half width there.
ASIDE = 0.86
# How far up or down either may lie, as a share of the side.
HEIGHT = 0.05
# From the lesion's centre to the nearest pixel of the sign, as a share of the side: 120 px at
# 256 px, where the features of a plain nano Swin's p4 have 1 % of their receptive field; group
# norms behind them see farther (docs/sample.md).
LEAST_DISTANCE = 0.47
NULL_PATCHES = 2


def make_context(
    *, seed: int, split_number: int, index: int, size: int, difficulty: Difficulty
) -> Scene:
    """Make one image; the result depends on the arguments alone, never on other images.

    Args:
        seed: of the sample.
        split_number: number of the split.
        index: number of the image in its split.
        size: side in pixels.
        difficulty: how lesion and sign appear; its look-alikes are left out.
    """
    place = Place(DATASET_NUMBER, seed, split_number, index)
    geometry, texture, extras, across = place.streams(4)
    head = draw_head(geometry)
    side = float(geometry.choice([-1, 1]))
    lesion, sign = _draw_aside(geometry, head, side), _draw_aside(geometry, head, -side)
    image, brain = render_head(head, size, texture)
    nulls = draw_places(extras, head, radii=RADII, count=NULL_PATCHES, taken=[lesion, sign])
    for patch in nulls:
        paste(image, patch, "null", contrast=0.0, edge=difficulty.edge, texture=extras)
    paste_vessels(image, brain, head, difficulty, extras)
    contrast = float(texture.uniform(*difficulty.contrast))
    paste(image, lesion, "solid", contrast=contrast, edge=difficulty.edge, texture=texture)
    class_name = place.turn(CLASS_NAMES)[0]
    contrast = SIGNS[class_name] * float(across.uniform(*difficulty.contrast))
    paste(image, sign, "solid", contrast=contrast, edge=difficulty.edge, texture=across)
    pixels = scan(image, difficulty.noise, texture, WHITE_OF_8_BITS)
    return Scene(pixels, [measure_contour(class_name, lesion, pixels, brain > 0.5)], nulls)


def _draw_aside(rng: Generator, head: Head, side: float) -> Contour:
    """Draw an outline at the brain's border, on one side of the long axis: -1 or 1."""
    outline = head.outline
    radius = float(np.exp(rng.uniform(*np.log(RADII))))
    up = float(rng.uniform(-HEIGHT, HEIGHT))
    half_width = outline.radius_x * np.sqrt(1 - (up / outline.radius_y) ** 2)
    along = side * ASIDE * BRAIN * half_width
    cos, sin = np.cos(outline.angle), np.sin(outline.angle)
    return Contour(
        x=float(outline.x + along * cos - up * sin),
        y=float(outline.y + along * sin + up * cos),
        radius_x=radius,
        radius_y=radius,
        angle=float(rng.uniform(0, np.pi)),
        waves=draw_waves(rng, 0.05, 4),
    )
