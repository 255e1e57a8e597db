"""Decode an image file of any common kind to RGB, without losing depth."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import cv2
import numpy as np

from ..errors import UserError
from .image_header import image_size, missing_end, open_image_file, read_header, undecodable

__all__ = ["image_size", "read_image"]


def read_image(path: str) -> np.ndarray:
    """Return the image as an (H, W, 3) RGB array, upright, alpha composited on black.

    8-bit files give uint8. 16-bit files give float32 in 0..255, the full range of the file's type
    mapped linearly (65535 becomes 255), so that no grey level is lost and both depths look alike
    to the network. Palettes are expanded, grey is repeated three times, EXIF rotation is applied.

    Raises:
        UserError: the file is missing, truncated, no image, or of a pixel type without a declared
            range (floating point, signed, 32 bits).
    """
    with open_image_file(path) as file:
        data = file.read()
        file.seek(0)
        _, orientation = read_header(file, path)
    reason = missing_end(data)
    if reason:
        raise undecodable(path, reason)
    with _quiet_opencv():
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise undecodable(path, error.err or "OpenCV refuses it") from None
    if pixels is None:
        raise undecodable(path, "damaged, or a kind that OpenCV does not read")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"image {path} has {pixels.dtype} pixels, whose range is not declared; store it with 8 "
            "or 16 unsigned bits"
        )
    return _upright(_to_rgb(pixels), orientation)


@contextlib.contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's own words about damaged files off stderr: the caller reports them."""
    opencv_log = cv2.utils.logging
    level = opencv_log.getLogLevel()
    opencv_log.setLogLevel(opencv_log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        opencv_log.setLogLevel(level)


def _to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Turn OpenCV's grey, BGR or BGRA of 8 or 16 bits into RGB: uint8, or float32 in 0..255."""
    if pixels.dtype == np.uint16:
        pixels = pixels.astype(np.float32) * np.float32(255 / 65535)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    colour = pixels[:, :, 2::-1]
    if pixels.shape[2] == 3:
        return np.ascontiguousarray(colour)
    alpha = pixels[:, :, 3:].astype(np.float32) / 255
    composed = colour * alpha
    return composed if pixels.dtype == np.float32 else np.rint(composed).astype(np.uint8)


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the rotation and mirroring that an EXIF orientation (1..8) describes."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
