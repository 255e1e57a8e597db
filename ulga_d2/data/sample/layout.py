"""What the writers of all layouts share: the request, and the annotated images they have written.

A layout's writer puts the images on disk and returns a `Written`; its annotations are written from
the labels in there, so that they can be written again with faults in them (`defects.py`).
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ..progress import with_progress
from .scene import Scene, SceneObject

logger = logging.getLogger(__name__)

COLUMNS = ("split", "image", "class", "x0", "y0", "x1", "y1", "area", "contrast", "cnr")
MORE_COLUMNS = (*COLUMNS, "d_prime", "boundary", "overlap")
JPEG_QUALITY = 95
# Outlines are traced at this many times the resolution, so that they run along pixel edges.
_FINER = 4


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes:
        counts: number of images per split; "test" has as many as "val" where a layout has it.
        size: width of an image in pixels.
        difficulty: "easy", "medium" or "hard".
        seed: every image is a function of this, its split and its number.
        task: what the sample is made to ask (`tasks.py`), or "" for the data set's usual images.
    """

    counts: dict[str, int]
    size: int
    difficulty: str
    seed: int
    task: str = ""

    def images(self, splits: Sequence[str]) -> Iterator[tuple[int, str, int]]:
        """Yield number and name of the split, and the number in it, of every image to write."""
        for number, split in enumerate(splits):
            indices = range(self.counts[split])
            for index in with_progress(indices, f"writing {split} images", logger):
                yield number, split, index


@dataclass(frozen=True)
class Label:
    """One annotated object.

    Attributes:
        class_name: of the object.
        xywh: left, top, width, height in pixels.
        area: pixels of its mask.
        outline: polygons [x0, y0, x1, y1, ...] in pixels, where the layout has them.
    """

    class_name: str
    xywh: tuple[float, float, float, float]
    area: int
    outline: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class SampleImage:
    """One written image.

    Attributes:
        split: that the reader will find it in.
        name: that the annotations know it by.
        path: of the file.
        size: (height, width).
        labels: its objects.
        patient: whose it is, where the layout says that.
        kind: what it shows as a whole, where the layout says that.
    """

    split: str
    name: str
    path: Path
    size: tuple[int, int]
    labels: tuple[Label, ...]
    patient: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Written:
    """A sample on disk.

    Attributes:
        images: in the order of writing.
        annotate: writes the annotations of images like these.
        text_of: returns the file that annotates an image in text, or None where a layout has none.
    """

    images: list[SampleImage]
    annotate: Callable[[list[SampleImage]], None]
    text_of: Callable[[SampleImage], Path | None]


@dataclass
class DifficultyTable:
    """The rows of `difficulty.csv`, one an object."""

    columns: tuple[str, ...] = MORE_COLUMNS
    rows: list[list[object]] = field(default_factory=list)

    def add(self, split: str, name: str, scene: Scene) -> None:
        """Add the objects of one image."""
        self.rows += [
            [split, name, *_measures(item)][: len(self.columns)] for item in scene.objects
        ]

    def write(self, out: Path) -> None:
        """Write the file into a folder."""
        with open(out / "difficulty.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([self.columns, *self.rows])


def _measures(item: SceneObject) -> list[object]:
    measured = (item.d_prime, item.boundary, item.overlap)
    shown = [f"{value:.2f}" for value in measured]
    return [
        item.class_name,
        *item.box,
        item.area,
        f"{item.contrast:.1f}",
        f"{item.cnr:.2f}",
        *shown,
    ]


def labels_of(scene: Scene, *, with_outlines: bool = False) -> tuple[Label, ...]:
    """Return the labels of a scene: tight boxes around the visible masks."""
    return tuple(
        Label(
            class_name=item.class_name,
            xywh=(
                float(item.box[0]),
                float(item.box[1]),
                float(item.box[2] - item.box[0]),
                float(item.box[3] - item.box[1]),
            ),
            area=item.area,
            outline=outline_of(item) if with_outlines else (),
        )
        for item in scene.objects
    )


def class_number(label: Label, class_names: Sequence[str], *, first: int) -> int:
    """Return the number of a label's class, counted from `first`; of no known class, the next."""
    is_known = label.class_name in class_names
    return first + (class_names.index(label.class_name) if is_known else len(class_names))


def outline_of(item: SceneObject) -> tuple[tuple[float, ...], ...]:
    """Return polygons along the edges of the mask's pixels, one for each of its parts."""
    fine = np.kron(item.mask.astype(np.uint8), np.ones((_FINER, _FINER), np.uint8))
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
    left, top = item.box[:2]
    polygons = []
    for contour in contours:
        # The centre of an outermost pixel lies half of it inside the edge.
        points = (contour[:, 0] + 0.5) / _FINER + (left, top)
        if len(points) >= 3:
            polygons.append(tuple(float(value) for value in points.ravel().round(3)))
    return tuple(polygons)


def mask_of(scene: Scene) -> np.ndarray:
    """Return (H, W): the number of the object at each pixel, from 1, or 0."""
    numbers = np.zeros(scene.image.shape[:2], np.uint8)
    for number, item in enumerate(scene.objects, start=1):
        left, top, right, bottom = item.box
        numbers[top:bottom, left:right][item.mask] = number
    return numbers


def write_image(path: Path, image: np.ndarray) -> None:
    """Write (H, W) grey, or (H, W, 3) RGB or (H, W, 4) RGBA pixels, as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.ndim == 3:
        code = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
        image = cv2.cvtColor(image, code)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    # cv2.imwrite would swallow a full disk.
    path.write_bytes(cv2.imencode(path.suffix, image, options)[1].tobytes())


def write_text(path: Path, text: str) -> None:
    """Write text with plain line ends on every system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
