"""Masks of COCO files: polygons and run lengths become compressed run lengths, or are refused."""

from __future__ import annotations

import numpy as np
import pytest
from data_files import HEIGHT, WIDTH, coco_content, write_coco
from pycocotools import mask as run_lengths

from ulga_d2.data.brain_tumor import load_brain_tumor
from ulga_d2.evaluation.coco_masks import compress_mask

SIZE = (HEIGHT, WIDTH)
SQUARE = [4, 2, 12, 2, 12, 12, 4, 12]
ALL = HEIGHT * WIDTH


def random_mask(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.asfortranarray(generator.random(SIZE) < generator.random(), np.uint8)


def plain_counts(mask: np.ndarray) -> list[int]:
    """Return run lengths by column, zeros first: COCO's definition in the plainest words."""
    counts, value = [0], 0
    for pixel in mask.flatten(order="F"):
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_in_either_form_give_the_mask(seed):
    mask = random_mask(seed)
    text = run_lengths.encode(mask)["counts"].decode("ascii")
    for counts in (text, plain_counts(mask)):
        compressed = compress_mask({"size": list(SIZE), "counts": counts}, SIZE)
        assert compressed == {"size": list(SIZE), "counts": text}
        np.testing.assert_array_equal(run_lengths.decode(compressed), mask)


def test_polygons_are_filled_and_united():
    other = [20, 5, 24, 5, 24, 9, 20, 9]
    mask = run_lengths.decode(compress_mask([SQUARE, other], SIZE))
    expected = np.zeros(SIZE)
    expected[2:12, 4:12] = 1
    expected[5:9, 20:24] = 1
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[4, 2, 12, 2]], "no list of three or more points"),
        ([[4, 2, 12, 2, 5]], "no list of three or more points"),
        ([3], "no list of three or more points"),
        ([[4, 2, 12, 2, "5", 6]], "'5' in a polygon is no number"),
        ([[4, 2, 12, 2, float("nan"), 6]], "'nan' in a polygon is no number"),
        ([[4, 2, 12, 2, 1e12, 6]], "far outside the image"),
        ([[4, 2, 12, 2, 6, -21]], "far outside the image"),
        ([[4, 2, 12, 2, 10**400, 6]], "far outside the image"),
        ([[4, 2, 12, 2, float("inf"), 6]], "far outside the image"),
        ([[4, 2, 4, 2, 4, 2]], "covers no pixel"),
        ("4 2 12", "neither a list of polygons nor run lengths"),
        ({"size": [WIDTH, HEIGHT], "counts": [ALL]}, r"another size than the image: \[40, 20\]"),
        ({"size": list(SIZE)}, "no whole numbers from 0 up"),
        ({"size": list(SIZE), "counts": [-1, ALL + 1]}, "no whole numbers from 0 up"),
        ({"size": list(SIZE), "counts": [ALL - 1]}, "do not add up"),
        ({"size": list(SIZE), "counts": [10**30]}, "do not add up"),
        ({"size": list(SIZE), "counts": [ALL]}, "covers no pixel"),
        ({"size": list(SIZE), "counts": "o"}, "cut off"),
        ({"size": list(SIZE), "counts": "~~"}, "damaged"),
        ({"size": list(SIZE), "counts": "o" * 9}, "damaged"),
        ({"size": list(SIZE), "counts": "O"}, "no whole numbers from 0 up"),
    ],
)
def test_a_mask_that_is_none_is_refused_with_the_reason(segmentation, message):
    with pytest.raises(ValueError, match=message):
        compress_mask(segmentation, SIZE)


@pytest.mark.parametrize(
    ("segmentation", "has_mask", "reasons"),
    [
        ([SQUARE], True, {}),
        ([], False, {}),
        (None, False, {}),
        ([[4, 2, 12, 2]], False, {"masks that cannot be used left out": 1}),
        ("x", False, {"masks that cannot be used left out": 1}),
    ],
)
def test_coco_records_carry_masks_and_lose_a_bad_one_only_counted(
    tmp_path, segmentation, has_mask, reasons
):
    content = coco_content()
    content["annotations"][0]["segmentation"] = segmentation
    loaded = load_brain_tumor(write_coco(tmp_path, content), "train")
    (annotation,) = loaded.records[0]["annotations"]
    assert ("segmentation" in annotation) == has_mask
    assert dict(loaded.report.reasons) == reasons
    if has_mask:
        assert run_lengths.toBbox(annotation["segmentation"]).tolist() == [4, 2, 8, 10]
