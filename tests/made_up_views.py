"""Views of detectors that were never there, for tests of figures."""

from __future__ import annotations

import numpy as np

from ulga_d2.analysis.view import BlockView, ReceptiveField, View

SIDE = 128
STRIDES = (4, 8, 8, 16, 32)


def made_up_view(
    name: str = "made_up", *, cat: bool = True, sampled: bool = False, found: int = 2, seed: int = 0
) -> View:
    """Return a view of five blocks with random contents that obey the rules of `View`."""
    random = np.random.default_rng(seed)
    corners = random.uniform(5, 60, (found, 2))
    boxes = np.hstack([corners, corners + random.uniform(20, 60, (found, 2))])
    queries = np.vstack([(boxes[:, :2] + boxes[:, 2:]) / 2, [[10.0, 118.0]]])
    blocks = tuple(
        _block(f"stages.{place}", stride, len(queries), cat, sampled and stride >= 16, random)
        for place, stride in enumerate(STRIDES)
    )
    return View(
        name,
        random.uniform(0, 255, (SIDE, SIDE, 3)),
        boxes,
        np.sort(random.uniform(0.3, 1, found))[::-1],
        tuple("glioma" if place % 2 else "meningioma" for place in range(found)),
        queries,
        blocks,
        {f"p{n}": random.normal(size=(SIDE >> n, SIDE >> n, 8)) for n in (3, 4, 5)},
        tuple(_field(f"p{n}", 2.0**n) for n in (3, 4, 5)),
    )


def _block(
    name: str, stride: int, queries: int, cat: bool, sampled: bool, random: np.random.Generator
) -> BlockView:
    cells = SIDE // stride
    maps = random.dirichlet(np.full(6, 0.3), (cells, cells)).transpose(2, 0, 1)
    attention = random.dirichlet(np.full(cells * cells, 0.1), queries)
    points = np.tile(random.uniform(0, SIDE, (1, 16, 2)), (queries, 1, 1))
    return BlockView(
        name,
        stride,
        dict(zip(("before", "after", "out"), random.uniform(0, 1, 3).tolist(), strict=True)),
        concept_maps=maps if cat else None,
        concept_entropy=float(random.uniform()) if cat else None,
        attention=None if sampled else attention.reshape(queries, cells, cells),
        points=points if sampled else None,
        offsets=(1.5, 0.5) if sampled else None,
    )


def _field(level: str, width: float) -> ReceptiveField:
    """Return a Gaussian, of which a circle of s sqrt(-2 ln(1 - q)) holds the share q."""
    places = np.arange(SIDE) + 0.5 - SIDE / 2
    density = np.exp(-(places[:, None] ** 2 + places[None, :] ** 2) / (2 * width**2))
    radii = {share: float(width * np.sqrt(-2 * np.log(1 - share))) for share in (0.5, 0.9)}
    return ReceptiveField(level, density / density.sum(), radii)
