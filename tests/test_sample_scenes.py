"""The sample task is neither trivial nor fake: what is in the images, measured."""

from __future__ import annotations

from collections import Counter
from functools import cache

import cv2
import numpy as np
import pytest

from ulga_d2.data.sample.brain import HEALTHY_SHARE, make_brain
from ulga_d2.data.sample.difficulty import DIFFICULTIES
from ulga_d2.data.sample.lesion import CLASS_NAMES
from ulga_d2.data.sample.places import RADII
from ulga_d2.data.sample.scene import Scene


def scene(index: int, *, difficulty: str = "easy", size: int = 128, **changes: int) -> Scene:
    numbers = {"seed": 0, "split_number": 0} | changes
    return make_brain(index=index, size=size, difficulty=DIFFICULTIES[difficulty], **numbers)


@cache
def scenes(difficulty: str, count: int = 60) -> list[Scene]:
    return [scene(index, difficulty=difficulty) for index in range(count)]


@pytest.mark.parametrize("change", [{"seed": 1}, {"split_number": 1}, {"index": 1}])
def test_another_seed_split_or_number_gives_another_image(change):
    numbers = {"seed": 0, "split_number": 0, "index": 0} | change
    other = make_brain(size=64, difficulty=DIFFICULTIES["easy"], **numbers)
    assert np.abs(other.image.astype(int) - scene(0, size=64).image).mean() > 5


def test_size_changes_the_sampling_but_not_the_scene():
    for index in range(8):
        small, large = scene(index, size=96), scene(index, size=192)
        for a, b in zip(small.objects, large.objects, strict=True):
            assert a.class_name == b.class_name
            assert np.abs(np.array(a.box) * 2 - b.box).max() <= 3
        shrunk = cv2.resize(large.image, (96, 96), interpolation=cv2.INTER_AREA)
        assert np.corrcoef(shrunk.ravel(), small.image.ravel())[0, 1] > 0.97


def test_boxes_are_tight_around_what_is_seen():
    tried = 0
    for made in scenes("easy"):
        for item in made.objects:
            if item.class_name != "solid" or item.cnr < 3:
                continue
            x0, y0, x1, y1 = item.box
            rows, columns = slice(y0 - 4, y1 + 4), slice(x0 - 4, x1 + 4)
            around = cv2.GaussianBlur(made.image, (0, 0), 1)[rows, columns].astype(float)
            inner = np.median(around[10:-10, 10:-10])
            bright = (around > inner - 0.5 * item.contrast).astype(np.uint8)
            *_, statistics, _ = cv2.connectedComponentsWithStats(bright)
            left, top, width, height, _ = max(statistics[1:], key=lambda row: row[4])
            found = np.array([left, top, left + width, top + height])
            truth = np.array([4, 4, 4 + x1 - x0, 4 + y1 - y0])
            tried += 1
            assert np.median(np.abs(found - truth)) <= 1.5
    assert tried >= 5


def test_class_healthy_and_size_histograms_match_the_request():
    made = scenes("easy", 200)
    healthy = sum(not item.objects for item in made)
    assert abs(healthy - HEALTHY_SHARE * 200) <= 1
    objects = [item for image in made for item in image.objects]
    classes = Counter(item.class_name for item in objects)
    assert set(classes) == set(CLASS_NAMES)
    assert max(classes.values()) <= 1.25 * min(classes.values())
    assert 1.15 <= len(objects) / (200 - healthy) <= 1.35
    radii = np.sort([np.sqrt(item.area / np.pi) / 128 for item in objects])
    drawn = np.log(radii / RADII[0]) / np.log(RADII[1] / RADII[0])  # uniform in 0..1
    assert np.abs(drawn - np.linspace(0, 1, len(drawn))).max() < 0.15


def test_a_tiny_sample_starts_with_a_lesion_whatever_the_seed():
    assert all(scene(0, size=32, seed=seed, split_number=1).objects for seed in range(20))


def test_class_says_nothing_about_side_or_size():
    objects = [item for made in scenes("easy", 200) for item in made.objects]
    for name in CLASS_NAMES:
        mine = [item for item in objects if item.class_name == name]
        centres = [(item.box[0] + item.box[2]) / 2 / 128 for item in mine]
        assert abs(np.mean(centres) - 0.5) < 0.06
        assert abs(np.mean([np.sqrt(item.area) for item in mine]) / 26 - 1) < 0.12


def boxes_above(image: np.ndarray, threshold: int) -> list[tuple[int, int, int, int]]:
    """Detect bright blobs inside the skull: what a threshold alone can do."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.5)
    outside = cv2.morphologyEx((smooth > 12).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9)))
    contours, _ = cv2.findContours(outside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    head = np.zeros_like(outside)
    cv2.drawContours(head, [max(contours, key=cv2.contourArea)], -1, 1, -1)
    brain = cv2.erode(head, np.ones((3, 3)), iterations=11)
    bright = ((smooth > threshold) & (brain > 0)).astype(np.uint8)
    bright = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, np.ones((5, 5)))
    _, _, statistics, _ = cv2.connectedComponentsWithStats(bright)
    return [(x, y, x + w, y + h) for x, y, w, h, area in statistics[1:] if area >= 100]


def iou(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (areas - width * height)


def f1_score(found: list[list[tuple]], truth: list[list[tuple]]) -> float:
    hits = sum(
        any(iou(box, other) >= 0.5 for other in boxes)
        for boxes, targets in zip(found, truth, strict=True)
        for box in targets
    )
    return 2 * hits / max(1, sum(map(len, found)) + sum(map(len, truth)))


@pytest.mark.parametrize(
    ("difficulty", "lowest", "highest"),
    [("easy", 0.75, 1.0), ("medium", 0.4, 0.75), ("hard", 0, 0.25)],
)
def test_a_threshold_detects_easy_lesions_and_hardly_a_hard_one(difficulty, lowest, highest):
    made = scenes(difficulty)
    truth = [[item.box for item in image.objects] for image in made]
    score, found = max(
        (
            (f1_score(found, truth), found)
            for found in (
                [boxes_above(image.image, t) for image in made] for t in range(88, 200, 8)
            )
        ),
        key=lambda pair: pair[0],
    )
    assert lowest <= score <= highest
    # Chance: the same boxes against the truth of other images.
    shifts = [f1_score(found, truth[step:] + truth[:step]) for step in range(1, len(truth))]
    assert np.mean(shifts) < 0.1


def test_contrast_to_noise_falls_from_easy_to_hard_for_every_class():
    for name in CLASS_NAMES:
        easy, medium, hard = (
            np.median([o.cnr for made in scenes(d) for o in made.objects if o.class_name == name])
            for d in DIFFICULTIES
        )
        assert easy > 1.3 * medium > 1.3 * 1.3 * hard > 0


def patch_statistics(difficulty: str) -> tuple[list[float], list[float], list[float]]:
    """Return brightness over the surroundings, and roughness inside, of the null patches; and the
    roughness inside solid lesions."""
    contrasts, rough_nulls, rough_lesions = [], [], []
    for made in scenes(difficulty):
        roughness = np.abs(cv2.Laplacian(made.image, cv2.CV_32F))
        for patch in made.null_patches:
            window = patch.window(128, 1.7)
            levels, _ = patch.levels(128, window)
            grey = made.image[window]
            around = (levels > 1.2) & (levels < 1.7)
            contrasts.append(float(np.median(grey[levels < 0.7]) - np.median(grey[around])))
            rough_nulls.append(float(np.median(roughness[window][levels < 0.7])))
        for item in made.objects:
            if item.class_name == "solid":
                x0, y0, x1, y1 = item.box
                inside = roughness[y0:y1, x0:x1]
                h, w = inside.shape
                rough_lesions.append(float(np.median(inside[h // 4 : -h // 4, w // 4 : -w // 4])))
    return contrasts, rough_nulls, rough_lesions


@pytest.mark.parametrize("difficulty", list(DIFFICULTIES))
def test_null_patches_are_pasted_like_lesions_but_look_like_tissue(difficulty):
    made = scenes(difficulty)
    with_patch = [bool(image.null_patches) for image in made]
    assert np.mean(with_patch) >= 0.95
    assert all(image.null_patches for image in made if not image.objects)
    contrasts, rough_nulls, rough_lesions = patch_statistics(difficulty)
    assert abs(np.median(contrasts)) < 8
    assert np.median(rough_nulls) == pytest.approx(np.median(rough_lesions), rel=0.25)
