"""Turn a record into the network's input: read, augment, and carry the boxes along."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.structures.masks import polygons_to_bitmask
from pycocotools import mask as run_lengths

from ..errors import UserError
from .augmentation import RandomCropToSquare, ResizeLongestSide, channels_first
from .image import read_image
from .intensity import FULL_RANGE, Intensity
from .record import MIN_AREA_LEFT
from .tiles import ROUNDING_OF_SHARE, enough_visible

# Class of a box whose area is neither a target nor background; detectron2's label for "ignore".
IGNORED = -1


def training_augmentations(
    square_size: int, scale_range: Sequence[float], flip: str
) -> list[T.Augmentation]:
    """Return the training augmentations: random scale, random flip, random crop; no padding.

    Args:
        square_size: no side of the result is longer (pixels).
        scale_range: the longest side becomes `square_size` times a factor from this range.
        flip: "horizontal", "vertical" or "none".
    """
    augmentations: list[T.Augmentation] = [ResizeLongestSide(square_size, tuple(scale_range))]
    if flip != "none":
        augmentations.append(
            T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical")
        )
    return [*augmentations, RandomCropToSquare(square_size)]


def test_augmentations(square_size: int) -> list[T.Augmentation]:
    """Return the augmentation of evaluation: the longest side becomes `square_size`."""
    return [ResizeLongestSide(square_size, (1.0, 1.0))]


class DetectionMapper:
    """Read a record's image, augment it, and move its boxes and masks along.

    All randomness comes from numpy's global generator, so a caller that seeds it gets the same
    result again. The record is not changed.

    Args:
        augmentations: applied in order.
        with_masks: give each box's mask, too, which every annotation must then have.
        intensity: which stored values become black and white.
        min_visible: a box is a target where at least this share of its area is visible; else what
            is visible of it is kept with class `IGNORED`. None: boxes of which too little is
            visible are dropped, as by the readers.
    """

    def __init__(
        self,
        augmentations: list[T.Augmentation],
        *,
        with_masks: bool = False,
        intensity: Intensity = FULL_RANGE,
        min_visible: float | None = None,
    ) -> None:
        self.augmentations = T.AugmentationList(augmentations)
        self.with_masks = with_masks
        self.intensity = intensity
        self.min_visible = min_visible

    def __call__(self, record: dict) -> dict:
        """Map one record: its whole image, or the tile that it names (x0, y0, x1, y1).

        Of a file with several frames the one that its `frame` names is read.

        Returns:
            `image` (3, H, W) RGB, uint8 or float32 in 0..255; `instances` with `gt_boxes`,
            `gt_classes` and, if asked for, `gt_masks`; and the record's `file_name`, `image_id`,
            original `height` and `width`, and `tile`, if it has one.

        Raises:
            UserError: the image cannot be read, its size is not the record's, or a mask is missing.
        """
        image = read_image(record["file_name"], self.intensity, record.get("frame"))
        check_size(image, record)
        tile = record.get("tile", (0, 0, record["width"], record["height"]))
        x0, y0, x1, y1 = tile
        augmented = T.AugInput(image[y0:y1, x0:x1])
        transforms = self.augmentations(augmented)
        image = channels_first(augmented.image)
        keys = ("file_name", "image_id", "height", "width", "tile")
        mapped = {key: record[key] for key in keys if key in record}
        mapped["image"] = torch.from_numpy(image)
        mapped["instances"] = self._instances(record, tile, transforms, image.shape[1:])
        return mapped

    def _instances(
        self,
        record: dict,
        tile: tuple[int, int, int, int],
        transforms: T.TransformList,
        image_size: tuple[int, int],
    ) -> Instances:
        """Return boxes and masks after `transforms` of the image's part `tile`.

        A mask that has lost its last pixel takes its box with it. Crowd boxes are no targets.
        """
        x0, y0, x1, y1 = tile
        annotations = [item for item in record["annotations"] if not item["iscrowd"]]
        boxes = np.array([item["bbox"] for item in annotations], np.float64).reshape(-1, 4)
        classes = np.array([item["category_id"] for item in annotations], np.int64)
        moved = np.asarray(transforms.apply_box(boxes - [x0, y0, x0, y0])).reshape(-1, 4)
        height, width = image_size
        clipped = np.clip(moved, 0, [width, height, width, height])
        if self.min_visible is None:
            keep = enough_visible(moved, clipped, MIN_AREA_LEFT)
        else:
            is_target = enough_visible(moved, clipped, self.min_visible - ROUNDING_OF_SHARE)
            classes[~is_target] = IGNORED
            keep = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
        instances = Instances((height, width))
        if self.with_masks:
            masks = np.zeros((len(annotations), height, width), bool)
            for number in np.flatnonzero(keep):
                mask = _mask(annotations[number], record)[y0:y1, x0:x1]
                masks[number] = transforms.apply_segmentation(mask)
            keep &= masks.any(axis=(1, 2))
            instances.gt_masks = BitMasks(torch.from_numpy(masks[keep]))
        instances.gt_boxes = Boxes(torch.from_numpy(clipped[keep].astype(np.float32)))
        instances.gt_classes = torch.from_numpy(classes[keep])
        return instances


def check_size(image: np.ndarray, record: dict) -> None:
    """Refuse an image that has changed since its record was made.

    Raises:
        UserError: its size is not the record's.
    """
    if image.shape[:2] != (record["height"], record["width"]):
        raise UserError(
            f"image {record['file_name']} has height and width {image.shape[:2]}, but had "
            f"{(record['height'], record['width'])} when the data set was loaded; do not "
            "change the data during a run"
        )


def _mask(annotation: dict, record: dict) -> np.ndarray:
    """Return an annotation's mask as (H, W) of 0 and 1."""
    if "segmentation" not in annotation:
        raise UserError(
            f"image {record['file_name']} has a box without a mask; set MODEL.MASK_ON to False, "
            "or train on a data set whose masks are given"
        )
    size = record["height"], record["width"]
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):  # polygons, in data sets that others registered
        return polygons_to_bitmask(segmentation, *size).astype(np.uint8)
    mask = run_lengths.decode(segmentation)
    if mask.shape != size:
        raise UserError(
            f"image {record['file_name']} has height and width {size}, but a mask of {mask.shape}; "
            "correct the annotation"
        )
    return mask
