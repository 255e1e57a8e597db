"""Tiles: where they lie, and what a training tile keeps of an image's boxes."""

from __future__ import annotations

import numpy as np
import pytest

from ulga_d2.data.tiles import tile_grid

SHAPES = [(1, 1), (64, 64), (65, 64), (64, 200), (200, 50), (131, 257), (300, 299)]


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_cover_every_pixel_once_each_and_none_leaves_the_image(shape, overlap):
    height, width = shape
    tiles = tile_grid(height, width, 64, overlap)
    covered = np.zeros(shape, int)
    for x0, y0, x1, y1 in tiles:
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        assert (y1 - y0, x1 - x0) == (min(64, height), min(64, width))
        covered[y0:y1, x0:x1] += 1
    assert covered.min() >= 1
    assert len(set(tiles)) == len(tiles)


def test_an_image_no_larger_than_a_tile_gives_one_tile_of_its_extent():
    assert tile_grid(40, 64, 64, 0.2) == [(0, 0, 64, 40)]


def test_an_image_larger_in_one_direction_is_cut_in_that_direction_alone():
    assert tile_grid(30, 150, 64, 0.0) == [(0, 0, 64, 30), (64, 0, 128, 30), (86, 0, 150, 30)]
    assert tile_grid(150, 30, 64, 0.0) == [(0, 0, 30, 64), (0, 64, 30, 128), (0, 86, 30, 150)]


def test_tiles_come_row_by_row_and_the_last_one_is_moved_inside():
    starts = [tile[:2] for tile in tile_grid(100, 130, 64, 0.25)]
    assert starts == [(x, y) for y in (0, 36) for x in (0, 48, 66)]


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_neighbors_share_at_least_the_overlap(overlap):
    starts = [tile[0] for tile in tile_grid(64, 1001, 64, overlap)]
    assert max(np.diff(starts)) == round(64 * (1 - overlap))


def test_a_full_overlap_moves_by_one_pixel():
    assert len(tile_grid(64, 70, 64, 1.0)) == 7
