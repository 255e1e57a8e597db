"""A converted data set says the same as its source, in a form that common tools read."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from data_files import HEIGHT, WIDTH, write_image
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

from ulga_d2.data.convert import convert
from ulga_d2.data.custom import custom_splits, load_custom
from ulga_d2.data.formats.coco import read_coco
from ulga_d2.data.formats.images import UNLIKE_MASK
from ulga_d2.data.formats.voc import read_image_set, read_voc
from ulga_d2.data.formats.yolo import read_yolo
from ulga_d2.data.image import read_image
from ulga_d2.data.intensity import FULL_RANGE
from ulga_d2.data.record import Box, LoadedSplit, make_record
from ulga_d2.data.report import DataReport
from ulga_d2.errors import UserError

CLASSES = ("ring", "none")
BOXES = ((4.0, 2.5, 12.25, 12.0), (0.0, 0.0, 40.0, 20.0))


def mask() -> dict:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    pixels[3:9, 5:11] = 1
    return run_lengths.encode(pixels)


def split_of(
    folder: Path, names: tuple[str, ...], *, crowd: bool = False, masks: bool = False
) -> LoadedSplit:
    """Return a split of 40 x 20 images; all but the last have a box of each class."""
    report = DataReport.for_classes(CLASSES)
    records = []
    for name in names:
        path = folder / name
        write_image(path)
        boxes = [
            Box(box, number, str(path), int(crowd and number), mask() if masks else None)
            for number, box in enumerate(BOXES if name != names[-1] else ())
        ]
        report.found_images += 1
        report.found_boxes += len(boxes)
        record = make_record(
            file_name=str(path),
            image_id=name,
            size=(HEIGHT, WIDTH),
            boxes=boxes,
            class_names=CLASSES,
            report=report,
        )
        records.append(record)
    return LoadedSplit(records, CLASSES, report)


def splits_of(folder: Path, **options: bool) -> dict[str, LoadedSplit]:
    return {
        "train": split_of(folder / "t", ("a/one.png", "b/one.png", "c.png"), **options),
        "val": split_of(folder / "v", ("x.png", "y.png"), **options),
    }


def same_records(ours: list[dict], source: list[dict]) -> None:
    assert len(ours) == len(source)
    for mine, other in zip(ours, source, strict=True):
        assert (mine["height"], mine["width"]) == (other["height"], other["width"])
        for one, two in zip(mine["annotations"], other["annotations"], strict=True):
            assert one["category_id"] == two["category_id"]
            np.testing.assert_allclose(one["bbox"], two["bbox"], atol=1e-4)
        left, right = (Path(record["file_name"]).read_bytes() for record in (mine, other))
        assert left == right


def test_coco_is_read_back_by_us_by_pycocotools_and_by_detectron2(tmp_path):
    splits = splits_of(tmp_path, masks=True)
    assert convert("set", splits, tmp_path / "out", "coco", FULL_RANGE) == {"train": 0, "val": 0}
    for split, loaded in splits.items():
        file, images = tmp_path / f"out/annotations/{split}.json", tmp_path / "out/images" / split
        again = read_coco(file, images)
        assert again.class_names == CLASSES
        # The made-up masks are smaller than their boxes.
        assert set(again.report.reasons) == {UNLIKE_MASK}
        same_records(again.records, loaded.records)
        content = COCO(str(file))
        count = loaded.report.boxes.total()
        assert sorted(content.anns) == list(range(1, count + 1))
        assert sorted(content.imgs) == list(range(1, len(loaded.records) + 1))
        assert sorted(content.cats) == [1, 2]
        for annotation in content.anns.values():
            assert annotation["iscrowd"] == 0
            assert annotation["area"] == 36.0
            assert content.annToMask(annotation).sum() == 36
        theirs = load_coco_json(str(file), str(images))
        for record in theirs:
            for item in record["annotations"]:
                item["bbox"] = BoxMode.convert(item["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
                item["category_id"] -= 1
        same_records(theirs, loaded.records)


def test_yolo_is_read_back(tmp_path):
    splits = splits_of(tmp_path)
    convert("set", splits, tmp_path / "out", "yolo", FULL_RANGE)
    for split, loaded in splits.items():
        out = tmp_path / "out"
        again = read_yolo(out / "images" / split, out / "labels" / split, out / "data.yaml")
        assert again.class_names == CLASSES and not again.report.reasons
        same_records(again.records, loaded.records)
    assert (tmp_path / "out/labels/val/y.txt").read_text() == ""


def test_voc_has_corners_from_one_and_a_list_a_split(tmp_path):
    splits = splits_of(tmp_path)
    convert("set", splits, tmp_path / "out", "voc", FULL_RANGE)
    out, lists = tmp_path / "out", tmp_path / "out/ImageSets/Main"
    assert (lists / "train.txt").read_text() == "a/one\nb/one\nc\n"
    assert (lists / "val.txt").read_text() == "x\ny\n"
    root = ElementTree.parse(tmp_path / "out/Annotations/a/one.xml").getroot()
    assert root.findtext("filename") == "a/one.png"
    assert [root.findtext(f"size/{key}") for key in ("width", "height")] == ["40", "20"]
    corners = [[float(value.text) for value in box] for box in root.iter("bndbox")]
    assert corners == [[5.0, 3.5, 12.25, 12.0], [1.0, 1.0, 40.0, 20.0]]
    assert [item.findtext("name") for item in root.iter("object")] == ["ring", "none"]
    for split, loaded in splits.items():
        names = read_image_set(lists / f"{split}.txt")
        again = read_voc(out / "Annotations", out / "JPEGImages", names, CLASSES)
        assert not again.report.reasons
        same_records(again.records, loaded.records)


def test_boxes_around_groups_stay_in_coco_alone(tmp_path):
    splits = splits_of(tmp_path, crowd=True)
    assert convert("set", splits, tmp_path / "coco", "coco", FULL_RANGE) == {"train": 0, "val": 0}
    content = json.loads((tmp_path / "coco/annotations/val.json").read_text())
    assert [item["iscrowd"] for item in content["annotations"]] == [0, 1]
    assert convert("set", splits, tmp_path / "yolo", "yolo", FULL_RANGE) == {"train": 2, "val": 1}
    assert (tmp_path / "yolo/labels/val/x.txt").read_text().count("\n") == 1


def test_what_other_tools_would_show_differently_becomes_a_png(tmp_path):
    split = split_of(tmp_path / "t", ("a.jpg", "deep.png", "last.png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(np.arange(800, dtype=np.uint8).reshape(40, 20) // 4)
    picture.save(tmp_path / "t/a.jpg", exif=exif, quality=95)
    convert("set", {"train": split}, tmp_path / "out", "yolo", FULL_RANGE)
    images = tmp_path / "out/images/train"
    assert sorted(path.name for path in images.iterdir()) == ["a.png", "deep.png", "last.png"]
    source = read_image(str(tmp_path / "t/a.jpg"))
    assert source.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(read_image(str(images / "a.png")), source)


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_two_images_of_one_name_are_refused_before_anything_is_written(tmp_path, to):
    splits = {
        "train": split_of(tmp_path / "t", ("x.png", "x.jpg")),
        "val": split_of(tmp_path / "v", ("y.png",)),
    }
    with pytest.raises(UserError, match=r"x.png and .*x.jpg would both become .*x; rename one"):
        convert("set", splits, tmp_path / "out", to, FULL_RANGE)
    assert not (tmp_path / "out").exists()


def test_voc_refuses_one_name_in_two_splits(tmp_path):
    splits = {split: split_of(tmp_path / split, ("x.png",)) for split in ("train", "val")}
    with pytest.raises(UserError, match="or convert to coco or yolo"):
        convert("set", splits, tmp_path / "out", "voc", FULL_RANGE)
    convert("set", splits, tmp_path / "out", "yolo", FULL_RANGE)


def test_an_image_that_stands_twice_and_a_folder_in_use_are_refused(tmp_path):
    split = split_of(tmp_path / "t", ("x.png", "y.png"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not an empty folder"):
        convert("set", {"train": split}, tmp_path / "out", "coco", FULL_RANGE)
    split.records.append(split.records[0])
    with pytest.raises(UserError, match="stands twice in the split"):
        convert("set", {"train": split}, tmp_path / "new", "coco", FULL_RANGE)


def test_splits_of_different_classes_are_refused(tmp_path):
    one, other = split_of(tmp_path / "t", ("x.png",)), split_of(tmp_path / "v", ("y.png",))
    other = LoadedSplit(other.records, ("ring", "star"), other.report)
    with pytest.raises(UserError, match="different class names"):
        convert("set", {"train": one, "val": other}, tmp_path / "out", "coco", FULL_RANGE)


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_the_copy_is_a_data_set_of_its_own(tmp_path, to):
    splits = splits_of(tmp_path, masks=True)
    convert("set", splits, tmp_path / "out", to, FULL_RANGE)
    description = tmp_path / "out/dataset.yaml"
    assert custom_splits(description) == (f"set_{to}", ("train", "val"))
    for split, loaded in splits.items():
        again = load_custom(description, split)
        assert again.class_names == CLASSES
        assert set(again.report.reasons) == ({UNLIKE_MASK} if to == "coco" else set())
        same_records(again.records, loaded.records)
        masked = [
            item for r in again.records for item in r["annotations"] if "segmentation" in item
        ]
        assert len(masked) == (loaded.report.boxes.total() if to == "coco" else 0)


def test_boxes_that_do_not_read_back_are_an_error(tmp_path, monkeypatch):
    splits = splits_of(tmp_path)
    monkeypatch.setattr("ulga_d2.data.formats.write_yolo.DECIMALS", 0)
    with pytest.raises(UserError, match=r"3 images and \d boxes read back, of 3 and 4"):
        convert("set", splits, tmp_path / "out", "yolo", FULL_RANGE)


def test_a_split_without_images_is_refused(tmp_path):
    empty = LoadedSplit([], CLASSES, DataReport.for_classes(CLASSES))
    with pytest.raises(UserError, match="nothing to convert"):
        convert("set", {"train": empty}, tmp_path / "out", "coco", FULL_RANGE)
