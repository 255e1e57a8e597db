"""Decode every image once, in two processes, and keep what tells images apart."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import chain

import cv2
import numpy as np

from ...errors import UserError
from ..image import read_image
from ..image_header import ImageFacts, image_facts
from ..intensity import Intensity
from ..progress import with_progress

logger = logging.getLogger(__name__)

PROCESSES = 2
# Below this many images the start of two processes takes longer than it saves.
MIN_IMAGES = 500
CHUNK = 16
THUMBNAIL = 32  # pixels a side


@dataclass(frozen=True)
class Scan:
    """What one image file is.

    Attributes:
        facts: what its header says; None where it cannot be read.
        fault: why it cannot be decoded; None where it can.
        size: (height, width) in pixels as decoded.
        digest: SHA-256 of the decoded pixels, so that a PNG and its copy as BMP are one image.
        fingerprint: 64 bits, one for each step to the right on an 8 x 9 picture of the image: is it
            a step up? Alike after scaling, coding again and monotone changes of brightness.
        thumbnail: grey values, THUMBNAIL x THUMBNAIL bytes, stretched to 0..255.
    """

    facts: ImageFacts | None = None
    fault: str | None = None
    size: tuple[int, int] | None = None
    digest: bytes = b""
    fingerprint: int = 0
    thumbnail: bytes = b""


def scan_images(records: Sequence[dict], intensity: Intensity, *, decode: bool) -> list[Scan]:
    """Return what each image file is, in the order of `records`.

    Args:
        records: name the files, and of several frames the one that is read.
        intensity: how stored values become the network's, as in training.
        decode: read the pixels too; else the headers alone.

    Raises:
        UserError: a process that decodes was killed, usually for want of memory.
    """
    look = partial(scan_image, intensity=intensity, decode=decode)
    what = "decoding" if decode else "reading headers"
    files = [(record["file_name"], record.get("frame")) for record in records]
    if len(files) < MIN_IMAGES:
        return [look(*file) for file in with_progress(files, what, logger)]
    # A process that is started anew, not forked, has no thread of ours in an unknown state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context, cv2.setNumThreads, (1,)) as pool:
        try:
            results = pool.map(look, *zip(*files, strict=True), chunksize=CHUNK)
            # The clock starts when the processes have.
            results = chain([next(results)], results)
            watched = with_progress(files, what, logger)
            return [scan for _, scan in zip(watched, results, strict=True)]
        except BrokenProcessPool:
            raise UserError(
                "a process that decodes images was killed, most likely for want of memory; free "
                "some, or look for an image of enormous size"
            ) from None
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def scan_image(path: str, frame: int | None = None, *, intensity: Intensity, decode: bool) -> Scan:
    """Return what one image file is; whatever is wrong with it becomes its `fault`."""
    facts = None
    try:
        facts = image_facts(path)
        return _scan_pixels(facts, read_image(path, intensity, frame)) if decode else Scan(facts)
    except UserError as error:
        return Scan(facts, fault=str(error))
    except Exception as error:  # a damaged file can raise anything; the words may hold its header's
        return Scan(facts, fault=f"image {path} cannot be decoded ({type(error).__name__})")


def _scan_pixels(facts: ImageFacts, image: np.ndarray) -> Scan:
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    grey = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    grey = grey.astype(np.float32).mean(axis=2)
    return Scan(
        facts,
        size=image.shape[:2],
        digest=digest.digest(),
        fingerprint=_fingerprint(grey),
        thumbnail=_stretched(grey).tobytes(),
    )


def _fingerprint(grey: np.ndarray) -> int:
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def _stretched(grey: np.ndarray) -> np.ndarray:
    low, high = float(grey.min()), float(grey.max())
    scale = 255 / (high - low) if high > low else 0.0
    return np.rint((grey - low) * scale).astype(np.uint8)
