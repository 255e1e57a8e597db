"""How finely boxes are written, and which anchors find them, beside independent counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, pairwise_iou

from ulga_d2.data.check.boxes import Anchors, best_anchor_iou, find_rounding


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_best_anchor_iou_is_that_of_detectron2s_anchors(offset):
    ours = Anchors(
        sizes=((16.0, 25.4), (40.0,)),
        aspect_ratios=((0.5, 1.0, 2.0), (1.0, 1.5)),
        strides=(8, 16),
        offset=offset,
        square_size=64,
    )
    theirs = DefaultAnchorGenerator(
        sizes=ours.sizes,
        aspect_ratios=ours.aspect_ratios,
        strides=list(ours.strides),
        offset=offset,
    )
    maps = [torch.zeros(1, 1, 64 // stride, 64 // stride) for stride in ours.strides]
    every = Boxes.cat(theirs(maps))
    generator = np.random.default_rng(0)
    low = generator.uniform(0, 90, (200, 2))
    high = np.minimum(low + generator.uniform(2, 60, (200, 2)), [128, 96])
    table = np.concatenate([low, high, np.tile([128, 96], (200, 1))], axis=1)
    boxes = Boxes(torch.from_numpy(table[:, :4] / 2).float())
    expected = pairwise_iou(boxes, every).max(dim=1).values
    np.testing.assert_allclose(best_anchor_iou(table, ours), expected.numpy(), atol=1e-5)


def rounded_table(decimals: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return true boxes, and the same boxes through YOLO's numbers with few decimals."""
    generator = np.random.default_rng(1)
    size = generator.uniform(0.05, 0.3, (400, 2))
    centre = generator.uniform(size / 2, 1 - size / 2)
    tables = []
    for shares in (centre, size), (np.round(centre, decimals), np.round(size, decimals)):
        corners = np.concatenate([shares[0] - shares[1] / 2, shares[0] + shares[1] / 2], axis=1)
        tables.append(np.concatenate([corners * side, np.full((400, 2), side)], axis=1))
    return tables[0], tables[1]


@pytest.mark.parametrize("decimals", [1, 2])
def test_rounding_is_found_with_the_iou_that_it_costs(decimals):
    true, rounded = rounded_table(decimals, 512)
    rounding = find_rounding(rounded)
    ious = [
        float(pairwise_iou(*(Boxes(torch.from_numpy(row[None, :4])) for row in rows)))
        for rows in zip(true, rounded, strict=True)
    ]
    assert rounding.decimals == decimals
    assert rounding.median_iou == pytest.approx(np.median(ious), abs=0.03)
    assert rounding.low_iou == pytest.approx(np.quantile(ious, 0.05), abs=0.05)


def test_rounding_that_costs_less_than_a_pixel_is_none():
    true, rounded = rounded_table(2, 100)
    assert find_rounding(rounded) is None
    assert find_rounding(np.rint(true)) is None
    assert find_rounding(rounded_table(3, 512)[1]) is None
    assert find_rounding(rounded_table(2, 512)[1][:10]) is None


def test_whole_pixels_are_no_rounding():
    true, _ = rounded_table(2, 512)
    assert find_rounding(np.rint(true)) is None
