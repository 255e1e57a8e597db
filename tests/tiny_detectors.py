"""Settings that make detectors of all three backbones tiny."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import tiny_options

CLASSES = ("pituitary", "meningioma", "glioma")
SMALL = {
    "MODEL.ULGA.VIT.EMBED_DIM": "16",
    "MODEL.ULGA.VIT.DEPTH": "2",
    "MODEL.ULGA.VIT.NUM_HEADS": "2",
    "MODEL.ULGA.VIT.GRID_SIZE": "4",
    "MODEL.ULGA.VIT.NUM_GLOBAL": "1",
    "MODEL.ULGA.DAT.EMBED_DIM": "16",
    "MODEL.ULGA.DAT.DEPTHS": "[1, 1, 2, 1]",
    "MODEL.ULGA.DAT.NUM_HEADS": "[1, 2, 2, 4]",
    "MODEL.ULGA.DAT.NUM_GROUPS": "[1, 1, 2, 2]",
    "MODEL.ULGA.DAT.GRID_SIZE": "8",
}


def options() -> list[str]:
    """Return settings of a detector that no training has resolved."""
    settings = {**SMALL, "INPUT.INTENSITY": "full"}
    return [*tiny_options(Path("unused")), *(word for pair in settings.items() for word in pair)]
