"""Objects out of mask images of every kind, clean and not."""

from __future__ import annotations

import numpy as np
import pytest
from cod10k_files import BLUE, RED, SCENE_BOXES, SIZE, save, scene
from PIL import Image
from pycocotools import mask as run_lengths

from ulga_d2.data.instance_masks import instances_in, parts_in


def sorted_boxes(found: dict) -> list[list[int]]:
    return sorted(item["bbox"] for item in found["objects"])


def as_indices(pixels: np.ndarray) -> np.ndarray:
    return np.where(pixels[:, :, 0] == RED[0], 1, np.where(pixels[:, :, 2] == BLUE[2], 2, 0))


def palette_image(pixels: np.ndarray, palette: list[int]) -> Image.Image:
    image = Image.fromarray(as_indices(pixels).astype(np.uint8), "P")
    image.putpalette(palette)
    return image


@pytest.mark.parametrize(
    "mask",
    [
        scene(),
        np.dstack([scene(), np.full(SIZE, 255, np.uint8)]),
        as_indices(scene()).astype(np.uint8),
        np.repeat(as_indices(scene())[:, :, None], 3, axis=2).astype(np.uint8),
        as_indices(scene()).astype(np.uint8) * np.uint8(110),
        palette_image(scene(), [0, 0, 0, 1, 1, 1, 2, 2, 2]),
        palette_image(scene(), [0, 0, 0, 250, 0, 0, 250, 0, 0]),
        palette_image(scene(), [0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ],
    ids="rgb rgba number number-rgb grey palette same-colour-palette black-palette".split(),
)
def test_every_kind_of_instance_mask_gives_the_same_boxes_and_masks(tmp_path, mask):
    path = tmp_path / "mask.png"
    save(path, mask)
    found = instances_in(str(path))
    assert found["size"] == list(SIZE)
    assert sorted_boxes(found) == SCENE_BOXES
    pixels = as_indices(scene())
    for item in found["objects"]:
        decoded = run_lengths.decode({"size": found["size"], "counts": item["counts"]})
        number = 1 if item["bbox"] == SCENE_BOXES[0] else 2
        assert np.array_equal(decoded, pixels == number)


@pytest.mark.parametrize("quality", [60, 90])
def test_the_noise_of_a_lossy_copy_makes_no_objects(tmp_path, quality):
    big = Image.fromarray(scene()).resize((360, 240), Image.Resampling.NEAREST)
    save(tmp_path / "a.jpg", big, quality=quality)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")
    found = sorted_boxes(instances_in(str(tmp_path / "a.png")))
    assert np.abs(np.array(found) - 4 * np.array(SCENE_BOXES)).max() <= 3


def test_smoothed_edges_belong_to_no_third_object(tmp_path):
    save(tmp_path / "a.png", Image.fromarray(scene()).resize((270, 180), Image.Resampling.BILINEAR))
    found = sorted_boxes(instances_in(str(tmp_path / "a.png")))
    assert np.abs(np.array(found) - 3 * np.array(SCENE_BOXES)).max() <= 2


def test_specks_are_dropped_only_where_there_is_noise(tmp_path):
    pixels = scene()
    pixels[2, 80] = RED
    save(tmp_path / "clean.png", pixels)
    assert [5, 2, 81, 55] in sorted_boxes(instances_in(str(tmp_path / "clean.png")))
    pixels[57, :20, 0] = range(1, 21)
    save(tmp_path / "noisy.png", pixels)
    assert sorted_boxes(instances_in(str(tmp_path / "noisy.png"))) == SCENE_BOXES


def test_an_object_mask_gives_its_connected_parts(tmp_path):
    mask = scene().any(axis=2)
    for name, pixels in (("255", 255 * mask), ("1", mask), ("rgb", np.dstack([255 * mask] * 3))):
        save(tmp_path / f"{name}.png", pixels.astype(np.uint8))
        found = sorted_boxes(parts_in(str(tmp_path / f"{name}.png")))
        assert found == [[5, 50, 12, 55], [20, 10, 70, 40]]
