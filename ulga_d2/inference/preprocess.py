"""How an image becomes the network's input at test time: one way for all that predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..data.intensity import KINDS, Intensity
from ..errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def build_intensity(cfg: CfgNode) -> Intensity:
    """Build what INPUT.INTENSITY and INPUT.INTENSITY_RANGE describe.

    Raises:
        UserError: the two do not fit each other.
    """
    kind, bounds = cfg.INPUT.INTENSITY, cfg.INPUT.INTENSITY_RANGE
    try:
        if kind in KINDS and len(bounds) != (0 if kind == "full" else 2):
            cure = "[]" if kind == "full" else "[low, high]"
            raise ValueError(f"give {cure} as the range")
        return Intensity(kind, *map(float, bounds))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"INPUT.INTENSITY is {kind!r} with INPUT.INTENSITY_RANGE {bounds!r}; {error}"
        ) from None
