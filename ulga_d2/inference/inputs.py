"""What a detector is given: files of one or many frames, arrays, PIL images, tensors, DICOM."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ..data.image import count_frames, declared_limits, from_stored
from ..data.image_file import undecodable
from ..data.intensity import FULL_RANGE, StoredPixels
from ..errors import UserError
from .preprocess import Preprocessing

if TYPE_CHECKING:
    from PIL import Image

INPUTS = "a path, a PIL image, a numpy array, a torch tensor or a pydicom dataset"
VIDEO_SUFFIXES = frozenset([".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"])
MISSING_FRAMES = 0.02  # share that a video may lack: some containers state a rounded number


@dataclass(frozen=True)
class ImageInput:
    """An image that can be read, now and again.

    Attributes:
        source: its path, with "#0003" behind it for frame 3 of several; for an object without a
            path, what kind of object it is.
        read: returns it, (H, W, 3) RGB in 0..255, uint8 or float32; raises UserError.
    """

    source: str
    read: Callable[[], np.ndarray]


def open_input(
    item: Any,
    preprocessing: Preprocessing,
    *,
    value_range: tuple[float, float] | None = None,
    every: int = 1,
) -> Iterator[ImageInput]:
    """Yield the images of one input: of a file with several frames, each of them.

    Args:
        item: a path, PIL image, numpy array, torch tensor or pydicom dataset.
        preprocessing: how files are read.
        value_range: which values of an array are black and white; then INPUT.INTENSITY does not
            count.
        every: of a video, every so many-th frame.

    Raises:
        UserError: an input of another kind, a file that cannot be read.
    """
    if isinstance(item, (str, os.PathLike)):
        yield from _of_file(os.fsdecode(item), preprocessing, every)
        return
    kind = type(item).__name__
    if _is_dicom(item):
        yield from _of_dataset(item, kind, preprocessing)
        return
    stored = _stored(item, kind, preprocessing, value_range)
    intensity = preprocessing.intensity if value_range is None else FULL_RANGE
    # A copy, since the caller may fill the same buffer with the next image.
    image = np.array(from_stored(stored, intensity, f"({kind})"))
    yield ImageInput(kind, lambda: image)


def is_one_image(item: Any) -> bool:
    """Tell whether an object is one input, and not an iterable of several."""
    is_path_or_array = isinstance(item, (str, os.PathLike, np.ndarray))
    is_image = hasattr(item, "getbands") or hasattr(item, "detach")  # Pillow's, torch's
    return is_path_or_array or is_image or _is_dicom(item)


def check_value_range(value_range: tuple[float, float] | None) -> None:
    """Refuse what is no range of values.

    Raises:
        UserError: it is not two finite numbers, the lower one first.
    """
    if value_range is None:
        return
    try:
        low, high = map(float, value_range)
        is_range = math.isfinite(low) and math.isfinite(high) and low < high
    except (TypeError, ValueError):
        is_range = False
    if not is_range:
        raise UserError(
            f"value_range is {value_range!r}; give (black, white), two finite numbers, the lower "
            "one first, for example (0.0, 1.0)"
        )


def _is_dicom(item: Any) -> bool:
    pydicom = sys.modules.get("pydicom")  # who has a dataset has imported it
    return pydicom is not None and isinstance(item, pydicom.Dataset)


def frame_name(path: str, frame: int) -> str:
    """Return how a frame of a file is called, such as "scan.dcm#0003"; frames count from 0."""
    return f"{path}#{frame:04d}"


def _of_file(path: str, preprocessing: Preprocessing, every: int) -> Iterator[ImageInput]:
    if "://" not in path and not os.path.isfile(path):
        if os.path.exists(path):
            raise UserError(f"image {path} is no file; give the path of an image")
        is_link = os.path.islink(path)
        fault = "is a link to a file that does not exist" if is_link else "does not exist"
        raise UserError(f"image {path} {fault}; check its path")
    if Path(path).suffix.lower() in VIDEO_SUFFIXES:
        yield from _of_video(path, every)
        return
    frames = count_frames(path)
    if frames == 1:
        yield ImageInput(path, lambda: preprocessing.read(path))
        return
    _check_any_frame(path, frames, preprocessing)
    for frame in range(frames):
        name = frame_name(path, frame)
        yield ImageInput(name, lambda frame=frame: preprocessing.read(path, frame))


def _check_any_frame(path: str, frames: int, preprocessing: Preprocessing) -> None:
    """Refuse a file as a whole, rather than each of its frames, where none can be decoded.

    Raises:
        UserError: neither the first frame nor the middle one nor the last can be.
    """
    faults = []
    for frame in (0, frames // 2, frames - 1):
        try:
            preprocessing.read(path, frame)
            return
        except UserError as error:
            faults.append(error)
    raise faults[0]


def _of_video(path: str, every: int) -> Iterator[ImageInput]:
    video = cv2.VideoCapture(path)
    count = 0
    try:
        # The last backend that OpenCV tries reads image files with numbers in their names.
        is_video = video.isOpened() and video.getBackendName() != "CV_IMAGES"
        while is_video and video.grab():
            if count % every == 0:
                is_whole, pixels = video.retrieve()
                if not is_whole:
                    raise UserError(f"video {path}: frame {count} cannot be decoded")
                image = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
                yield ImageInput(frame_name(path, count), lambda image=image: image)
            count += 1
        stated = video.get(cv2.CAP_PROP_FRAME_COUNT) if is_video else 0
    finally:
        video.release()
    if not count:
        raise UserError(f"video {path} has no frame that can be decoded; check the file")
    if count < stated * (1 - MISSING_FRAMES) - 1:
        raise UserError(
            f"video {path} is truncated: {count} of {stated:.0f} frames can be decoded; fetch the "
            "file again"
        )


def _of_dataset(dataset: Any, kind: str, preprocessing: Preprocessing) -> Iterator[ImageInput]:
    from ..data.dicom import dataset_frames, dicom_pixels  # pydicom takes a moment to import

    is_full = preprocessing.intensity.kind == "full"
    name = "(DICOM dataset)"

    def read(frame: int) -> np.ndarray:
        stored = dicom_pixels(dataset, name, apply_voi=is_full, frame=frame)
        return from_stored(stored, preprocessing.intensity, name)

    frames = dataset_frames(dataset, name)
    for frame in range(frames):
        source = kind if frames == 1 else frame_name(kind, frame)
        yield ImageInput(source, partial(read, frame))


def _stored(
    item: Any,
    kind: str,
    preprocessing: Preprocessing,
    value_range: tuple[float, float] | None,
) -> StoredPixels:
    """Return the pixels of an object in memory, with the range that their type declares."""
    if hasattr(item, "getbands"):
        pixels = _of_pillow(item)
    elif hasattr(item, "detach"):
        pixels = _of_tensor(item)
    elif isinstance(item, np.ndarray):
        pixels = item
    else:
        raise UserError(f"an image cannot be a {kind}; give {INPUTS}")
    _check_shape(pixels, kind)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    limits = declared_limits(pixels.dtype) if value_range is None else value_range
    if limits is None and preprocessing.intensity.kind == "full":
        raise UserError(
            f"a {kind} of {pixels.dtype} declares no range; give value_range=(black, white), for "
            "example value_range=(0.0, 1.0)"
        )
    return StoredPixels(pixels, limits)


def _check_shape(pixels: np.ndarray, kind: str) -> None:
    channels = (3,) if pixels.dtype.kind == "f" else (3, 4)
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in channels)
    if not is_image or 0 in pixels.shape or pixels.dtype.kind not in "uif":
        raise UserError(
            f"a {kind} of shape {pixels.shape} and type {pixels.dtype} is no image; give (H, W) or "
            "(H, W, 3) RGB; a torch tensor: (H, W) or (3, H, W)"
        )


def _of_tensor(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    pixels = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if pixels.ndim == 3 and pixels.shape[0] == 1:
        return pixels[0]
    return np.ascontiguousarray(np.moveaxis(pixels, 0, 2)) if pixels.ndim == 3 else pixels


def _of_pillow(image: Image.Image) -> np.ndarray:
    """Return grey, RGB or RGBA pixels, upright as its EXIF data say."""
    from PIL import ImageOps

    try:
        image = ImageOps.exif_transpose(image)
    except Exception as error:  # damaged data raise anything, and only now are they read
        raise undecodable(f"({type(image).__name__})", error) from None
    if image.mode in ("L", "I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
