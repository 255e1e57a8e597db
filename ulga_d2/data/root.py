"""Where the data sets lie, and which of their files are images.

Standard library only, so that `ulga doctor` can ask.
"""

from __future__ import annotations

import os
from pathlib import Path

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"])

# The folders of the data sets under the data root, named like the data sets.
DATA_SETS = ("brain_tumor", "nih_chest_xray", "rsna_pneumonia", "cod10k", "ccellbio")


def data_root() -> Path:
    """Return `$DETECTRON2_DATASETS`, read now, or `datasets` in the working directory."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()
