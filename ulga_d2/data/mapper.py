"""Turn a record into the network's input: read, augment, and carry the boxes along."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances

from ..errors import UserError
from .augmentation import RandomCropToSquare, ResizeLongestSide
from .image import read_image
from .record import MIN_AREA_LEFT, MIN_CLIPPED_SIDE


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
    """Read a record's image, augment it, and move its boxes along.

    All randomness comes from numpy's global generator, so a caller that seeds it gets the same
    result again. The record is not changed.

    Args:
        augmentations: applied in order.
        is_train: also return the boxes as `instances`.
    """

    def __init__(self, augmentations: list[T.Augmentation], *, is_train: bool) -> None:
        self.augmentations = T.AugmentationList(augmentations)
        self.is_train = is_train

    def __call__(self, record: dict) -> dict:
        """Map one record.

        Returns:
            `image` (3, H, W) RGB, uint8 or float32 in 0..255; `instances` with `gt_boxes` and
            `gt_classes` in training; and the record's `file_name`, `image_id`, and original
            `height` and `width`.

        Raises:
            UserError: the image cannot be read, or its size is not the record's.
        """
        image = read_image(record["file_name"])
        if image.shape[:2] != (record["height"], record["width"]):
            raise UserError(
                f"image {record['file_name']} has height and width {image.shape[:2]}, but had "
                f"{(record['height'], record['width'])} when the data set was loaded; do not "
                "change the data during a run"
            )
        augmented = T.AugInput(image)
        transforms = self.augmentations(augmented)
        image = np.ascontiguousarray(augmented.image.transpose(2, 0, 1))  # (3, H, W)
        keys = ("file_name", "image_id", "height", "width")
        mapped = {key: record[key] for key in keys} | {"image": torch.from_numpy(image)}
        if self.is_train:
            mapped["instances"] = _instances(record, transforms, image.shape[1:])
        return mapped


def _instances(record: dict, transforms: T.TransformList, image_size: tuple[int, int]) -> Instances:
    """Return the boxes after `transforms`; those of which too little is left are dropped.

    The rule is the readers' own for a box across the image's edge. Crowd boxes are no targets.
    """
    annotations = [item for item in record["annotations"] if not item["iscrowd"]]
    boxes = np.array([item["bbox"] for item in annotations], np.float64).reshape(-1, 4)
    classes = np.array([item["category_id"] for item in annotations], np.int64)
    moved = np.asarray(transforms.apply_box(boxes)).reshape(-1, 4)
    height, width = image_size
    clipped = np.clip(moved, 0, [width, height, width, height])
    side = clipped[:, 2:] - clipped[:, :2]
    area_left = side.prod(axis=1) / (moved[:, 2:] - moved[:, :2]).prod(axis=1)
    cut = np.abs(clipped - moved).max(axis=1, initial=0) > 0
    keep = ~cut | ((side.min(axis=1) >= MIN_CLIPPED_SIDE) & (area_left >= MIN_AREA_LEFT))
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.from_numpy(clipped[keep].astype(np.float32)))
    instances.gt_classes = torch.from_numpy(classes[keep])
    return instances
