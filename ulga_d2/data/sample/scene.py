"""What every sample image is: pixels, objects measured in the finished pixels, null patches.

An image is a function of its seed, its split and its number. Its geometry and its texture come from
separate streams, so that a difficulty changes how objects look but not where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

from .contour import Contour

# Around an object, its surroundings are measured up to this level of its outline.
NEAR = (1.2, 1.7)


@dataclass(frozen=True)
class SceneObject:
    """One object as it ended up in the image.

    Attributes:
        class_name: of the object.
        box: left, top, right, bottom of its mask; pixels, half-open.
        mask: the visible pixels, cut to the box.
        contrast: mean grey level above the surroundings, 0..255.
        cnr: that contrast over the deviation of the surroundings.
        d_prime: how far the local gradients inside lie from those around, in their deviations.
        boundary: mean gradient along the rim over the mean gradient around; 1 is no edge.
        overlap: share of the object that others hide.
    """

    class_name: str
    box: tuple[int, int, int, int]
    mask: np.ndarray
    contrast: float
    cnr: float
    d_prime: float
    boundary: float
    overlap: float

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.mask.sum())


@dataclass(frozen=True)
class Scene:
    """A rendered image, its objects, and the outlines of its null patches.

    Attributes:
        image: (H, W) grey or (H, W, 3) RGB, as it will be stored.
        objects: what is to be found in it.
        null_patches: where plain surroundings are pasted the way objects are.
        kind: what the image as a whole shows, where a data set says that.
    """

    image: np.ndarray
    objects: list[SceneObject]
    null_patches: list[Contour]
    kind: str = ""


@dataclass(frozen=True)
class Place:
    """Which image of which sample: all that its random numbers depend on.

    Attributes:
        dataset: number of the data set, so that no two share their random numbers.
        seed: of the sample.
        split: number of the split.
        index: number of the image in its split.
    """

    dataset: int
    seed: int
    split: int
    index: int

    def streams(self, count: int) -> list[Generator]:
        """Return independent streams of random numbers for the image."""
        sequence = SeedSequence([self.dataset, self.seed, self.split, self.index])
        return [Generator(PCG64(child)) for child in sequence.spawn(count)]

    def is_empty(self, share: float) -> bool:
        """Return whether the image has no object; such images are spread evenly over the split.

        The first image always has one, so that even a tiny sample has objects.

        Args:
            share: of the images without an object.
        """
        sequence = SeedSequence([self.dataset, self.seed, self.split])
        offset = Generator(PCG64(sequence)).uniform() * (1 - share)
        return int((self.index + 1) * share + offset) > int(self.index * share + offset)

    def turn(self, names: Sequence[str]) -> list[str]:
        """Return the names in a shuffled order that the images take their classes from in turns."""
        turn, position = divmod(self.index, len(names))
        sequence = SeedSequence([self.dataset, self.seed, self.split, turn, 1])
        shuffled = [str(name) for name in Generator(PCG64(sequence)).permutation(names)]
        return shuffled[position:] + shuffled[:position]


def measure(
    class_name: str,
    visible: np.ndarray,
    around: np.ndarray,
    grey: np.ndarray,
    *,
    corner: tuple[int, int] = (0, 0),
    overlap: float = 0.0,
) -> SceneObject:
    """Measure one object in the finished image.

    Args:
        class_name: of the object.
        visible: (h, w) bool, its visible pixels in a window of the image; at least one.
        around: (h, w) bool, the surroundings that it has to be told from.
        grey: (h, w) the grey levels there, 0..255.
        corner: row and column of the window in the image.
        overlap: share of the object that others hide.
    """
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    tight = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    top, left = int(corner[0] + rows[0]), int(corner[1] + columns[0])
    mask = visible[tight]
    grey = grey.astype(np.float32)
    around = around if around.any() else ~visible
    contrast = float(grey[visible].mean() - grey[around].mean())
    gradient = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    core = cv2.erode(np.pad(visible, 1).astype(np.uint8), np.ones((3, 3)))[1:-1, 1:-1] > 0
    inner, outer = gradient[core if core.any() else visible], gradient[around]
    spread = np.sqrt((inner.var() + outer.var()) / 2)
    return SceneObject(
        class_name=class_name,
        box=(left, top, left + mask.shape[1], top + mask.shape[0]),
        mask=mask,
        contrast=contrast,
        cnr=contrast / max(float(grey[around].std()), 1e-6),
        d_prime=float(abs(inner.mean() - outer.mean()) / max(spread, 1e-6)),
        boundary=float(gradient[visible & ~core].mean() / max(outer.mean(), 1e-6)),
        overlap=overlap,
    )


def measure_contour(
    class_name: str, contour: Contour, grey: np.ndarray, field: np.ndarray
) -> SceneObject:
    """Measure an object with a contour as its outline.

    Args:
        class_name: of the object.
        contour: its outline.
        grey: (H, H) grey levels of the finished image.
        field: (H, H) bool, where its surroundings can lie.
    """
    window = contour.window(grey.shape[0], NEAR[1])
    levels, _ = contour.levels(grey.shape[0], window)
    around = (levels > NEAR[0]) & (levels < NEAR[1]) & field[window]
    corner = (window[0].start, window[1].start)
    return measure(class_name, levels < 1, around, grey[window], corner=corner)


def measure_mask(
    class_name: str,
    visible: np.ndarray,
    grey: np.ndarray,
    field: np.ndarray,
    *,
    overlap: float = 0.0,
) -> SceneObject:
    """Measure an object of any shape.

    Args:
        class_name: of the object.
        visible: (H, W) bool, its visible pixels; at least one.
        grey: (H, W) grey levels of the finished image.
        field: (H, W) bool, where its surroundings can lie.
        overlap: share of the object that others hide.
    """
    left, top, width, height = cv2.boundingRect(visible.astype(np.uint8))
    reach = max(3, round((NEAR[1] - 1) * np.sqrt(width * height) / 2))
    first = (max(0, top - reach), max(0, left - reach))
    window = (slice(first[0], top + height + reach), slice(first[1], left + width + reach))
    distance = cv2.distanceTransform((~visible[window]).astype(np.uint8), cv2.DIST_L2, 3)
    near = (NEAR[0] - 1) / (NEAR[1] - 1) * reach
    around = (distance > near) & (distance <= reach) & field[window]
    return measure(class_name, visible[window], around, grey[window], corner=first, overlap=overlap)
