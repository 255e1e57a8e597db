"""The YOLO reader: what it accepts, mends, drops and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_files import GOOD, HEIGHT, NAMES, WIDTH, boxes_of, write_image, write_yolo
from pycocotools import mask as coco_mask

from ulga_d2.data.brain_tumor import load_brain_tumor
from ulga_d2.data.formats.files import AMENDED, HIDDEN, LOOP
from ulga_d2.data.formats.listed import TWICE
from ulga_d2.data.formats.yolo import FOUR_POINTS, OTHER_TEXTS, OUTLINES, read_yolo_labels
from ulga_d2.data.record import EMPTIED, LoadedSplit
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


@pytest.mark.parametrize("count", ["'2'", "2.0", "2"])
def test_the_number_of_classes_may_be_text(tmp_path, count):
    write_yolo(tmp_path, {"a": GOOD}, names=f"{NAMES}nc: {count}\n")
    assert load_brain_tumor(tmp_path, "train").class_names == ("solid", "ring")


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
        (
            "0 .1 .1 .2 .1 .2 .2 .9",
            r"8 fields .*odd number \(class x1 y1 x2 y2 \.\.\.\); keypoints",
        ),
        ("9 8 9 1 9 9 8 9 plane 0", r"10 fields .*DOTA's oriented boxes \(four corners in pixels"),
        ("ring 0.5 0.5 0.2 0.2", r"'ring' is not a number; write the number of the class"),
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
        ("1 -1.5 0.5 0.2 0.4", [], "boxes outside the image dropped"),
        ("1 -0.09 0.5 0.2 0.4", [], "boxes nearly outside the image dropped"),
        ("1 -0.01 0.5 0.06 0.4", [], "boxes nearly outside the image dropped"),
        ("1 0.5 0.5 0 0.4", [], "boxes without area dropped"),
        ("1 0.5 0.5 0.2 -0.4", [], "boxes without area dropped"),
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


PIXELS = "0 20.5 10 8 6\n"


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        (PIXELS, r"20\.5 is above 1, .*; they seem to be pixels"),
        (f"{GOOD}\n1 12 5 3 2.5", r"12 is above 1, .*; they seem to be pixels"),
        ("0 77.123 43.25 20.312 31.06", r"77\.123 is above 1, .*; they seem to be percent"),
        (
            "0 500 250 812.5 100",
            r"812\.5 is above 1, .*; they seem to be thousandths, or pixels of",
        ),
        (
            "0 2500 1250 300 100",
            r"2500 is above 1, .*; they seem to be pixels of an image of another size",
        ),
        ("0 1 2 20 2 20 11 3 11", r"20 is above 1, .*; they seem to be pixels"),
        ("0 2.5 0.5 0.2 0.4", r"2\.5 is above 1"),
        (
            "0 1.5 0.5 0.2 0.4\n0 1.4 0.5 0.2 0.4\n0 1.7 0.3 0.2 0.4",
            r"1\.5 is above 1, .*; they seem to be fractions of another side",
        ),
    ],
)
def test_numbers_above_one_are_refused_with_the_unit_that_they_seem_to_have(tmp_path, text, unit):
    write_yolo(tmp_path, {"b": GOOD} | {"a": text})
    with pytest.raises(UserError, match=rf"a\.txt, line [12]: {unit}"):
        load_brain_tumor(tmp_path, "train")


def test_a_few_files_in_another_unit_among_many_sound_ones_are_refused(tmp_path):
    write_yolo(tmp_path, {f"i{n}": GOOD for n in range(300)} | {"x": PIXELS})
    with pytest.raises(UserError, match=r"x\.txt, line 1: 20\.5 is above 1"):
        load_brain_tumor(tmp_path, "train")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.7 0.5 1.02 0.4", "boxes clipped to the image"),
        ("0 0.5 0.5 0.5 1.7", "boxes clipped to the image"),
        ("0 0.6 0.2 1.03 0.2 1.03 0.6 0.6 0.6", "boxes clipped to the image"),
        ("0 1.4 0.5 0.2 0.4", "boxes outside the image dropped"),
    ],
)
def test_one_box_that_reaches_out_of_its_image_proves_no_unit(tmp_path, line, reason):
    write_yolo(tmp_path, {f"i{n:02d}": GOOD for n in range(50)} | {"x": f"{GOOD}\n{line}"})
    loaded = load_brain_tumor(tmp_path, "train")
    assert len(loaded.records) == 51 and loaded.report.reasons[reason] == 1
    assert loaded.report.places[reason][0].endswith("x.txt, line 2")


def test_numbers_a_little_above_one_are_rounding(tmp_path):
    write_yolo(tmp_path, {"a": "0 0.5 0.5 1.001 1.0000001"})
    assert boxes_of(load_brain_tumor(tmp_path, "train").records[0]) == [[0, 0, WIDTH, HEIGHT]]


CORNERS = [(0.05, 0.1, 0.2, 0.3), (0.1, 0.5, 0.6, 0.9), (0.7, 0.6, 0.9, 0.8), (0, 0.2, 0.3, 1)]


@pytest.mark.parametrize(
    ("rows", "meaning"),
    [
        ([*CORNERS, (0.3, 0.3, 0.8, 0.9)], "x1 y1 x2 y2"),
        (
            [(x, y, u - x, v - y) for x, y, u, v in [*CORNERS, (0.02, 0.02, 0.9, 0.9)]],
            "left, top, width, height",
        ),
    ],
)
def test_fractions_that_are_no_centers_and_sizes_are_refused(tmp_path, rows, meaning):
    lines = {f"i{n}": f"0 {' '.join(map(str, row))}" for n, row in enumerate(rows)}
    write_yolo(tmp_path, lines)
    with pytest.raises(UserError, match=f"reach out of their image .* seem to be {meaning}"):
        load_brain_tumor(tmp_path, "train")


def test_boxes_over_the_whole_image_are_centers_and_sizes(tmp_path):
    write_yolo(tmp_path, {f"i{n}": "0 0.5 0.5 0.9 0.95" for n in range(9)})
    assert not load_brain_tumor(tmp_path, "train").report.reasons


def test_outlines_become_the_boxes_around_them_with_their_masks(tmp_path):
    polygon = [(0.1, 0.2), (0.6, 0.2), (0.6, 0.7), (0.35, 0.9), (0.1, 0.7)]
    corners = [(0.5, 0.1), (0.7, 0.3), (0.5, 0.5), (0.3, 0.3)]
    rows = [" ".join(f"{x} {y}" for x, y in points) for points in (polygon, corners)]
    write_yolo(tmp_path, {"a": f"0 {rows[0]}\n1 {rows[1]}\n{GOOD}"})
    loaded = load_brain_tumor(tmp_path, "train")
    assert boxes_of(loaded.records[0]) == [[4, 4, 24, 18], [12, 2, 28, 10], [16, 8, 24, 12]]
    masks = [item.get("segmentation") for item in loaded.records[0]["annotations"]]
    for mask, points in zip(masks[:2], (polygon, corners), strict=True):
        flat = [value for x, y in points for value in (x * WIDTH, y * HEIGHT)]
        expected = coco_mask.merge(coco_mask.frPyObjects([flat], HEIGHT, WIDTH))
        assert coco_mask.area(mask) == coco_mask.area(expected)
    assert masks[2] is None
    assert loaded.report.reasons == {OUTLINES: 1, FOUR_POINTS: 1}
    assert "oriented boxes or polygons of four points" in FOUR_POINTS
    assert loaded.report.places[FOUR_POINTS][0].endswith("a.txt, line 2")


def test_an_image_that_lost_all_its_boxes_is_left_out_and_counted(tmp_path):
    write_yolo(tmp_path, {"a": "0 0.5 0.5 0 0.4", "b": GOOD, "c": ""})
    loaded = load_brain_tumor(tmp_path, "train")
    assert [record["image_id"] for record in loaded.records] == ["b", "c"]
    assert loaded.report.dropped_images == 1
    assert loaded.report.reasons == {"boxes without area dropped": 1, EMPTIED: 1}


def test_linked_folders_are_read_once_and_hidden_ones_counted(tmp_path):
    write_yolo(tmp_path, {"a": GOOD})
    write_yolo(tmp_path / "store", {"b": GOOD, "c": ""})
    for kind in ("images", "labels"):
        folder = tmp_path / kind / "train"
        (folder / "part").symlink_to(tmp_path / "store" / kind / "train")
        (folder / "loop").symlink_to(folder)
    hidden = tmp_path / "images" / "train" / ".ipynb_checkpoints"
    write_image(hidden / "a-checkpoint.png")
    write_image(tmp_path / "images" / "train" / "@eaDir" / "a.png" / "thumb.jpg")
    loaded = read_yolo_labels(
        tmp_path / "images" / "train", tmp_path / "labels" / "train", ("solid", "ring")
    )
    assert [record["image_id"] for record in loaded.records] == ["a", "part/b", "part/c"]
    assert loaded.report.reasons == {HIDDEN: 2, LOOP: 2}


def test_text_files_that_hold_no_labels_are_counted(tmp_path):
    write_yolo(tmp_path, {"a": GOOD})
    (tmp_path / "labels" / "train" / "notes.txt").write_text("checked by two readers\n")
    loaded = load_brain_tumor(tmp_path, "train")
    assert loaded.report.reasons == {OTHER_TEXTS: 1}


def read_listed(root: Path, lines: list[str]) -> LoadedSplit:
    (root / "train.txt").write_text("\n".join(lines))
    folders = root / "images" / "train", root / "labels" / "train"
    return read_yolo_labels(*folders, ("solid", "ring"), root / "train.txt")


@pytest.mark.parametrize(
    "line",
    [
        "a.png",
        "./a.png",
        "train/a.png",
        "data/images/train/a.png",
        "/mnt/disk/data/images/train/a.png",
        r"D:\data\images\train\a.png",
    ],
)
def test_a_list_chooses_the_images(tmp_path, line):
    write_yolo(tmp_path, {"a": GOOD, "b": GOOD})
    loaded = read_listed(tmp_path, ["# a comment", line, "", line])
    assert [record["image_id"] for record in loaded.records] == ["a"]
    assert loaded.report.boxes == {"solid": 1, "ring": 0}
    assert loaded.report.reasons[TWICE] == 1


@pytest.mark.parametrize("line", ["train/a.png", "images/train/a.png", "./images/train/a.png"])
def test_a_listed_path_that_starts_above_the_folder_is_not_worth_a_note(tmp_path, line):
    write_yolo(tmp_path, {"a": GOOD, "b": GOOD})
    assert not read_listed(tmp_path, [line]).report.reasons
    report = read_listed(tmp_path, [line.replace("a.png", "A.PNG")]).report
    assert set(report.reasons) == {AMENDED}
    assert report.places[AMENDED][0].startswith(f"{tmp_path / 'train.txt'}: {line[:-5]}A.PNG is ")


def test_a_listed_image_of_another_folder_is_not_taken_for_one_of_the_same_name(tmp_path):
    write_yolo(tmp_path, {"a": GOOD})
    write_yolo(tmp_path, {"a": GOOD}, split="val")
    with pytest.raises(UserError, match="missing or unreadable"):
        read_listed(tmp_path, ["images/val/a.png"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 " + "0.5 " * 5_000_000, r"a\.txt has more than the 16,000,000 bytes that are read"),
        (f"{GOOD}\n" * 50_001, r"a\.txt: 50,001 lines, more than 50,000"),
    ],
)
def test_label_files_that_are_far_too_large_are_refused(tmp_path, text, message):
    write_yolo(tmp_path, {"a": text})
    with pytest.raises(UserError, match=message):
        load_brain_tumor(tmp_path, "train")


def test_an_outline_that_would_take_gigabytes_gets_no_mask(tmp_path):
    write_yolo(tmp_path, {"a": "0 " + "0 0 1 1 " * 100_000})
    loaded = load_brain_tumor(tmp_path, "train")
    assert boxes_of(loaded.records[0]) == [[0, 0, WIDTH, HEIGHT]]
    reason = next(
        reason for reason in loaded.report.reasons if "masks that cannot be used" in reason
    )
    assert "far longer than the image allows" in loaded.report.places[reason][0]


def test_a_line_that_is_no_path_is_refused(tmp_path):
    write_yolo(tmp_path, {"a": GOOD})
    with pytest.raises(UserError, match=r"a line of more than 4,096 characters"):
        read_listed(tmp_path, ["a/" * 100_000])
