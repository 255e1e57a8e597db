"""The YOLO reader: what it accepts, mends, drops and refuses."""

from __future__ import annotations

import pytest
from data_files import (
    GOOD,
    NAMES,
    boxes_of,
    write_image,
    write_yolo,
)

from ulga_d2.data.brain_tumor import load_brain_tumor
from ulga_d2.data.record import EMPTIED
from ulga_d2.errors import UserError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [solid, ring]", ("solid", "ring")),
        ("names:\n  1: ring\n  0: solid\n", ("solid", "ring")),
        ("names: {'0': solid, '1': ring}", ("solid", "ring")),
        ("\ufeffnc: 2\r\nnames: [solid, ring]\r\n", ("solid", "ring")),
        ("names: [1, 2]", ("1", "2")),
    ],
)
def test_class_names_are_read_from_a_list_or_a_mapping(tmp_path, text, names):
    write_yolo(tmp_path, {"a": ""}, names=None)
    (tmp_path / "data.yaml").write_bytes(text.encode())
    assert load_brain_tumor(tmp_path, "train").class_names == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: {0: a, 2: b}", r"must run from 0 without gaps, but are 0, 2"),
        ("path: .", r"no class names; write `names: \["),
        ("names: []", r"no class names"),
        ("[a, b]", r"no class names"),
        ("names: [a, a]", r"a class name stands twice"),
        ("names: [yes, no]", r"a class name is not text .*put it in quotes"),
        ("nc: 3\nnames: [a, b]", r"nc is 3, but 2 names follow"),
        ("names: [a, b", r"not valid YAML"),
        ("names: !!python/object/apply:os.getcwd []", r"not valid YAML"),
    ],
)
def test_bad_class_files_are_refused(tmp_path, text, message):
    write_yolo(tmp_path, {"a": ""}, names=text)
    with pytest.raises(UserError, match=message) as error:
        load_brain_tumor(tmp_path, "train")
    assert "data.yaml" in str(error.value)


def test_the_only_yaml_file_serves_as_class_file(tmp_path):
    write_yolo(tmp_path, {"a": ""}, names=None)
    with pytest.raises(UserError, match=r"no data.yaml, so the class names are unknown; write"):
        load_brain_tumor(tmp_path, "train")
    (tmp_path / "brain-tumor.yaml").write_text(NAMES)
    assert load_brain_tumor(tmp_path, "train").class_names == ("solid", "ring")
    (tmp_path / "other.yaml").write_text(NAMES)
    with pytest.raises(UserError, match="2 YAML files and no data.yaml"):
        load_brain_tumor(tmp_path, "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{GOOD}\n0 0.5 0.5 0.2\n", r"a\.txt, line 2: 4 fields instead of 5 .*correct or delete"),
        ("0 0.5 0.5 0.2 0.2 0.93", r"line 1: 6 fields .*prediction with a score\? Remove the last"),
        ("0 .1 .1 .2 .1 .2 .2", r"7 fields .*segmentation polygon: export the data set as boxes"),
        ("0,0.5,0.5,0.2,0.2", r"1 field instead of 5 .*separate the numbers by blanks"),
        ("0 0,5 0,5 0,2 0,2", r"'0,5' is not a number; write a decimal point, not a comma"),
        ("0 x 0.5 0.2 0.2", r"'x' is not a number; write a plain number"),
        ("2 0.5 0.5 0.2 0.2", r"class 2 is not among the 2 names \(0 to 1: solid, ring\)"),
        ("-1 0.5 0.5 0.2 0.2", r"class -1 is not among"),
        ("0.5 0.5 0.5 0.2 0.2", r"class 0.5 is not among"),
        ("0 nan 0.5 0.2 0.2", r"'nan' is not a finite number; delete the line or annotate"),
        ("0 0.5 0.5 inf 0.2", r"'inf' is not a finite number"),
        ("0 0.5 0.5 1e999 0.2", r"'1e999' is not a finite number"),
        (b"\xff\xfe0\0 \0", r"a\.txt is not a text file in UTF-8; save it as UTF-8 text"),
    ],
)
def test_faulty_label_lines_stop_with_file_line_and_cure(tmp_path, text, message):
    write_yolo(tmp_path, {"a": text})
    with pytest.raises(UserError, match=message):
        load_brain_tumor(tmp_path, "train")


def test_many_faults_are_shown_together(tmp_path):
    write_yolo(tmp_path, {f"i{n}": "0 0.5\n" for n in range(8)})
    with pytest.raises(UserError) as error:
        load_brain_tumor(tmp_path, "train")
    message = str(error.value)
    assert message.startswith("8 faults in the annotations:")
    assert message.count("2 fields instead of 5") == 5
    assert message.endswith("and 3 more")


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff1 0.5 0.5 0.2 0.4",
        "1 0.5 0.5 0.2 0.4\r\n\r\n",
        "\n  1\t0.5 0.5  0.2 0.4   \n\n",
        "1.0 5e-1 .5 0.2 0.4",
    ],
)
def test_harmless_habits_of_writers_are_accepted(tmp_path, text):
    write_yolo(tmp_path, {"a": text})
    loaded = load_brain_tumor(tmp_path, "train")
    assert boxes_of(loaded.records[0]) == [[16, 6, 24, 14]]
    assert loaded.report.reasons == {}


@pytest.mark.parametrize(
    ("text", "boxes", "reason"),
    [
        ("0 0.05 0.5 0.2 0.4", [[0, 6, 6, 14]], "boxes clipped to the image"),
        ("0 1.5 0.5 0.2 0.4", [], "boxes outside the image dropped"),
        ("0 -0.09 0.5 0.2 0.4", [], "boxes nearly outside the image dropped"),
        ("0 -0.01 0.5 0.06 0.4", [], "boxes nearly outside the image dropped"),
        ("0 0.5 0.5 0 0.4", [], "boxes without area dropped"),
        ("0 0.5 0.5 0.2 -0.4", [], "boxes without area dropped"),
        (
            "0 0.5 0.5 0.2 0.4\n0 0.5 0.5 0.2 0.4\n",
            [[16, 6, 24, 14]],
            "exact duplicates dropped",
        ),
        ("0 0.5 0.5 0.2 0.4\n1 0.5 0.5 0.2 0.4\n", [[16, 6, 24, 14]] * 2, None),
        ("0 0.9000001 0.5 0.2 0.4", [[32, 6, 40, 14]], None),
    ],
)
def test_single_bad_boxes_are_mended_or_dropped_and_counted(tmp_path, text, boxes, reason):
    write_yolo(tmp_path, {"a": text})
    loaded = load_brain_tumor(tmp_path, "train")
    assert [boxes_of(record) for record in loaded.records] == ([boxes] if boxes else [])
    expected = {reason: 1} if reason else {}
    assert loaded.report.reasons == expected | ({} if boxes else {EMPTIED: 1})
    if reason:
        assert "a.txt, line" in loaded.report.places[reason][0]


def test_an_image_without_label_file_is_background_and_counted(tmp_path):
    write_yolo(tmp_path, {"a": None, "b": GOOD})
    loaded = load_brain_tumor(tmp_path, "train")
    assert [len(record["annotations"]) for record in loaded.records] == [0, 1]
    assert loaded.report.empty_images == 1
    assert loaded.report.reasons == {"images without label file taken as background": 1}


def test_a_few_labels_without_image_are_counted_and_many_refused(tmp_path):
    write_yolo(tmp_path, {f"i{n}": GOOD for n in range(100)})
    labels = tmp_path / "labels" / "train"
    (labels / "classes.txt").write_text("solid\nring\n")
    assert load_brain_tumor(tmp_path, "train").report.reasons == {}
    (labels / "lost.txt").write_text(GOOD)
    loaded = load_brain_tumor(tmp_path, "train")
    assert loaded.report.reasons == {"label files without image skipped": 1}
    (labels / "lost2.txt").write_text(GOOD)
    with pytest.raises(
        UserError, match=r"2 label files without image .*, of 102 \(more than 1 %\)"
    ):
        load_brain_tumor(tmp_path, "train")


def test_two_images_for_one_label_file_are_refused(tmp_path):
    write_yolo(tmp_path, {"a": GOOD})
    write_image(tmp_path / "images" / "train" / "a.jpg")
    with pytest.raises(UserError, match=r"have one name, so one label file would serve both"):
        load_brain_tumor(tmp_path, "train")


def test_subfolders_are_read_and_hidden_files_left_out(tmp_path):
    write_yolo(tmp_path, {"site1/a": GOOD, "site2/a": GOOD})
    (tmp_path / "images" / "train" / "._junk.png").write_bytes(b"x")
    records = load_brain_tumor(tmp_path, "train").records
    assert [record["image_id"] for record in records] == ["site1/a", "site2/a"]


def test_an_unreadable_image_is_named_when_the_set_is_loaded(tmp_path):
    write_yolo(tmp_path, {"a": GOOD})
    (tmp_path / "images" / "train" / "b.png").write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match=r"b\.png cannot be decoded \(no image format"):
        load_brain_tumor(tmp_path, "train")
