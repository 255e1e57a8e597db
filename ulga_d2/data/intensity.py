"""How stored pixel values become the range that the network is given."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import UserError

# detectron2's unit of intensity: images are 0 (black) to this (white), and PIXEL_MEAN, PIXEL_STD
# and all public weights are stated in it. Nothing else on the way from file to network knows it.
PIXEL_MAX = 255.0

# Pixels of a part of an image.
_PART = 2**20

KINDS = ("full", "window", "percentile")


@dataclass(frozen=True)
class Intensity:
    """Which stored values become black and white; those between go linearly, those beyond are cut.

    Attributes:
        kind: "full" = the range that the file declares (its type's, or DICOM's stored bits and
            its own window); "window" = `low` and `high` are stored values (in DICOM after the
            modality LUT, Hounsfield units for instance); "percentile" = they are percentiles of
            each image.
        low, high: see `kind`; 0 with "full".

    Raises:
        ValueError: an unknown kind, or bounds that do not suit it.
    """

    kind: str = "full"
    low: float = 0.0
    high: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"give {', '.join(KINDS[:-1])} or {KINDS[-1]}")
        if self.kind == "full":
            return
        if not (self.low < self.high and math.isfinite(scale_of(self.low, self.high))):
            raise ValueError(
                "give two finite numbers, the lower one first, whose difference is no rounding"
            )
        if self.kind == "percentile" and not 0 <= self.low < self.high <= 100:
            raise ValueError("give two percentiles between 0 and 100")

    def describe(self) -> str:
        """Return in words what becomes black and white."""
        if self.kind == "full":
            return "full, the range that each file declares or its own window"
        what = "stored values" if self.kind == "window" else "percentiles of each image"
        return f"{self.kind}, {what} {self.low:g} to {self.high:g}"


FULL_RANGE = Intensity()


def scale_of(low: float, high: float) -> float:
    """Return the factor that spreads `low`..`high` over 0..`PIXEL_MAX`.

    It is NaN or infinite where the two are no range: equal, not finite, or so close (or so far
    apart) that float64 has no number for the factor.
    """
    width = float(high) - float(low)
    return PIXEL_MAX / width if width and math.isfinite(width) else math.nan


@dataclass(frozen=True)
class StoredPixels:
    """Pixels as a file states them, with what the file says about their range.

    Attributes:
        pixels: (H, W) grey or (H, W, 3) RGB, of any number type.
        limits: the values that "full" maps to black and white; None where the file declares none.
        inverted: the lowest value is white (MONOCHROME1).
        padding: (H, W), True outside the image proper: black, and no part of percentiles.
    """

    pixels: np.ndarray
    limits: tuple[float, float] | None
    inverted: bool = False
    padding: np.ndarray | None = None


def overlap(limits: tuple[float, float] | None, low: float, high: float) -> bool:
    """Tell whether a file's declared range, if it declares one, has values between the two."""
    return limits is None or (limits[0] < high and limits[1] > low)


def to_network(stored: StoredPixels, intensity: Intensity, path: str) -> np.ndarray:
    """Map stored values linearly to 0..`PIXEL_MAX`, cut off beyond, grey repeated three times.

    8 unsigned bits over their own full range stay uint8 and unchanged; all else becomes float32,
    which tells all levels of up to 24 bits apart. An image of one value alone becomes black where
    its percentiles are asked for.

    Returns:
        (H, W, 3), uint8 or float32.

    Raises:
        UserError: "full" is asked of a file that declares no range, a window lies outside the
            declared one, or a value is not finite, in the file or after the mapping.
    """
    pixels = stored.pixels
    if not all(_is_finite(pixels[rows]) for rows in row_parts(pixels)):
        raise not_finite(path)
    low, high = _bounds(stored, intensity, path)
    if pixels.dtype == np.uint8 and (low, high) == (0, PIXEL_MAX):
        mapped = np.uint8(PIXEL_MAX) - pixels if stored.inverted else pixels
        if stored.padding is not None:
            mapped[stored.padding] = 0
        is_grey = mapped.ndim == 2
        return cv2.cvtColor(mapped, cv2.COLOR_GRAY2RGB) if is_grey else np.ascontiguousarray(mapped)
    if low < high and not math.isfinite(scale_of(low, high)):
        raise _not_finite_once_spread(path, low, high)
    mapped = np.empty((*pixels.shape[:2], 3), np.float32)
    for rows in row_parts(pixels):
        part = _spread(pixels[rows], low, high, stored.inverted)
        if not _is_finite(part):
            raise _not_finite_once_spread(path, low, high)
        if stored.padding is not None:
            part[stored.padding[rows]] = 0
        mapped[rows] = part[..., None] if part.ndim == 2 else part
    return mapped


def row_parts(pixels: np.ndarray) -> Iterator[slice]:
    """Yield rows of an image, a part of it at a time, since each may take floats for a moment."""
    step = max(1, _PART // pixels.shape[1])
    for start in range(0, len(pixels), step):
        yield slice(start, start + step)


def _is_finite(pixels: np.ndarray) -> bool:
    return pixels.dtype.kind != "f" or bool(np.isfinite(pixels).all())


def _not_finite_once_spread(path: str, low: float, high: float) -> UserError:
    return not_finite(path, f" once {low:g} to {high:g} are spread over 0 to {PIXEL_MAX:g}")


def not_finite(path: str, when: str = "") -> UserError:
    """Return the error for an image with values that are not finite."""
    return UserError(
        f"image {path} has pixels that are not finite{when}; repair the file (of DICOM: its "
        "rescale values), or leave it out"
    )


def outside_window(images: str, limits: tuple[float, float], intensity: Intensity) -> UserError:
    """Return the error for images that declare no value within the window.

    Args:
        images: which, in words.
        limits: that the first of them declares.
        intensity: a window.
    """
    verb, them = ("declares", "it") if images.startswith("image ") else ("declare", "them")
    return UserError(
        f"{images} {verb} values from {limits[0]:g} to {limits[1]:g}, all outside "
        f"INPUT.INTENSITY_RANGE {intensity.low:g} to {intensity.high:g}, so the network would see "
        f"nothing of {them}; store {them} as the training images are stored, or leave {them} out"
    )


def _bounds(stored: StoredPixels, intensity: Intensity, path: str) -> tuple[float, float]:
    if intensity.kind == "window":
        low, high = intensity.low, intensity.high
        if not overlap(stored.limits, low, high):
            raise outside_window(f"image {path}", stored.limits, intensity)
        return low, high
    if intensity.kind == "percentile":
        inside = stored.pixels if stored.padding is None else stored.pixels[~stored.padding]
        low, high = np.percentile(inside, (intensity.low, intensity.high))
        return float(low), float(high)
    if stored.limits is None:
        raise UserError(
            f"image {path} has {stored.pixels.dtype} pixels, whose range is not declared; set "
            "INPUT.INTENSITY to window or percentile, or store it with 8 or 16 bits"
        )
    return stored.limits


def _spread(pixels: np.ndarray, low: float, high: float, inverted: bool) -> np.ndarray:
    if low >= high:
        return np.zeros(pixels.shape, np.float32)
    exact_in_float32 = pixels.dtype.itemsize <= 2 or pixels.dtype == np.float32
    mapped = pixels.astype(np.float32 if exact_in_float32 else np.float64)
    with np.errstate(all="ignore"):  # the caller checks the result
        mapped -= low
        mapped *= scale_of(low, high)
    np.clip(mapped, 0, PIXEL_MAX, out=mapped)
    if inverted:
        np.subtract(PIXEL_MAX, mapped, out=mapped)
    return mapped.astype(np.float32, copy=False)
