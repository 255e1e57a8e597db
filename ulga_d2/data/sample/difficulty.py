"""What makes a sample image easy or hard: three presets of the same few numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difficulty:
    """Appearance of lesions and of what looks like them; grey levels are shares of full white.

    Attributes:
        contrast: range of a lesion's brightness above the tissue around it.
        edge: width of a lesion's rim, as a share of its radius.
        noise: standard deviation of the measurement noise.
        vessels: range of the number of bright vessels.
        look_alikes: range of the number of open rings, holes and hazes.
        look_alike_contrast: range of their brightness.
    """

    contrast: tuple[float, float]
    edge: float
    noise: float
    vessels: tuple[int, int]
    look_alikes: tuple[int, int]
    look_alike_contrast: tuple[float, float]


DIFFICULTIES = {
    "easy": Difficulty((0.24, 0.34), 0.10, 0.015, (1, 2), (0, 1), (0.06, 0.12)),
    "medium": Difficulty((0.14, 0.22), 0.20, 0.030, (2, 4), (1, 3), (0.10, 0.20)),
    "hard": Difficulty((0.07, 0.13), 0.30, 0.045, (3, 6), (3, 5), (0.10, 0.18)),
}
