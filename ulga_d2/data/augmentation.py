"""Resizing and cropping that detectron2 lacks, for 8-bit and float images alike."""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data import transforms as T


class ResizeLongestSide(T.Augmentation):
    """Resize so that the longest side is `square_size` times a random factor.

    Args:
        square_size: side in pixels.
        scale_range: the factor is drawn uniformly from this range.
    """

    def __init__(self, square_size: int, scale_range: tuple[float, float]) -> None:
        super().__init__()
        self.square_size = square_size
        self.scale_range = scale_range

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw the factor and return the resize."""
        factor = np.random.uniform(*self.scale_range)
        return resize_longest_side(*image.shape[:2], self.square_size * factor)


def resize_longest_side(height: int, width: int, longest: float) -> SmoothResize:
    """Return the resize of an image whose longest side becomes `longest` pixels."""
    scale = longest / max(height, width)
    new_height, new_width = (max(1, round(side * scale)) for side in (height, width))
    return SmoothResize(height, width, new_height, new_width)


def channels_first(image: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) as (3, H, W); numpy's own copy takes twice as long."""
    planes = np.empty((3, *image.shape[:2]), image.dtype)
    cv2.split(image, list(planes))
    return planes


class SmoothResize(T.Transform):
    """Resize by area averaging when shrinking and bilinearly when growing.

    detectron2's own resize averages 8-bit images but not float ones, which then alias; here both
    depths get the same picture.
    """

    def __init__(self, height: int, width: int, new_height: int, new_width: int) -> None:
        super().__init__()
        self.old_size = (height, width)
        self.new_size = (new_height, new_width)

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Resize an (H, W) or (H, W, C) image."""
        if self.old_size == self.new_size:
            return img
        shrinks = self.new_size[0] < self.old_size[0]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(img, self.new_size[::-1], interpolation=method)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale (N, 2) points (x, y)."""
        (height, width), (new_height, new_width) = self.old_size, self.new_size
        return coords * np.array([new_width / width, new_height / height])


class RandomCropToSquare(T.Augmentation):
    """Crop at a random place so that no side is longer than `square_size`; never pad.

    Args:
        square_size: side in pixels.
    """

    def __init__(self, square_size: int) -> None:
        super().__init__()
        self.square_size = square_size

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw the place and return the crop."""
        height, width = image.shape[:2]
        new_height, new_width = (min(side, self.square_size) for side in (height, width))
        y0 = np.random.randint(height - new_height + 1)
        x0 = np.random.randint(width - new_width + 1)
        return T.CropTransform(x0, y0, new_width, new_height, width, height)
