"""Chest films with findings: NIH's eight, or RSNA's opacities and what is abnormal but none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from ..nih_chest_xray import CLASS_NAMES
from .contour import Contour
from .opacity import NULL, Opacity, draw_opacity, paste_opacity
from .scene import Place, Scene, SceneObject, measure_mask
from .thorax import Film, Thorax, draw_thorax, expose, render_thorax

NIH_NUMBER, RSNA_NUMBER = 3, 4
# NIH: images with a second box, of those with any; as in the release.
TWO_FINDINGS = 0.11
# Heart over lungs: the usual one, and the large one that is a finding.
LARGE_HEART = (1.30, 1.50)
OPACITY, NOT_NORMAL, NORMAL = "Lung Opacity", "No Lung Opacity / Not Normal", "Normal"
# RSNA: 77 % of the images have no opacity, and of those 57 % are abnormal otherwise; of those with
# opacities, 55 % have one in both lungs.
NEGATIVE_SHARE = 0.77
NOT_NORMAL_SHARE = 0.57
BOTH_LUNGS = 0.55
# What an abnormal film without an opacity shows.
_OTHER_FINDINGS = ("Nodule", "Atelectasis", "Effusion", "Pneumothorax")


@dataclass(frozen=True)
class Exposure:
    """How findings appear; brightness in shares of full white.

    Attributes:
        contrast: range of what a finding adds.
        edge: width of its rim, as a share of its radius.
        noise: deviation of the quantum noise.
        other: range of what a finding adds that is none of the classes.
    """

    contrast: tuple[float, float]
    edge: float
    noise: float
    other: tuple[float, float]


DIFFICULTIES = {
    "easy": Exposure((0.26, 0.34), 0.25, 0.015, (0.06, 0.10)),
    "medium": Exposure((0.15, 0.22), 0.45, 0.030, (0.08, 0.14)),
    "hard": Exposure((0.08, 0.13), 0.65, 0.045, (0.08, 0.14)),
}


def make_nih_film(
    *,
    seed: int,
    split_number: int,
    index: int,
    size: int,
    difficulty: Exposure,
    is_healthy: bool = False,
) -> Scene:
    """Make one film of NIH's kind; the result depends on the arguments alone.

    Args:
        seed: of the sample.
        split_number: number of the split; healthy films have numbers of their own.
        index: number of the film in its split.
        size: side in pixels.
        difficulty: how findings appear.
        is_healthy: the film shows no finding.
    """
    place = Place(NIH_NUMBER, seed, split_number, index)
    geometry, texture, extras = place.streams(3)
    names: list[str] = []
    if not is_healthy:
        names = place.turn(CLASS_NAMES)[: 2 if geometry.uniform() < TWO_FINDINGS else 1]
    scale = float(geometry.uniform(*LARGE_HEART)) if "Cardiomegaly" in names else 1.0
    thorax = draw_thorax(geometry, scale)
    opacities = [
        draw_opacity(geometry, thorax, name, int(geometry.integers(2)))
        for name in names
        if name != "Cardiomegaly"
    ]
    return _finish(thorax, opacities, size, difficulty, (texture, extras), scale > 1)


def make_rsna_film(
    *, seed: int, split_number: int, index: int, size: int, difficulty: Exposure
) -> Scene:
    """Make one film of RSNA's kind; its `kind` is the detailed class.

    Args:
        seed: of the sample.
        split_number: number of the split.
        index: number of the film in its split.
        size: side in pixels.
        difficulty: how opacities appear.
    """
    place = Place(RSNA_NUMBER, seed, split_number, index)
    geometry, texture, extras = place.streams(3)
    thorax = draw_thorax(geometry)
    lungs = geometry.permutation(2)
    is_bilateral, is_abnormal = geometry.uniform(size=2) < (BOTH_LUNGS, NOT_NORMAL_SHARE)
    kind, opacities, others = NORMAL, [], []
    if not place.is_empty(NEGATIVE_SHARE):
        kind = OPACITY
        opacities = [
            draw_opacity(geometry, thorax, OPACITY, int(lung))
            for lung in lungs[: 1 + int(is_bilateral)]
        ]
    elif is_abnormal:
        kind = NOT_NORMAL
        name = str(extras.choice(_OTHER_FINDINGS))
        others = [draw_opacity(extras, thorax, name, int(lungs[0]))]
    return _finish(
        thorax, opacities, size, difficulty, (texture, extras), False, others=others, kind=kind
    )


def _finish(
    thorax: Thorax,
    opacities: list[Opacity],
    size: int,
    difficulty: Exposure,
    streams: tuple[Generator, Generator],
    has_large_heart: bool,
    *,
    others: list[Opacity] | tuple[()] = (),
    kind: str = "",
) -> Scene:
    """Render a film, add what it shows and a plain patch, expose it, and measure the findings."""
    texture, extras = streams
    film = render_thorax(thorax, size, texture)
    masks = []
    for opacity in opacities:
        contrast = float(texture.uniform(*difficulty.contrast))
        mask = paste_opacity(
            film, opacity, contrast=contrast, edge=difficulty.edge, texture=texture
        )
        masks.append((opacity.kind, mask))
    if has_large_heart:
        masks.append(("Cardiomegaly", film.heart > 0.5))
    nulls = _paste_others(film, thorax, others, difficulty, extras)
    pixels = expose(film.image, difficulty.noise, texture)
    return Scene(pixels, _objects(masks, film, pixels), nulls, kind)


def _paste_others(
    film: Film,
    thorax: Thorax,
    others: list[Opacity] | tuple[()],
    difficulty: Exposure,
    rng: Generator,
) -> list[Contour]:
    """Paste what is no finding of the classes, and a plain patch; return the patch's outline."""
    patch = draw_opacity(rng, thorax, NULL, int(rng.integers(2)))
    for opacity in (patch, *others):
        contrast = float(rng.uniform(*difficulty.other))
        paste_opacity(film, opacity, contrast=contrast, edge=difficulty.edge, texture=rng)
    return [patch.contour]


def _objects(
    masks: list[tuple[str, np.ndarray]], film: Film, pixels: np.ndarray
) -> list[SceneObject]:
    lungs = np.maximum(*film.lungs) > 0.5
    return [measure_mask(name, mask, pixels, lungs & ~mask) for name, mask in masks if mask.any()]
