"""How much of its declared range a dataset uses, and which intensity follows from that.

The rule, as docs/data_report.md states it: "full" where the files' own ranges serve; else one
"window" of stored values for all images; else "percentile" of each image.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .image import read_stored, stored_limits
from .image_header import ImageFacts, image_facts
from .intensity import (
    FULL_RANGE,
    Intensity,
    StoredPixels,
    not_finite,
    outside_window,
    overlap,
    scale_of,
)
from .progress import with_progress
from .size_cache import cached

logger = logging.getLogger(__name__)

SAMPLE = 200  # images that are measured, at most
# Percent of an image's pixels that its range leaves out at either end: hot and dead pixels.
TAIL = 0.01
MEASURED_PIXELS = 250_000  # of an image, about: a larger one is measured on a grid
# Percent of the images whose range may go beyond that of all.
OUTLYING_IMAGES = 5
# Images without a range of their own count from this share of the sample on.
MIN_DEEP = 0.05
# From this share of images with a window of their own on, "full" serves, whatever the others are.
MOSTLY_WINDOWED = 0.5
# "full" serves if this share of the declared range is used.
MIN_USED = 0.5
# An image whose own range is a smaller share than this of what becomes 0..255 looks flat ...
MIN_CONTRAST = 1 / 16
# ... and a range that leaves more than this share of the images flat does not serve.
MAX_FLAT = 0.1

# Raised when the limits of the same file would come out otherwise.
_LIMITS = "limits-1"
_GREY_DICOM = ("MONOCHROME1", "MONOCHROME2")


@dataclass(frozen=True)
class ImageRange:
    """What one image uses of its range, in stored values.

    Attributes:
        file_name: of the image.
        low, high: all but `TAIL` percent of the pixels at either end lie between them.
        limits: the range that the file declares; None where it declares none.
        is_deep: it has more than 8 bits a sample, and no window of its own.
        has_window: a DICOM file's own window or table was applied.
        has_objects: its record has boxes.
    """

    file_name: str
    low: float
    high: float
    limits: tuple[float, float] | None
    is_deep: bool
    has_window: bool
    has_objects: bool


@dataclass(frozen=True)
class UsedRange:
    """What a dataset uses of the range that its files declare, measured on a sample.

    Attributes:
        total: number of its image files.
        sampled: how many of them were looked at.
        images: those whose pixels were read; none where the headers tell enough.
    """

    total: int
    sampled: int
    images: tuple[ImageRange, ...]

    @property
    def deep(self) -> int:
        """Number of sampled images of more than 8 bits without a window of their own."""
        return sum(image.is_deep for image in self.images)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The stored values that are used; None where no pixels were read."""
        return _bounds([(image.low, image.high) for image in self.images])

    @property
    def share(self) -> float | None:
        """The share of the declared range that is used; None where there is none, or no pixels."""
        bounds = _bounds(_in_shares(self.images))
        return None if bounds is None else bounds[1] - bounds[0]

    @property
    def declared(self) -> tuple[float, float] | None:
        """The lowest and the highest value that the files declare; None where one does not."""
        limits = [image.limits for image in self.images]
        if not limits or None in limits:
            return None
        lows, highs = zip(*limits, strict=True)
        return min(lows), max(highs)

    @property
    def is_mostly_windowed(self) -> bool:
        """Whether most images have a window of their own, which must stay."""
        windowed = sum(image.has_window for image in self.images)
        return windowed > MOSTLY_WINDOWED * len(self.images)

    @property
    def beside_windows(self) -> list[str]:
        """Files of more than 8 bits without a window, where most images have one of their own."""
        if not self.is_mostly_windowed:
            return []
        return [image.file_name for image in self.images if image.is_deep]

    def summary(self) -> str:
        """Return in words what was measured."""
        sample = f"{self.sampled:,} of {self.total:,} images sampled"
        if not self.sampled:
            return f"{sample}: none can be read"
        if self.bounds is None:
            return f"{sample}; their headers declare 8 bits or a window"
        used = f"values {_words(self.bounds)} used"
        if self.declared is None:
            return f"{sample}; {used}, and no range declared"
        return f"{sample}; {used} of {_words(self.declared)} declared ({self.share:.1%})"

    def as_dict(self) -> dict[str, Any]:
        """Return the measurement as plain data."""
        return {
            "sampled": self.sampled,
            "deep": self.deep,
            "used": None if self.bounds is None else list(self.bounds),
            "declared": None if self.declared is None else list(self.declared),
            "used_share": None if self.share is None else round(self.share, 4),
        }


def measure_used_range(
    records: Sequence[dict],
    *,
    pixels: bool = False,
    skip_unreadable: bool = False,
) -> UsedRange:
    """Measure an even sample of at most `SAMPLE` images; the same records give the same numbers.

    Args:
        records: of the dataset.
        pixels: read the pixels even where the headers tell enough for `choose_intensity`.
        skip_unreadable: leave out a file that cannot be read, for callers that report it
            themselves.

    Raises:
        UserError: a file cannot be read, or its values are not finite.
    """
    by_file = {record["file_name"]: record for record in records}
    files = list(by_file)
    chosen = np.linspace(0, len(files) - 1, min(len(files), SAMPLE)).round().astype(int)
    sample = [by_file[files[index]] for index in chosen]
    headers = []
    for record in sample:
        with _unreadable(skip_unreadable):
            headers.append((record, image_facts(record["file_name"], record.get("frame", 0))))
    images = []
    if pixels or any(_may_be_deep(facts) for _, facts in headers):
        for record, facts in with_progress(headers, "measuring the used range", logger):
            with _unreadable(skip_unreadable):
                images.append(_measure(record, facts))
    return UsedRange(len(files), len(headers), tuple(images))


def choose_intensity(used: UsedRange) -> Intensity:
    """Return what INPUT.INTENSITY auto stands for; docs/data_report.md states the rule."""
    images = used.images
    deep = [image for image in images if image.is_deep]
    if len(deep) < MIN_DEEP * len(images) or not deep or used.is_mostly_windowed:
        return FULL_RANGE
    shares = _in_shares(deep)
    bounds = _bounds(shares)
    if bounds and bounds[1] - bounds[0] >= MIN_USED and _few_are_flat(deep, shares, (0.0, 1.0)):
        return FULL_RANGE
    ranges = [(image.low, image.high) for image in images]
    low, high = _bounds(ranges) or (0.0, 0.0)
    serves = low < high and math.isfinite(scale_of(low, high))
    # A window replaces the files' own ones, which state different values.
    serves &= all(overlap(one.limits, low, high) and not one.has_window for one in images)
    if serves and _few_are_flat(images, ranges, (low, high)):
        return Intensity("window", low, high)
    return Intensity("percentile", TAIL, 100 - TAIL)


def check_window(records: Sequence[dict], intensity: Intensity) -> None:
    """Refuse images that declare no value within a window, of which the network would see nothing.

    Their headers tell, and what they tell is remembered for later runs.

    Raises:
        UserError: with the number of such images and the first of them, or one that cannot be read.
    """
    if intensity.kind != "window" or not records:
        return
    frame = next((f for record in records if (f := record.get("frame")) is not None), None)
    kind = _LIMITS if frame is None else f"{_LIMITS}-frame-{frame}"
    files = dict.fromkeys(record["file_name"] for record in records)
    folder = Path(os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files]))
    with cached(folder, kind, partial(stored_limits, frame=frame), _as_limits) as limits_of:
        outside = [
            (file, limits)
            for file in with_progress(list(files), "reading the declared ranges", logger)
            if not overlap(limits := limits_of(file), intensity.low, intensity.high)
        ]
    if outside:
        file, limits = outside[0]
        raise outside_window(
            f"{len(outside):,} of {len(files):,} images, such as {file},", limits, intensity
        )


def _as_limits(stored: Any) -> tuple[float, float] | None:
    if stored is None:
        return None
    low, high = map(float, stored)
    return low, high


def suits(intensity: Intensity, used: UsedRange) -> bool:
    """Tell whether an intensity shows the images of a dataset with contrast, as far as known."""
    if intensity.kind == "full":
        return choose_intensity(used).kind == "full"
    images = [image for image in used.images if not image.has_window]
    if intensity.kind == "percentile" or not images:
        return True
    ranges = [(image.low, image.high) for image in images]
    return _few_are_flat(images, ranges, (intensity.low, intensity.high))


@contextlib.contextmanager
def _unreadable(is_skipped: bool) -> Iterator[None]:
    try:
        yield
    except UserError:
        if not is_skipped:
            raise


def _may_be_deep(facts: ImageFacts) -> bool:
    """Tell from its header whether an image may have more than 8 bits and no window of its own."""
    if facts.format == "MAT":  # read from its own lowest to its own highest value
        return False
    if facts.format == "DICOM":
        return facts.bits > 8 and not facts.has_window and facts.mode in _GREY_DICOM
    return facts.bits > 8


def _measure(record: dict, facts: ImageFacts) -> ImageRange:
    path = record["file_name"]
    is_deep = _may_be_deep(facts)
    # Padding is told apart where no window is applied.
    stored = read_stored(path, own_window=not is_deep, frame=record.get("frame"))
    values = _inside(stored)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise not_finite(path)
    left_out = int(values.size * TAIL / 100)
    ends = [left_out, values.size - 1 - left_out]
    low, high = np.partition(values, ends, axis=None)[ends].astype(float).tolist()
    if low < high and not math.isfinite(scale_of(low, high)):
        raise not_finite(path)
    return ImageRange(
        path,
        low,
        high,
        stored.limits,
        is_deep and (facts.format == "DICOM" or stored.pixels.dtype.itemsize > 1),
        facts.has_window,
        bool(record.get("annotations")),
    )


def _inside(stored: StoredPixels) -> np.ndarray:
    """Return the values of an image without its padding, of a large one on a grid.

    Where padding covers the whole grid, all pixels are taken; it never covers a whole image.
    """
    step = max(1, math.isqrt(stored.pixels.size // MEASURED_PIXELS))
    pixels = stored.pixels[::step, ::step]
    if stored.padding is None:
        return pixels
    on_grid = pixels[~stored.padding[::step, ::step]]
    return on_grid if on_grid.size else stored.pixels[~stored.padding]


def _in_shares(images: Sequence[ImageRange]) -> list[tuple[float, float]]:
    """Return each image's range as shares of its declared one; nothing if one declares none."""
    if any(image.limits is None for image in images):
        return []
    shares = []
    for image in images:
        start, end = image.limits
        width = (end - start) or 1.0  # a MATLAB slice of one value
        shares.append(((image.low - start) / width, (image.high - start) / width))
    return shares


def _bounds(ranges: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Return the range of all images but the `OUTLYING_IMAGES` percent that go furthest.

    Those are counted at each end by itself; of fewer than 20 images none is left out.
    """
    if not ranges:
        return None
    left_out = len(ranges) * OUTLYING_IMAGES // 100
    lows, highs = (sorted(ends) for ends in zip(*ranges, strict=True))
    return lows[left_out], highs[-1 - left_out]


def _few_are_flat(
    images: Sequence[ImageRange],
    ranges: Sequence[tuple[float, float]],
    window: tuple[float, float],
) -> bool:
    """Tell whether a window serves: those with objects count, or all where none has objects.

    Args:
        images: which.
        ranges: of each, in the window's unit.
        window: what becomes black and white.
    """
    judged = [pair for image, pair in zip(images, ranges, strict=True) if image.has_objects]
    judged = judged or list(ranges)
    least = MIN_CONTRAST * (window[1] - window[0])
    flat = sum(
        low < high and min(high, window[1]) - max(low, window[0]) < least for low, high in judged
    )
    return flat <= MAX_FLAT * len(judged)


def _words(bounds: tuple[float, float]) -> str:
    return " to ".join(f"{value:,.6g}" for value in bounds)
