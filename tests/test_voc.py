"""The VOC reader: corners from one, what it accepts, mends, drops and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotation_files import VOC_CORNERS, voc_file, voc_object, write_voc_set
from data_files import HEIGHT, WIDTH, boxes_of

from ulga_d2.data.formats.voc import read_image_set, read_voc
from ulga_d2.data.formats.write_voc import write_voc
from ulga_d2.data.record import EMPTIED, LoadedSplit
from ulga_d2.errors import UserError


def read(root: Path, **options: object) -> LoadedSplit:
    return read_voc(root / "Annotations", root / "JPEGImages", **options)


def test_corners_are_pixels_from_one_and_inclusive(tmp_path):
    corners = (VOC_CORNERS, (1, 1, 1, 20), (1, 1, WIDTH, HEIGHT), ("2.5", 1, "3.25", "4"))
    write_voc_set(tmp_path, a=voc_file(*(voc_object(corners=c) for c in corners)))
    loaded = read(tmp_path)
    assert boxes_of(loaded.records[0]) == [
        [4, 2, 12, 12],
        [0, 0, 1, 20],
        [0, 0, WIDTH, HEIGHT],
        [1.5, 0, 3.25, 4],
    ]
    assert not loaded.report.reasons


def test_what_we_write_is_read_back_to_the_last_digit(tmp_path):
    corners = ((5.25, 3, 12, 12), (4, 2, 4, 9), (30.5, 7, 40, 20))
    write_voc_set(tmp_path, a=voc_file(*(voc_object(corners=c) for c in corners)), b=voc_file())
    source = read(tmp_path)
    names = {record["file_name"]: Path(record["file_name"]).name for record in source.records}
    out = tmp_path / "out"
    write_voc(out, out / "train.txt", source.records, names, source.class_names)
    listed = read_image_set(out / "train.txt")
    again = read_voc(out, tmp_path / "JPEGImages", listed, source.class_names)
    assert [boxes_of(r) for r in again.records] == [boxes_of(r) for r in source.records]


def test_the_classes_of_a_folder_are_those_of_every_split(tmp_path):
    write_voc_set(tmp_path, a=voc_file(voc_object("ring")), b=voc_file(voc_object("dot")))
    loaded = read(tmp_path, names=["a"])
    assert loaded.class_names == ("dot", "ring")
    assert [record["image_id"] for record in loaded.records] == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", r"a\.xml: not valid XML \(no element found"),
        ("<html></html>", r"a\.xml: not a VOC file"),
        ("", r"not valid XML"),
        (b"\xff\xfe<\0a\0", r"not a text file"),
        (
            '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>',
            r"document types and entities are not read",
        ),
        (
            voc_file("<object><name>ring</name></object>"),
            r"object 1: xmin is empty; write the number",
        ),
        (voc_file(voc_object(), voc_object("")), r"a\.xml, object 2: has no name; write its class"),
        (
            voc_file(voc_object(corners=(1, "2,5", 3, 4))),
            r"ymin '2,5' is not a number; write a decimal",
        ),
        (
            voc_file(voc_object(corners=(9, 2, 4, 9))),
            r"the last corner \(4, 9\) lies before the first",
        ),
        (voc_file(voc_object("dot")), r"unknown classes 'dot' \(1 boxes\); there are ring"),
        (voc_file(size=(WIDTH, HEIGHT)), r"says height 40 and width 20, but .*are swapped"),
        (voc_file(size=("x", 40)), r"height and width are x and 40, not whole numbers"),
        (voc_file(size=(-20, 40)), r"height and width are -20 and 40, not whole numbers"),
        (voc_file(voc_object(corners=("nan", 9, 7, 12))), r"object 1: xmin is empty"),
        (voc_file(voc_object(corners=("inf", 9, 7, 12))), r"xmin 'inf' is not a number"),
    ],
)
def test_faulty_files_stop_with_the_object_and_the_cure(tmp_path, text, message):
    write_voc_set(tmp_path, a=text)
    with pytest.raises(UserError, match=message):
        read(tmp_path, class_names=("ring",))


@pytest.mark.parametrize(
    ("corners", "boxes", "reason"),
    [
        ((7, 9, 7, 9), [], "boxes without area dropped"),
        ((7, 9, 6, 12), [], "boxes without area dropped"),
        ((50, 2, 60, 9), [], "boxes outside the image dropped"),
        ((0, 1, 10, 10), [[0, 0, 10, 10]], "boxes clipped to the image"),
    ],
)
def test_single_bad_boxes_are_mended_or_dropped_and_counted(tmp_path, corners, boxes, reason):
    write_voc_set(tmp_path, a=voc_file(voc_object(corners=corners)))
    loaded = read(tmp_path)
    assert [boxes_of(record) for record in loaded.records] == ([boxes] if boxes else [])
    assert loaded.report.reasons == {reason: 1} | ({} if boxes else {EMPTIED: 1})
    assert loaded.report.places[reason][0].endswith("a.xml, object 1")


@pytest.mark.parametrize("size", [(0, 0), ("", "")])
def test_a_size_that_is_not_given_is_not_compared(tmp_path, size):
    write_voc_set(tmp_path, a=voc_file(voc_object(), size=size))
    assert len(read(tmp_path).records) == 1


def test_the_image_is_the_one_of_the_files_name_and_else_of_filename(tmp_path):
    write_voc_set(tmp_path, a=voc_file(voc_object(), file="b.png"), b=voc_file())
    assert [Path(record["file_name"]).name for record in read(tmp_path).records] == [
        "a.png",
        "b.png",
    ]
    (tmp_path / "JPEGImages" / "a.png").rename(tmp_path / "JPEGImages" / "other.png")
    write_voc_set(tmp_path, a=voc_file(voc_object(), file=r"E:\scans\other.png"))
    (tmp_path / "JPEGImages" / "a.png").unlink()
    assert Path(read(tmp_path).records[0]["file_name"]).name == "other.png"


def test_few_missing_files_are_dropped_and_many_refused(tmp_path):
    names = [f"i{number}" for number in range(200)]
    write_voc_set(tmp_path, **dict.fromkeys(names, voc_file(voc_object())))
    (tmp_path / "Annotations" / "i7.xml").unlink()
    (tmp_path / "JPEGImages" / "i8.png").unlink()
    loaded = read(tmp_path, names=[*names, "i9"])
    assert len(loaded.records) == 198
    assert loaded.report.reasons == {
        "images listed twice read once": 1,
        "listed images without annotation file dropped": 1,
        "images that do not exist dropped with their boxes": 1,
    }
    assert loaded.report.found_images == 200
    with pytest.raises(UserError, match=r"2 listed images have no annotation file .*: x, y; rest"):
        read(tmp_path, names=["i1", "x", "y"])
    with pytest.raises(UserError, match="holds no XML files"):
        read_voc(tmp_path / "JPEGImages", tmp_path / "JPEGImages")


def test_an_image_that_cannot_be_read_is_one_too_many_in_a_small_set(tmp_path):
    write_voc_set(tmp_path, a=voc_file(voc_object()))
    (tmp_path / "JPEGImages" / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"missing or unreadable, .*a\.png cannot be decoded"):
        read(tmp_path)


def test_a_list_of_one_class_is_no_list_of_images(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("\ufeffa\r\nval_1 (117)\r\n\r\n", encoding="utf-8")
    assert read_image_set(path) == ["a", "val_1 (117)"]
    path.write_text("a  1\nb -1\n")
    with pytest.raises(UserError, match="of one class with a flag .* such as train.txt"):
        read_image_set(path)
    path.write_text("\n")
    with pytest.raises(UserError, match="lists no image"):
        read_image_set(path)
