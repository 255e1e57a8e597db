"""The VOC reader: corners from one, what it accepts, mends, drops and refuses."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from annotation_files import VOC_CORNERS, voc_file, voc_object, write_voc_set
from data_files import HEIGHT, WIDTH, boxes_of, write_image

from ulga_d2.data.formats.listed import CUT, TWICE
from ulga_d2.data.formats.voc import BY_FILENAME, FEW_ZEROS, FROM_ZERO, read_image_set, read_voc
from ulga_d2.data.formats.voc_file import (
    DIFFICULT,
    FURTHER_BOXES,
    MAX_BYTES,
    MISDECLARED,
    ROTATED_BOXES,
)
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
        (b"\xff\xfe<\0a\0", r"not valid XML"),
        (b"<annotation>\0</annotation>", r"is not a text file"),
        (
            '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>',
            r"document types and entities are not read",
        ),
        (
            voc_file("<object><name>ring</name></object>"),
            r"object 1: has no <bndbox>; write its box or delete the object",
        ),
        (voc_file(voc_object(corners=(1, "", 3, 4))), r"object 1: ymin is empty; write the number"),
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
        ((-1, 1, 10, 10), [[0, 0, 10, 10]], "boxes clipped to the image"),
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


def test_the_suffix_of_filename_tells_an_image_from_its_mask(tmp_path):
    names = ("a", "b", "c")
    write_voc_set(tmp_path, **{name: voc_file(voc_object(), file=f"{name}.tif") for name in names})
    for name in names:
        write_image(tmp_path / "JPEGImages" / f"{name}.tif")
    loaded = read(tmp_path)  # a.png, ... are the masks
    assert [Path(r["file_name"]).name for r in loaded.records] == ["a.tif", "b.tif", "c.tif"]
    assert not loaded.report.reasons
    (tmp_path / "JPEGImages" / "c.tif").unlink()
    with pytest.raises(UserError, match=r"missing .*c\.tif; did you mean c\.png\?"):
        read(tmp_path)


def test_filename_is_looked_for_in_the_folder_of_the_xml_file_first(tmp_path):
    root = write_voc_set(tmp_path, a=voc_file(voc_object()))
    folder = root / "JPEGImages"
    for name in ("0.png", "train/0.png", "1.png", "sub/2.png", "3.png"):
        write_image(folder / name)
    (root / "Annotations" / "train").mkdir()
    given = {"x0": "0.png", "x1": "1.png", "x2": "sub\\2.png", "x3": "E:/old/3.png"}
    for stem, name in given.items():
        text = voc_file(voc_object(), file=name)
        (root / "Annotations" / "train" / f"{stem}.xml").write_text(text)
    loaded = read(tmp_path)
    files = [Path(r["file_name"]).relative_to(folder).as_posix() for r in loaded.records]
    assert files == ["a.png", "train/0.png", "1.png", "sub/2.png", "3.png"]
    assert loaded.report.reasons == {BY_FILENAME: 4}


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


def test_corners_of_zero_prove_that_pixels_are_counted_from_zero(tmp_path):
    first, second = (0, 0, 10, 10), (5, 3, 12, 12)
    write_voc_set(tmp_path, a=voc_file(voc_object(corners=first)), b=voc_file(voc_object()))
    loaded = read(tmp_path)
    assert [boxes_of(record) for record in loaded.records] == [[[*first]], [[*second]]]
    assert loaded.report.reasons == {FROM_ZERO: 1}
    # The list of one split makes no difference: the folder counts.
    assert boxes_of(read(tmp_path, names=["b"]).records[0]) == [[*second]]


@pytest.mark.parametrize(
    ("base", "boxes", "reasons"),
    [
        (0, [[0, 3, 10, 10], [5, 3, 12, 12]], {}),
        (1, [[0, 2, 10, 10], [4, 2, 12, 12]], {"boxes clipped to the image": 1}),
    ],
)
def test_the_number_of_the_first_pixel_can_be_stated(tmp_path, base, boxes, reasons):
    corners = ((0, 3, 10, 10), VOC_CORNERS)
    write_voc_set(tmp_path, a=voc_file(*(voc_object(corners=c) for c in corners)))
    loaded = read(tmp_path, base=base)
    assert boxes_of(loaded.records[0]) == boxes
    assert loaded.report.reasons == reasons


def test_a_corner_of_zero_among_more_corners_of_one_is_listed_alone(tmp_path):
    corners = ((0, 3, 10, 10), (1, 1, 5, 5), (1, 4, 9, 9))
    write_voc_set(tmp_path, a=voc_file(*(voc_object(corners=c) for c in corners)))
    loaded = read(tmp_path)
    assert boxes_of(loaded.records[0]) == [[0, 2, 10, 10], [0, 0, 5, 5], [0, 3, 9, 9]]
    assert loaded.report.reasons == {FEW_ZEROS: 1, "boxes clipped to the image": 1}


def rotated(angle: object, width: object = 8) -> str:
    values = {"cx": 20, "cy": 10, "w": width, "h": 4, "angle": angle}
    box = "".join(f"<{key}>{value}</{key}>" for key, value in values.items())
    return f"<object><type>robndbox</type><name>ring</name><robndbox>{box}</robndbox></object>"


def cvat_rotated(degrees: object) -> str:
    attribute = f"<attribute><name>rotation</name><value>{degrees}</value></attribute>"
    changed = f"<attributes>{attribute}</attributes></object>"
    return voc_object(corners=(16, 8, 24, 12)).replace("</object>", changed)


@pytest.mark.parametrize("write", [rotated, lambda angle: cvat_rotated(math.degrees(angle))])
@pytest.mark.parametrize("angle", [math.pi / 2, math.pi / 6, 2.5])
def test_rotated_boxes_are_named_and_become_the_boxes_around_them(tmp_path, write, angle):
    write_voc_set(tmp_path, a=voc_file(write(angle)))
    loaded = read(tmp_path)
    corners = np.array([(-4, -2), (4, -2), (4, 2), (-4, 2)])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    around = corners @ turn.T + (20, 10)
    expected = [*around.min(axis=0), *around.max(axis=0)]
    np.testing.assert_allclose(loaded.records[0]["annotations"][0]["bbox"], expected, 1e-6)
    assert loaded.report.reasons == {ROTATED_BOXES: 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (rotated(30), r"rotated box \(robndbox\) has an angle of 30, which seems to be in degrees"),
        (rotated("x"), r"angle 'x' is not a number"),
        (rotated(0, width=-3), r"rotated box \(robndbox\) has the size -3 x 4"),
        ("<object><name>a</name><polygon/></object>", r"has a <polygon> but no <bndbox>"),
        (voc_object().replace("<name>", "<name>x</name><name>"), r"has two names; write one class"),
        (
            voc_object().replace("</name>", "</name><difficult>maybe</difficult>"),
            r"difficult is 'maybe', not 0 or 1",
        ),
    ],
)
def test_odd_objects_are_refused_by_name(tmp_path, text, message):
    write_voc_set(tmp_path, a=voc_file(text))
    with pytest.raises(UserError, match=rf"a\.xml, object 1: .*{message}"):
        read(tmp_path)


def test_further_boxes_and_difficult_objects_are_counted(tmp_path):
    box = voc_object().split("</name>")[1].removesuffix("</object>")
    twice = voc_object().replace("</object>", f"{box.replace('5', '6')}</object>")
    hard = voc_object(corners=(1, 1, 9, 9)).replace("</name>", "</name><difficult>1</difficult>")
    write_voc_set(tmp_path, a=voc_file(twice, hard))
    loaded = read(tmp_path)
    assert len(loaded.records[0]["annotations"]) == 2
    assert loaded.report.reasons == {FURTHER_BOXES: 1, DIFFICULT: 1}
    assert (loaded.report.found_boxes, loaded.report.dropped_boxes) == (3, 1)


def test_corners_that_are_fractions_are_refused_with_the_unit(tmp_path):
    objects = [voc_object(corners=c) for c in ((0.1, 0.2, 0.5, 0.9), (0, 0, 1, 1))]
    write_voc_set(tmp_path, a=voc_file(*objects))
    with pytest.raises(UserError, match=r"a\.xml, object 1: .* fractions of the image's size"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("line", "is_cut"),
    [
        ("a", False),
        ("a.png", False),
        ("a.XML", False),
        ("./JPEGImages/a.png", False),
        ("./JPEGImages/a.png ./Annotations/a.xml", False),
        ("JPEGImages/a.png\tAnnotations/a.xml", False),
        (r"D:\set\JPEGImages\a.png", True),
        ("/mnt/disk/VOC2007/JPEGImages/a.png", True),
    ],
)
def test_a_list_may_give_suffixes_and_paths_and_foreign_folders_are_noted(tmp_path, line, is_cut):
    write_voc_set(tmp_path, a=voc_file(voc_object()), b=voc_file(voc_object("dot")))
    (tmp_path / "train.txt").write_text(f"{line}\n{line}\n")
    loaded = read(tmp_path, names=read_image_set(tmp_path / "train.txt"))
    assert [record["image_id"] for record in loaded.records] == ["a"]
    assert (loaded.report.reasons[TWICE], loaded.report.reasons[CUT]) == (1, 2 * is_cut)


def test_a_listed_path_of_another_folder_names_no_file_of_this_one(tmp_path):
    write_voc_set(tmp_path, a=voc_file(voc_object()))
    with pytest.raises(UserError, match=r"1 listed images have no annotation file"):
        read(tmp_path, names=["val/a.png"])


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("gbk", "细胞"),
        ("GB2312", "细胞"),
        ("iso-8859-1", "zelle ä"),
        ("windows-1251", "клетка"),
        ("shift_jis", "細胞"),
        ("UTF-8", "细胞"),
        ("utf-16", "细胞"),
        ("utf-16-le", "cell"),
    ],
)
def test_the_declared_encoding_counts(tmp_path, encoding, name):
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n{voc_file(voc_object(name))}'
    write_voc_set(tmp_path, a=text.encode(encoding))
    assert read(tmp_path).class_names == (name,)


@pytest.mark.parametrize("encoding", ["utf-16", "UTF-16LE", "utf-32", "us-ascii"])
def test_utf_8_that_declares_another_encoding_is_read_as_utf_8_and_noted(tmp_path, encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n{voc_file(voc_object("zelle äß"))}'
    write_voc_set(tmp_path, a=text.encode())
    loaded = read(tmp_path)
    assert loaded.class_names == ("zelle äß",)
    assert loaded.report.reasons == {MISDECLARED: 1}


def test_a_mark_of_utf_32_counts(tmp_path):
    write_voc_set(tmp_path, a=voc_file(voc_object("cell")).encode("utf-32"))
    assert read(tmp_path).class_names == ("cell",)


@pytest.mark.parametrize("name", ["unicode_escape", "raw_unicode_escape", "idna", "punycode"])
def test_encodings_of_python_alone_are_refused(tmp_path, name):
    text = f'<?xml version="1.0" encoding="{name}"?>{voc_file(voc_object())}'
    write_voc_set(tmp_path, a=text)
    with pytest.raises(UserError, match=f"declares an unknown encoding {name}"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', r"unknown encoding klingon"),
        (b'<?xml version="1.0" encoding="zip"?><annotation/>', r"unknown encoding zip"),
        (
            b'<?xml version="1.0" encoding="gbk"?><a>\xff\xff</a>',
            r"not in the encoding gbk that it",
        ),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation/>".encode("utf-16"), r"document types and ent"),
        (
            b'<?xml version="1.0" encoding="utf-7"?>+ADwAIQ-DOCTYPE a>',
            r"document types|not valid XML",
        ),
        (b"<annotation>" + b" " * MAX_BYTES, r"has more than the 8,000,000 bytes that are read"),
    ],
)
def test_hostile_files_are_refused(tmp_path, data, message):
    write_voc_set(tmp_path, a=voc_file(voc_object()), b=data)
    with pytest.raises(UserError, match=rf"b\.xml.*{message}"):
        read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        f"<annotation>{'<a>' * 299_000}{'</a>' * 299_000}</annotation>",
        f"<annotation>{'<object/>' * 599_000}</annotation>",
        "<annotation" + "".join(f" a{n}='1'" for n in range(600_000)) + "/>",
    ],
    ids=["deep", "wide", "attributes"],
)
def test_files_of_very_many_elements_take_little_time_and_memory(tmp_path, text):
    write_voc_set(tmp_path, a=text)
    script = (
        "import sys, resource; from pathlib import Path; from ulga_d2.data.formats.voc_file import "
        "parse_voc_file; from ulga_d2.data.report import Faults; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "parse_voc_file(Path(sys.argv[1]), Faults()); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "Annotations" / "a.xml")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 800_000  # kB
