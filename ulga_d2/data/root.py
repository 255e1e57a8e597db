"""Where the data sets lie, and which of their files are images.

Standard library only, so that `ulga doctor` can ask.
"""

from __future__ import annotations

import os
from pathlib import Path

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"])


def data_root() -> Path:
    """Return `$DETECTRON2_DATASETS`, read now, or `datasets` in the working directory."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()
