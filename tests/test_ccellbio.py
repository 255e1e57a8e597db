"""CCellBio: the layout that is ours, and the VOC tree of its stand-in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_files import boxes_of, coco_content, write_image

from ulga_d2.data.ccellbio import load_ccellbio
from ulga_d2.errors import UserError

XML = """<annotation><filename>{0}.jpg</filename>
<size><width>40</width><height>20</height><depth>3</depth></size>
<object><name>{1}</name><bndbox><xmin>3</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>
</object></annotation>"""


def write_coco_tree(root: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        write_image(root / "val" / name)
    (root / "annotations").mkdir()
    (root / "annotations" / "val.json").write_text(json.dumps(coco_content()))
    return root


def write_voc_tree(root: Path) -> Path:
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for name, label in (("a", "WBC"), ("b", "RBC")):
        write_image(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_text(XML.format(name, label))
    (root / "ImageSets/Main/train.txt").write_text("a\n")
    (root / "ImageSets/Main/val.txt").write_text("b\n")
    return root


def test_images_by_split_with_one_coco_file_each_are_read(tmp_path):
    loaded = load_ccellbio(write_coco_tree(tmp_path), "val")
    assert loaded.class_names == ("label0", "label1")
    assert [Path(record["file_name"]).parent.name for record in loaded.records] == ["val", "val"]
    assert boxes_of(loaded.records[0]) == [[4, 2, 12, 12]]


def test_a_voc_tree_gives_all_splits_the_same_classes(tmp_path):
    write_voc_tree(tmp_path)
    train, val = (load_ccellbio(tmp_path, split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("RBC", "WBC")
    assert [record["image_id"] for record in train.records + val.records] == ["a", "b"]


def test_neither_or_both_trees_are_refused_with_what_is_expected(tmp_path):
    with pytest.raises(UserError, match=r"does not exist.*ulga sample ccellbio"):
        load_ccellbio(tmp_path / "ccellbio", "val")
    with pytest.raises(UserError, match=r"val split in neither tree; .*\n.*\(COCO\)\n.*Pascal VOC"):
        load_ccellbio(tmp_path, "val")
    write_voc_tree(write_coco_tree(tmp_path))
    with pytest.raises(UserError, match=r"val split in both trees"):
        load_ccellbio(tmp_path, "val")
