"""The COCO reader: what it accepts, mends, drops and refuses."""

from __future__ import annotations

import pytest
from data_files import (
    HEIGHT,
    WIDTH,
    boxes_of,
    coco_content,
    write_coco,
    write_image,
)
from PIL import Image

from ulga_d2.data.brain_tumor import load_brain_tumor
from ulga_d2.data.record import EMPTIED
from ulga_d2.errors import UserError


def edited(**changes: object) -> dict:
    """Return the sound content with entries replaced: `annotations__0__bbox=[1]`."""
    content = coco_content()
    for path, value in changes.items():
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("__"))
        target = content
        for part in parents:
            target = target[part]
        target[last] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [\n}', r"line 2: not valid JSON"),
        ("[" * 100_000, r"not valid JSON .*recursion"),
        ("[]", r"no list 'images'"),
        ({"images": [], "annotations": {}, "categories": []}, r"no list 'annotations'"),
        (edited(images__0__id=""), r"image number 0: has no id, a whole number or text; add one"),
        (edited(images__0__id=1.5), r"image number 0: has no id"),
        (edited(images__0__id=True), r"image number 0: has no id"),
        (edited(images__1__id="7"), r"image 7: this id stands twice"),
        (edited(images__1__id=7), r"image 7: this id stands twice; renumber the ids"),
        (edited(images__0__file_name=None), r"image 7: has no file_name"),
        (edited(annotations__0=[]), r"annotation number 0: has no id, a whole number or text"),
        (edited(annotations__0__image_id=8), r"annotation 1: image_id 8 is no image of the file"),
        (edited(annotations__0__image_id=[]), r"image_id '\[\]' is neither a whole number nor"),
        (edited(annotations__0__category_id=5), r"without an entry in 'categories': 5 \(1 boxes\)"),
        (edited(annotations__0__bbox=[1, 2, 3]), r"bbox \[1, 2, 3\] is not a list of four"),
        (edited(annotations__0__bbox=[1, 2, 3, "4,5"]), r"height '4,5' is not a number; write a d"),
        (edited(annotations__0__bbox=[1, 2, 3, True]), r"height 'True' is not a number"),
        (
            edited(annotations__0__bbox=[1, 2, 3, float("nan")]),
            r"annotation 1: bbox .*height 'nan'",
        ),
        (edited(annotations__0__bbox=[1, 2, 3, float("inf")]), r"height 'inf' is not a number"),
        (edited(annotations__0__bbox=[1, 2, 3, None]), r"height is empty; write the number"),
        (edited(annotations__0__bbox=[]), r"bbox \[\] is not a list of four numbers"),
        (edited(annotations__0__bbox=0), r"bbox 0 is not a list of four numbers"),
        (edited(annotations__0__bbox=[1, 2, 3, 10**400]), r"is not a list of four numbers"),
        (edited(categories__1__name="label0"), r"no name twice"),
        (edited(categories__1__name=3), r"category 2: has no name"),
        (
            edited(images__0__width=HEIGHT, images__0__height=WIDTH),
            r"image 7: says height 40 and width 20, but .*a\.jpg has 20 and 40 \(height and width "
            r"are swapped\); correct the entry",
        ),
        (edited(images__0__width=41), r"says height 20 and width 41, but .* has 20 and 40; corr"),
    ],
)
def test_faulty_coco_files_stop_with_the_record_and_the_cure(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        load_brain_tumor(write_coco(tmp_path, content), "train")


@pytest.mark.parametrize(
    ("bbox", "boxes", "reason"),
    [
        ([4, 2, 0, 5], [], "boxes without area dropped"),
        ([4, 2, -3, 5], [], "boxes without area dropped"),
        ([50, 2, 3, 5], [], "boxes outside the image dropped"),
        ([-2, -2, 12, 12], [[0, 0, 10, 10]], "boxes clipped to the image"),
    ],
)
def test_single_bad_coco_boxes_are_mended_or_dropped(tmp_path, bbox, boxes, reason):
    content = edited(annotations__0__bbox=bbox)
    loaded = load_brain_tumor(write_coco(tmp_path, content), "train")
    assert boxes_of(loaded.records[0]) == boxes
    assert len(loaded.records) == 1 + bool(boxes)  # the second image has no box from the start
    assert loaded.report.reasons == {reason: 1} | ({} if boxes else {EMPTIED: 1})
    assert loaded.report.places[reason][0].endswith("_annotations.coco.json, annotation 1")


def category(key: int, name: str, parent: str) -> dict:
    return {"id": key, "name": name, "supercategory": parent}


@pytest.mark.parametrize(
    ("categories", "names"),
    [
        # A parent that owns a box is a class.
        ([category(2, "tumor", "none"), category(3, "glioma", "tumor")], ("tumor", "glioma")),
        # A class without boxes that is nobody's parent is a class.
        ([category(2, "tumor", "none"), category(3, "glioma", "none")], ("tumor", "glioma")),
        # Roboflow's export of a single class repeats its name.
        ([category(0, "tumor", "none"), category(2, "tumor", "tumor")], ("tumor",)),
    ],
)
def test_a_category_is_dropped_only_as_a_parent_without_boxes(tmp_path, categories, names):
    content = coco_content() | {"categories": categories}
    assert load_brain_tumor(write_coco(tmp_path, content), "train").class_names == names


def test_crowd_boxes_are_kept_as_such(tmp_path):
    loaded = load_brain_tumor(write_coco(tmp_path, edited(annotations__0__iscrowd=1)), "train")
    assert loaded.records[0]["annotations"][0]["iscrowd"] == 1


def test_few_missing_images_are_dropped_and_many_refused(tmp_path):
    content = coco_content()
    content["images"] += [{"id": 100 + n, "file_name": f"{n}.jpg"} for n in range(99)]
    write_coco(tmp_path, content)
    for number in range(98):
        write_image(tmp_path / "train" / f"{number}.jpg")
    loaded = load_brain_tumor(tmp_path, "train")
    assert len(loaded.records) == 100
    assert loaded.report.reasons == {"images that do not exist dropped with their boxes": 1}
    (tmp_path / "train" / "97.jpg").unlink()
    with pytest.raises(
        UserError, match=r"2 images that .* names are missing or unreadable, of 101 .*97\.jpg"
    ):
        load_brain_tumor(tmp_path, "train")


def test_an_image_turned_by_exif_counts_when_its_stated_size_is_unturned(tmp_path):
    write_coco(tmp_path, coco_content())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "train" / "a.jpg", exif=exif)
    loaded = load_brain_tumor(tmp_path, "train")
    assert (loaded.records[0]["height"], loaded.records[0]["width"]) == (WIDTH, HEIGHT)
    assert loaded.report.reasons == {"images turned by EXIF though their size is given unturned": 1}
