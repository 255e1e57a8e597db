"""What a sample can be made to ask besides its data set's usual question."""

from __future__ import annotations

from collections.abc import Mapping

# The class of a lesion is decided far away from it (`context.py`).
CONTEXT = "context"
# Radii of lesions, as shares of the image's side.
SIZES: Mapping[str, tuple[float, float]] = {
    "small": (0.04, 0.06),
    "medium": (0.08, 0.12),
    "large": (0.15, 0.20),
}
# How alike the textures of ground and creature are, 0 to 1 (`camouflage.py`).
SIMILARITIES: Mapping[str, float] = {
    f"similarity_{percent}": percent / 100 for percent in (0, 20, 40, 60, 80)
}
# By data set; each is written in the data set's first form alone.
TASKS: Mapping[str, tuple[str, ...]] = {
    "brain_tumor": (CONTEXT, *SIZES),
    "cod10k": tuple(SIMILARITIES),
}
