"""The figure over depth: how alike tokens become, what concepts look at, which blocks agree."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import Normalize

from ..drawing.curves import draw_curves, draw_matrix
from ..drawing.page import LINE, Page, fold
from .compare_depths import Depths
from .shown import plain
from .similarity import cka_matrix

CHART, MATRIX = (520, 300), 320
LEFT, GAP, MARGIN = 64, 130, 24
CAPTION = (
    "Similarity: mean cosine of all pairs of tokens; before and after are around the interaction "
    "(equal without one), out is the block's output. Entropy: of where a concept looks, over log "
    "N; 1 is everywhere alike. Rank: how many different maps the K concepts give, over K. CKA: "
    "linear, of the outputs of two blocks, each averaged on 8 x 8 cells an image; 1 is alike up to "
    "turning and scaling."
)


class Agreement(NamedTuple):
    """Which blocks of one detector hold what which blocks of another, or the same, do.

    Attributes:
        rows: name of the detector down the matrix.
        columns: likewise across.
        blocks: names of their blocks, down and across.
        matrix: linear CKA, in 0..1.
    """

    rows: str
    columns: str
    blocks: tuple[Sequence[str], Sequence[str]]
    matrix: np.ndarray


def agreements_of(depths: Mapping[str, Depths]) -> list[Agreement]:
    """Compare each detector's blocks with one another, and two detectors' with each other's."""
    names = list(depths)
    pairs = [(name, name) for name in names] + list(itertools.combinations(names, 2))
    return [
        Agreement(
            rows,
            columns,
            (depths[rows].names, depths[columns].names),
            cka_matrix(depths[rows].features, depths[columns].features),
        )
        for rows, columns in pairs
    ]


def depths_as_dict(depths: Mapping[str, Depths], agreements: Sequence[Agreement]) -> dict[str, Any]:
    """Return every number of the figure as plain data; None where there is none."""
    return {
        "detectors": [
            {
                "detector": name,
                "blocks": list(found.names),
                "similarity": {place: plain(values) for place, values in found.similarity.items()},
                "concepts": {kind: plain(values) for kind, values in found.concepts.items()},
            }
            for name, found in depths.items()
        ],
        "cka": [
            {"rows": found.rows, "columns": found.columns, "matrix": plain(found.matrix)}
            for found in agreements
        ],
    }


def draw_depths(
    depths: Mapping[str, Depths], agreements: Sequence[Agreement], title: str
) -> np.ndarray:
    """Draw curves over depth and matrices of depth against depth.

    Args:
        depths: by the detectors' names.
        agreements: a matrix each.
        title: over all.

    Returns:
        an RGB picture (H, W, 3).
    """
    width = MARGIN + max(2 * (LEFT + CHART[0]), len(agreements) * (MATRIX + GAP)) + 2 * MARGIN
    caption = fold(CAPTION, width - 2 * MARGIN)
    matrices = MARGIN + 3 * LINE + CHART[1] + 8 * LINE
    foot = matrices + MATRIX + 6 * LINE
    page = Page(width, foot + (caption.count("\n") + 1) * LINE + MARGIN)
    page.write(MARGIN, MARGIN // 2, title, bold=True)
    _draw_charts(page, MARGIN + 3 * LINE, depths)
    _draw_matrices(page, matrices, agreements)
    page.write(MARGIN, foot, caption)
    return page.pixels()


def _draw_charts(page: Page, y: float, depths: Mapping[str, Depths]) -> None:
    left = MARGIN + LEFT
    similarity = {name: found.similarity for name, found in depths.items()}
    draw_curves(page.axes(left, y, *CHART), similarity, "similarity of tokens", "mean cosine")
    left += CHART[0] + LEFT
    known = {
        name: found.concepts
        for name, found in depths.items()
        if np.isfinite(found.concepts["entropy"]).any()
    }
    if not known:
        page.write(left, y, "no CAT, so no concept maps")
        return
    missing = [f"no CAT in {name}" for name in depths if name not in known]
    axes = page.axes(left, y, *CHART)
    draw_curves(axes, known, ", ".join(["maps of concepts", *missing]), "over log N, over K")
    axes.set_ylim(0, 1.02)


def _draw_matrices(page: Page, y: float, agreements: Sequence[Agreement]) -> None:
    left = MARGIN + LEFT
    for found in agreements:
        words = f"CKA of {found.rows}"
        if found.columns != found.rows:
            words = f"CKA: {found.rows} (down),\n{found.columns} (across)"
        axes = page.axes(left, y, MATRIX, MATRIX)
        draw_matrix(axes, found.matrix, *map(_short, found.blocks), words)
        left += MATRIX + GAP
    page.bar(left - GAP + MARGIN // 2, y, MATRIX, Normalize(0, 1), "CKA")


def _short(names: Sequence[str]) -> list[str]:
    """Return names of blocks without what all of them begin with, such as "stages."."""
    return [name.partition(".")[2] or name for name in names]
