"""The parts of an image that the network is shown, and what it finds on each of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

Region = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of the whole image, half-open


class View(NamedTuple):
    """A part of an image as the network sees it.

    Attributes:
        image: (3, h, w) RGB in 0..255, no side longer than the network's square.
        region: the part of the image that it shows.
        flipped: it is mirrored left to right.
    """

    image: Tensor
    region: Region
    flipped: bool = False


class RawDetections(NamedTuple):
    """Detections on one view or one image: N of them, on the CPU.

    Attributes:
        boxes: (N, 4) float32, XYXY in pixels of the whole image.
        scores: (N,) float32.
        classes: (N,) int64.
        masks: COCO's run lengths of the whole image's size, one a detection; None without masks.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    masks: list[dict[str, Any]] | None = None

    def take(self, index: Tensor) -> RawDetections:
        """Return the detections at `index`, (M,) whole numbers or (N,) booleans, in that order."""
        numbers = index.nonzero()[:, 0] if index.dtype == torch.bool else index
        masks = None if self.masks is None else [self.masks[number] for number in numbers.tolist()]
        return RawDetections(
            self.boxes[numbers], self.scores[numbers], self.classes[numbers], masks
        )


def join(parts: list[RawDetections]) -> RawDetections:
    """Return the detections of one or more views, one after the other."""
    masks = None
    if parts[0].masks is not None:
        masks = [mask for part in parts for mask in part.masks or []]
    boxes, scores, classes = (torch.cat([part[number] for part in parts]) for number in range(3))
    return RawDetections(boxes, scores, classes, masks)
