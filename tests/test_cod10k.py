"""COD10K: both releases and the nested copy in, records with masks out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cod10k_files import FISH, OTHERS, SCENE_BOXES, SIZE, save, scene, stems_of, write, write_json
from data_files import boxes_of
from pycocotools import mask as run_lengths

from ulga_d2.data.cod10k import SHARES, load_cod10k
from ulga_d2.data.cod10k_names import SUB_CLASSES, parse_name
from ulga_d2.data.options import DatasetOptions
from ulga_d2.data.release import SAMPLE_FILE, UNLIKE_RELEASE
from ulga_d2.data.split import split_of
from ulga_d2.errors import UserError


@pytest.mark.parametrize("nested", [False, True])
def test_the_second_release_is_read_in_both_trees(tmp_path, nested):
    stems = stems_of("train", 3)
    loaded = load_cod10k(write(tmp_path / "COD10K-v2", stems, nested=nested).parent, "train")
    assert loaded.class_names == ("foreground",)
    assert [record["image_id"] for record in loaded.records] == sorted(stems)
    for record in loaded.records:
        assert sorted(boxes_of(record)) == SCENE_BOXES
        for item in record["annotations"]:
            assert item["category_id"] == 0
            assert run_lengths.toBbox(item["segmentation"])[:2].tolist() == item["bbox"][:2]


def test_train_and_val_part_the_official_training_images(tmp_path):
    stems = [FISH.format(n) for n in range(1, 31)]
    write(tmp_path, stems)
    write(tmp_path, [FISH.format(99)], part="Test")
    ids = {s: {r["image_id"] for r in load_cod10k(tmp_path, s).records} for s in SHARES}
    assert ids["train"] | ids["val"] == set(stems) and not ids["train"] & ids["val"]
    test = load_cod10k(tmp_path, "test")
    assert [record["image_id"] for record in test.records] == [FISH.format(99)]


def test_sixty_nine_classes_go_by_the_number_in_the_name(tmp_path):
    (fish,) = stems_of("train", 1)
    (toad,) = stems_of("train", 1, "COD10K-CAM-4-Amphibian-68-TOAD-{}")
    (odd,) = stems_of("train", 1, "COD10K-CAM-2-Terrestrial-23-Dog-{}")
    write(tmp_path, [fish, toad, odd])
    loaded = load_cod10k(tmp_path, "train", DatasetOptions(cod10k_classes=69))
    assert len(loaded.class_names) == 69 == len(set(SUB_CLASSES))
    names = {
        record["image_id"]: {loaded.class_names[a["category_id"]] for a in record["annotations"]}
        for record in loaded.records
    }
    assert names == {fish: {"batFish"}, toad: {"toad"}, odd: {"cat"}}
    reason = "names that differ from their number's sub-class; the number counts"
    assert loaded.report.reasons == {reason: 1}


def test_images_without_camouflage_are_dropped_or_kept(tmp_path):
    (stem,) = stems_of("train", 1)
    others = [name for name in OTHERS if split_of(name, SHARES) == "train"]
    assert others and all(not parse_name(name).is_camouflaged for name in OTHERS)
    write(tmp_path, [stem, *OTHERS])
    assert len(load_cod10k(tmp_path, "train").records) == 1
    kept = load_cod10k(tmp_path, "train", DatasetOptions(cod10k_noncam=True))
    assert {r["image_id"] for r in kept.records if not r["annotations"]} == set(others)


def test_without_instances_the_parts_of_the_object_mask_count(tmp_path):
    (stem,) = stems_of("train", 1)
    write(tmp_path, [stem])
    (tmp_path / "Train/GT_Instance" / f"{stem}.png").unlink()
    loaded = load_cod10k(tmp_path, "train")
    assert sorted(boxes_of(loaded.records[0])) == [[5, 50, 12, 55], [20, 10, 70, 40]]
    assert loaded.report.reasons == {"images with connected parts for want of an instance mask": 1}


def spoil(root: Path, stem: str, fault: str) -> None:
    image, *masks = (
        root / "Train" / kind / f"{stem}.{suffix}"
        for kind, suffix in (("Image", "jpg"), ("GT_Instance", "png"), ("GT_Object", "png"))
    )
    if fault == "no image":
        image.unlink()
    if fault == "bad image":
        image.write_bytes(b"no image")
    for mask in masks:
        if fault == "no mask":
            mask.unlink()
        elif fault == "empty":
            save(mask, np.zeros((*SIZE, 3), np.uint8))
        elif fault == "size":
            save(mask, scene()[:-1])
        elif fault == "damaged":
            mask.write_bytes(mask.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("no image", "masks without an image dropped"),
        ("bad image", "images that cannot be read dropped with their boxes"),
        ("no mask", "images without a mask dropped"),
        ("empty", "camouflaged images with an empty mask dropped"),
        ("size", "images with a mask of another size dropped"),
        ("damaged", "images with a mask that cannot be read dropped"),
    ],
)
def test_a_pair_that_does_not_fit_is_dropped_and_counted_and_many_are_refused(
    tmp_path, fault, reason
):
    stems = stems_of("train", 110)
    write(tmp_path, stems)
    spoil(tmp_path, stems[0], fault)
    loaded = load_cod10k(tmp_path, "train")
    assert len(loaded.records) == 109 and loaded.report.reasons == {reason: 1}
    spoil(tmp_path, stems[1], fault)
    with pytest.raises(UserError, match=r"2 images and masks .*, of 110 \(more than 1 %\)"):
        load_cod10k(tmp_path, "train")


def test_the_third_releases_json_goes_before_its_masks(tmp_path):
    stems = stems_of("train", 2)
    write_json(write(tmp_path, stems), stems)
    loaded = load_cod10k(tmp_path, "train", DatasetOptions(cod10k_classes=69))
    assert loaded.report.boxes["batFish"] == 2 and not loaded.report.reasons
    (item,) = loaded.records[0]["annotations"]
    assert item["bbox"] == [5, 6, 25, 16]
    assert run_lengths.area(item["segmentation"]) == 200


def test_a_bad_mask_in_the_json_is_left_out_and_its_box_stays(tmp_path):
    stems = stems_of("train", 1)
    write_json(write(tmp_path, stems), stems, segmentation=[[1, 2]])
    loaded = load_cod10k(tmp_path, "train")
    (item,) = loaded.records[0]["annotations"]
    assert "segmentation" not in item
    assert loaded.report.reasons == {"masks that cannot be used left out": 1}


def test_masks_are_read_once(tmp_path, monkeypatch):
    stems = stems_of("train", 2)
    write(tmp_path, stems)
    first = load_cod10k(tmp_path, "train").records
    monkeypatch.setattr("ulga_d2.data.instance_masks._read", lambda path: pytest.fail(path))
    assert load_cod10k(tmp_path, "train").records == first


def test_counts_unlike_the_releases_are_noted(tmp_path):
    write(tmp_path, stems_of("train", 1))
    (tmp_path / SAMPLE_FILE).unlink()
    places = load_cod10k(tmp_path, "train").report.places
    assert places[UNLIKE_RELEASE] == ["camouflaged images in Train: 1 here, 3,040 there"]


def test_wrong_trees_and_names_are_refused_with_the_cure(tmp_path):
    with pytest.raises(UserError, match=r"does not exist.*ulga sample cod10k"):
        load_cod10k(tmp_path / "cod10k", "train")
    with pytest.raises(UserError, match=r"folder Train must stand once, but is nowhere in"):
        load_cod10k(tmp_path, "train")
    (tmp_path / "Train").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        load_cod10k(tmp_path, "train")
    write(tmp_path, ["COD10K-CAM-1-Aquatic-70-Whale-1"])
    with pytest.raises(UserError, match=r"1 files .* no name of the release .*Whale-1; move them"):
        load_cod10k(tmp_path, "train")
