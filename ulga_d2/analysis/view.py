"""What was seen inside a detector while it looked at one image; plain arrays, for figures."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class BlockView:
    """One transformer block.

    Attributes:
        name: of the module in the backbone, such as "stages.2.1".
        stride: pixels a token.
        similarity: mean cosine of all pairs of tokens "before" the interaction (after the norm),
            "after" it (equal to "before" without one), and at the block's "out"put.
        concept_maps: (K, H, W), how much of each token each concept gives (sums to 1 over K), or
            None without CAT.
        concept_entropy: mean over concepts of the entropy of where they look, over log N; None
            without CAT.
        attention: (Q, H, W), where each chosen query looks, mean of the heads; sums to 1 less what
            goes to the padding of windows, which a trained model may make most of it; None where
            the attention samples points instead.
        points: (Q, P, 2), pixels (x, y) that each chosen query samples, or None.
        offsets: mean and standard deviation of the lengths of the offsets in tokens, or None.
    """

    name: str
    stride: int
    similarity: dict[str, float]
    concept_maps: np.ndarray | None = None
    concept_entropy: float | None = None
    attention: np.ndarray | None = None
    points: np.ndarray | None = None
    offsets: tuple[float, float] | None = None


@dataclass(frozen=True)
class ReceptiveField:
    """Effective receptive field of the centre of a level.

    Attributes:
        level: name of the level, such as "p3".
        density: (H, W) at the size of the image in pixels, mean of |gradient|, sums to 1.
        radii: pixels from the centre that hold a share of it, by the share (0.5, 0.9).
    """

    level: str
    density: np.ndarray
    radii: dict[float, float]


@dataclass(frozen=True)
class View:
    """One detector on one image.

    Attributes:
        name: of the detector, such as the stem of its config.
        image: (H, W, 3) RGB, 0..255, as the detector saw it.
        boxes: (D, 4) of the detections that are shown, pixels of `image`.
        scores: (D,).
        labels: names of their classes.
        queries: (Q, 2), pixels (x, y) of the chosen queries; the last is of the background.
        blocks: in the order of the backbone.
        levels: (H, W, C) features by the name of the level, such as "p3".
        fields: receptive fields; of the same image.
    """

    name: str
    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...]
    queries: np.ndarray
    blocks: tuple[BlockView, ...]
    levels: dict[str, np.ndarray] = field(default_factory=dict)
    fields: tuple[ReceptiveField, ...] = ()
