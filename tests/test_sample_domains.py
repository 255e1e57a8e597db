"""Films, photographs and micrographs of the sample: what is in them, measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache, partial

import cv2
import numpy as np
import pytest

from ulga_d2.data.sample import camouflage, cells, chest
from ulga_d2.data.sample.contour import Contour
from ulga_d2.data.sample.creature import draw_creature
from ulga_d2.data.sample.scene import Scene, measure_mask
from ulga_d2.data.sample.texture import draw_texture

SIZE = 96
COUNT = 24
DIFFICULTIES = ("easy", "medium", "hard")
KINDS = ("Aquatic", "Terrestrial", "Flying", "Amphibian", "Other")


def photograph(*, index: int, **options: object) -> Scene:
    return camouflage.make_camouflage(index=index, kind=KINDS[index % len(KINDS)], **options)


DOMAINS: dict[str, tuple[Callable[..., Scene], dict]] = {
    "nih": (chest.make_nih_film, chest.DIFFICULTIES),
    "rsna": (chest.make_rsna_film, chest.DIFFICULTIES),
    "cod10k": (photograph, camouflage.DIFFICULTIES),
    "ccellbio": (cells.make_cells, cells.DIFFICULTIES),
}


def make(domain: str, difficulty: str, index: int, size: int = SIZE, **changes: int) -> Scene:
    function, presets = DOMAINS[domain]
    numbers = {"seed": 0, "split_number": 0} | changes
    return function(index=index, size=size, difficulty=presets[difficulty], **numbers)


@cache
def scenes(domain: str, difficulty: str, count: int = COUNT) -> list[Scene]:
    return [make(domain, difficulty, index) for index in range(count)]


def objects_of(domain: str, difficulty: str, count: int = COUNT) -> list:
    return [item for scene in scenes(domain, difficulty, count) for item in scene.objects]


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("change", [{"seed": 1}, {"split_number": 1}, {"index": 1}])
def test_another_seed_split_or_number_gives_another_image(domain, change):
    one = make(domain, "easy", 0)
    other = make(domain, "easy", **{"index": 0} | change)
    assert one.image.shape != other.image.shape or (one.image != other.image).mean() > 0.3


@pytest.mark.parametrize("domain", DOMAINS)
def test_boxes_and_masks_stay_when_the_difficulty_changes(domain):
    for easy, hard in zip(scenes(domain, "easy"), scenes(domain, "hard"), strict=True):
        assert easy.kind == hard.kind and len(easy.objects) == len(hard.objects)
        for one, other in zip(easy.objects, hard.objects, strict=True):
            assert (one.class_name, one.box) == (other.class_name, other.box)
            assert np.array_equal(one.mask, other.mask)


@pytest.mark.parametrize("domain", DOMAINS)
def test_boxes_lie_in_the_image_and_are_tight_around_the_masks(domain):
    for scene in scenes(domain, "easy"):
        height, width = scene.image.shape[:2]
        for item in scene.objects:
            x0, y0, x1, y1 = item.box
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
            assert item.mask.shape == (y1 - y0, x1 - x0)
            assert all(side.any() for side in (*item.mask[[0, -1]], *item.mask.T[[0, -1]]))
            assert 0 <= item.overlap < 1 - camouflage.LEAST_VISIBLE + 1e-9


@pytest.mark.parametrize("domain", DOMAINS)
def test_size_changes_the_sampling_but_not_the_geometry(domain):
    for index in range(4):
        small, large = make(domain, "easy", index), make(domain, "easy", index, size=2 * SIZE)
        assert len(small.objects) == len(large.objects)
        for one, other in zip(small.objects, large.objects, strict=True):
            assert one.class_name == other.class_name
            assert np.abs(2 * np.array(one.box) - other.box).max() <= 5


@pytest.mark.parametrize("domain", DOMAINS)
def test_objects_stand_out_less_from_easy_to_hard(domain):
    easy, medium, hard = (
        np.median([abs(item.cnr) for item in objects_of(domain, difficulty)])
        for difficulty in DIFFICULTIES
    )
    assert easy > 1.15 * medium > 1.15 * 1.15 * hard > 0
    edges = [
        np.median([item.boundary for item in objects_of(domain, difficulty)])
        for difficulty in DIFFICULTIES
    ]
    assert edges[0] > edges[1] >= 0.95 * edges[2]


@pytest.mark.parametrize("domain", DOMAINS)
def test_null_patches_are_pasted_but_look_like_what_is_around(domain):
    with_patch, contrasts = [], []
    for scene in scenes(domain, "easy"):
        with_patch.append(bool(scene.null_patches))
        for patch in scene.null_patches:
            size = scene.image.shape[1]
            if domain == "cod10k":
                continue  # the photograph is a cut of the scene, which hides where the patch is
            rows = scene.image.shape[0]
            levels, _ = patch.levels(size, (slice(0, rows), slice(0, size)))
            grey = scene.image if scene.image.ndim == 2 else scene.image.mean(axis=2)
            around = (levels > 1.2) & (levels < 1.7)
            contrasts.append(np.median(grey[levels < 0.7]) - np.median(grey[around]))
    assert np.mean(with_patch) > 0.9
    assert not contrasts or abs(np.median(contrasts)) < 8


def test_shares_of_negatives_and_classes_are_as_asked():
    rsna = scenes("rsna", "easy", 100)
    assert abs(sum(not scene.objects for scene in rsna) - 0.77 * 100) <= 1
    assert Counter(bool(s.objects) for s in rsna if s.kind == chest.OPACITY) == {True: 23}
    assert {scene.kind for scene in rsna} == {chest.OPACITY, chest.NOT_NORMAL, chest.NORMAL}
    nih = Counter(item.class_name for item in objects_of("nih", "easy", 64))
    assert set(nih) == set(chest.CLASS_NAMES) and min(nih.values()) >= 8
    assert rsna[0].objects


def test_findings_have_the_sizes_of_the_releases():
    sides = {
        name: [np.sqrt(item.mask.size) * 1024 / SIZE for item in objects_of("nih", "easy", 64)
               if item.class_name == name]
        for name in chest.CLASS_NAMES
    }  # fmt: skip
    medians = {name: np.median(values) for name, values in sides.items()}
    published = {"Nodule": 69, "Mass": 124, "Atelectasis": 140, "Cardiomegaly": 423}
    for name, expected in published.items():
        assert medians[name] == pytest.approx(expected, rel=0.3)
    assert medians["Nodule"] < medians["Mass"] < medians["Pneumonia"] < medians["Cardiomegaly"]


def test_class_says_nothing_about_the_size_or_place_of_a_cell():
    items = objects_of("ccellbio", "easy", COUNT)
    for name in cells.CLASS_NAMES:
        mine = [item for item in items if item.class_name == name]
        assert len(mine) > 0.4 * len(items)
        centres = [(item.box[0] + item.box[2]) / 2 / SIZE for item in mine]
        assert abs(np.mean(centres) - 0.5) < 0.08
        areas = [np.sqrt(item.area) for item in items]
        assert np.mean([np.sqrt(i.area) for i in mine]) == pytest.approx(np.mean(areas), rel=0.08)


def test_a_camouflaged_texture_keeps_the_mean_colour_and_the_spectrum_of_its_ground():
    rng = np.random.default_rng(0)
    ground = draw_texture(rng)
    one, other = (ground.render(128, np.random.default_rng(seed)) for seed in (1, 2))
    assert np.abs(one - other).mean() > 0.05
    assert np.abs(one.mean((0, 1)) - other.mean((0, 1))).max() < 0.03
    power = [np.abs(np.fft.rfft2(image[..., 0])) for image in (one, other)]
    bands = [[p[a:b, a:b].mean() for a, b in ((2, 6), (8, 16), (20, 40))] for p in power]
    np.testing.assert_allclose(bands[0], bands[1], rtol=0.35)


@pytest.mark.parametrize("kind", KINDS)
def test_a_creature_is_one_connected_shape(kind):
    for seed in range(6):
        creature = draw_creature(np.random.default_rng(seed), kind, 0.5, 0.5, 0.5)
        mask = (creature.share(160, 0.0) > 0.5).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask)
        assert stats[1:, cv2.CC_STAT_AREA].max() > 0.97 * mask.sum()


def test_measures_of_a_known_object_are_what_they_should_be():
    rng = np.random.default_rng(0)
    grey = rng.normal(100, 10, (80, 80)).astype(np.float32)
    disc = Contour(0.5, 0.5, 0.2, 0.2, 0.0, ())
    levels, _ = disc.levels(80, (slice(0, 80), slice(0, 80)))
    mask = levels < 1
    grey[mask] += 30
    item = measure_mask("thing", mask, grey, np.ones_like(mask), overlap=0.25)
    assert item.contrast == pytest.approx(30, abs=2) and item.cnr == pytest.approx(3, abs=0.4)
    assert item.box == (24, 24, 56, 56) and item.area == mask.sum() and item.overlap == 0.25
    assert item.boundary > 1.5 and item.d_prime < 0.2


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_outcome_does_not_hang_on_global_random_state(domain):
    once = partial(make, domain, "medium", 3)
    first = once().image
    np.random.seed(1)
    assert np.array_equal(first, once().image)
