"""What a fault in a sample should lead to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .layout import SampleImage, Written

# Reasons under which the readers count.
CLIPPED = "boxes clipped to the image"
NEARLY_OUTSIDE = "boxes nearly outside the image dropped"
OUTSIDE = "boxes outside the image dropped"
WITHOUT_AREA = "boxes without area dropped"
DUPLICATE = "exact duplicates dropped"
# What the data doctor calls what it finds.
UNDECODABLE = "images that cannot be decoded"
MIXED_MODES = "pixel modes are mixed"
MIXED_BITS = "bits a sample are mixed"
WRONG_SUFFIX = "files whose suffix is not their format"
TURNED = "images turned by EXIF"
IN_BOTH = "images with the same pixels in both splits"


@dataclass(frozen=True)
class Outcome:
    """What the reader and the data doctor should report of one fault.

    Attributes:
        reason: that the reader counts it under once; None where it takes the fault in silence.
        is_emptied: the image loses all its boxes, so the reader leaves it out.
        dropped_images: how many other images the reader drops.
        dropped_boxes: how many boxes the reader drops.
        is_loss: an image is lost, of which a reader allows 1 %.
        stops: part of the message with which the reader refuses the data; None where it reads on.
        finding: that the doctor has, besides the reader's reasons; None for no other.
        image: the annotated image as the fault leaves it; None where its labels stay.
    """

    reason: str | None = None
    is_emptied: bool = False
    dropped_images: int = 0
    dropped_boxes: int = 0
    is_loss: bool = False
    stops: str | None = None
    finding: str | None = None
    image: SampleImage | None = None


# Puts a fault into the sample at one of its training images.
Fault = Callable[[Written, SampleImage, str], Outcome]


@dataclass(frozen=True)
class Defect:
    """A fault that can be put into a sample.

    Attributes:
        put: puts it in.
        layouts: that it can be put into.
    """

    put: Fault
    layouts: frozenset[str]
