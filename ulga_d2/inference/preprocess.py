"""How an image becomes the network's input: one way for evaluation, `Predictor` and the command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..data.augmentation import SmoothResize, channels_first, resize_longest_side
from ..data.image import read_image
from ..data.intensity import FULL_RANGE, KINDS, Intensity
from ..data.mapper import check_size
from ..data.tiles import tile_grid
from ..errors import UserError
from .views import Region, View

if TYPE_CHECKING:
    from detectron2.config import CfgNode


@dataclass(frozen=True)
class Tiling:
    """How a large image is cut.

    Attributes:
        side: of a tile, in pixels of the original image.
        overlap: of neighboring tiles, as a share of the side.
        with_whole: the whole image is shown, too, for objects larger than a tile.
    """

    side: int
    overlap: float = 0.2
    with_whole: bool = False


@dataclass(frozen=True)
class Augmentation:
    """Test-time augmentation, as detectron2's TEST.AUG keys describe it.

    Attributes:
        min_sizes: the shorter side of a view in pixels, where its longer one allows it.
        max_size: no side is longer.
        flip: each view also comes mirrored.
    """

    min_sizes: tuple[int, ...]
    max_size: int
    flip: bool


@dataclass(frozen=True)
class Preprocessing:
    """Everything that decides what the network sees of an image.

    Attributes:
        square_size: the longest side of a view becomes this (pixels); the detector pads the rest of
            the square with PIXEL_MEAN.
        intensity: which stored values become black and white.
        tiling: for images larger than a tile; None shows each image whole.
        augmentation: None shows each part once.
    """

    square_size: int
    intensity: Intensity = FULL_RANGE
    tiling: Tiling | None = None
    augmentation: Augmentation | None = None

    def read(self, path: str, frame: int | None = None) -> np.ndarray:
        """Return an image file, or a frame of it, as (H, W, 3) RGB in 0..255, uint8 or float32.

        Raises:
            UserError: the file cannot be read.
        """
        return read_image(path, self.intensity, frame)

    def views(self, image: np.ndarray) -> list[View]:
        """Return what the network is shown of an image; tiles row by row, the whole image last.

        Args:
            image: (H, W, 3) RGB in 0..255, uint8 or float32.
        """
        return [
            view
            for region in self._regions(*image.shape[:2])
            for view in self._of_region(image, region)
        ]

    def count_views(self, height: int, width: int) -> int:
        """Return how many views there are of an image of this size."""
        mirrored = self.augmentation is not None and self.augmentation.flip
        regions = self._regions(height, width)
        resizes = (len(self._resizes(y1 - y0, x1 - x0)) for x0, y0, x1, y1 in regions)
        return sum(resizes) * (2 if mirrored else 1)

    def _regions(self, height: int, width: int) -> list[Region]:
        whole = (0, 0, width, height)
        if self.tiling is None or max(height, width) <= self.tiling.side:
            return [whole]
        tiles = tile_grid(height, width, self.tiling.side, self.tiling.overlap)
        return [*tiles, whole] if self.tiling.with_whole else tiles

    def _of_region(self, image: np.ndarray, region: Region) -> Iterator[View]:
        x0, y0, x1, y1 = region
        part = np.ascontiguousarray(image[y0:y1, x0:x1])
        for resize in self._resizes(*part.shape[:2]):
            shown = resize.apply_image(part)
            yield View(torch.from_numpy(channels_first(shown)), region)
            if self.augmentation is not None and self.augmentation.flip:
                mirrored = np.ascontiguousarray(shown[:, ::-1])
                yield View(torch.from_numpy(channels_first(mirrored)), region, flipped=True)

    def _resizes(self, height: int, width: int) -> list[SmoothResize]:
        if self.augmentation is None:
            return [resize_longest_side(height, width, self.square_size)]
        most = min(self.augmentation.max_size, self.square_size)
        ratio = max(height, width) / min(height, width)
        longest = [min(size * ratio, most) for size in self.augmentation.min_sizes]
        return [resize_longest_side(height, width, side) for side in dict.fromkeys(longest)]


class InferenceMapper:
    """Read a record's image and cut it into the views that the network is shown.

    Args:
        preprocessing: how.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def __call__(self, record: dict) -> dict | UserError:
        """Map one record.

        Returns:
            "views", and the record's "file_name", "image_id", "height" and "width"; or, so that it
            crosses a worker's border as one message, the `UserError` of an image that cannot be
            read or has another size than the record says.
        """
        try:
            image = self.preprocessing.read(record["file_name"])
            check_size(image, record)
        except UserError as error:
            return error
        keys = ("file_name", "image_id", "height", "width")
        return {key: record[key] for key in keys} | {"views": self.preprocessing.views(image)}


def build_preprocessing(cfg: CfgNode) -> Preprocessing:
    """Build what the INPUT and TEST.AUG keys describe.

    Raises:
        UserError: keys that do not fit each other.
    """
    tile, aug = cfg.INPUT.TILE, cfg.TEST.AUG
    if aug.ENABLED and cfg.MODEL.META_ARCHITECTURE != "RetinaNet":
        raise UserError("TEST.AUG.ENABLED is True; test-time augmentation is for RetinaNet alone")
    return Preprocessing(
        cfg.INPUT.SQUARE_SIZE,
        build_intensity(cfg),
        Tiling(tile.SIDE, tile.OVERLAP, tile.WHOLE_IMAGE) if tile.SIDE else None,
        Augmentation(tuple(aug.MIN_SIZES), aug.MAX_SIZE, aug.FLIP) if aug.ENABLED else None,
    )


def build_intensity(cfg: CfgNode) -> Intensity:
    """Build what INPUT.INTENSITY and INPUT.INTENSITY_RANGE describe.

    Raises:
        UserError: the two do not fit each other.
    """
    kind, bounds = cfg.INPUT.INTENSITY, cfg.INPUT.INTENSITY_RANGE
    try:
        if kind in KINDS and len(bounds) != (0 if kind == "full" else 2):
            fix = "[]" if kind == "full" else "[low, high]"
            raise ValueError(f"give {fix} as the range")
        return Intensity(kind, *map(float, bounds))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"INPUT.INTENSITY is {kind!r} with INPUT.INTENSITY_RANGE {bounds!r}; {error}"
        ) from None
