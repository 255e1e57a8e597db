"""The data doctor finds what is wrong with a data set, and nothing in one that is sound."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from ulga_d2.data.check.boxes import Anchors
from ulga_d2.data.check.doctor import Checkup, Settings, check_splits
from ulga_d2.data.check.finding import ERROR, NOTE, PROBLEM, Finding
from ulga_d2.data.check.report import as_dict, as_text, verdict
from ulga_d2.data.check.sheet import INK, check_sheet
from ulga_d2.data.record import Box, LoadedSplit, make_record
from ulga_d2.data.report import DataReport
from ulga_d2.errors import UserError

CLASSES = ("ring", "solid")
SIDE = 96
ANCHORS = Anchors(
    sizes=((16.0, 25.4), (40.0,)),
    aspect_ratios=((0.5, 1.0, 2.0), (1.0, 1.5)),
    strides=(8, 16),
    offset=0.0,
    square_size=64,
)


def write_picture(path: Path, seed: int) -> str:
    noise = np.random.default_rng(seed).standard_normal((SIDE, SIDE)).astype(np.float32)
    image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 6), None, 0, 255, cv2.NORM_MINMAX)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image.astype(np.uint8))
    return str(path)


def split_of(
    folder: Path,
    seeds: range,
    *,
    classes: tuple[str, ...] = CLASSES,
    patients: str | None = None,
    boxes: tuple[tuple[float, ...], ...] = ((10, 12, 41, 47), (50.5, 20, 80, 70)),
    suffix: str = ".png",
) -> LoadedSplit:
    """Return a split of random pictures, one a seed, each with the same boxes."""
    report = DataReport.for_classes(classes)
    records = []
    for seed in seeds:
        path = write_picture(folder / f"{seed}{suffix}", seed)
        found = [Box(box, number % len(classes), path) for number, box in enumerate(boxes)]
        report.found_images += 1
        report.found_boxes += len(found)
        patient = f"{patients}{seed}" if patients else None
        records.append(
            make_record(
                file_name=path,
                image_id=seed,
                size=(SIDE, SIDE),
                boxes=found,
                class_names=classes,
                report=report,
                patient_id=patient,
            )
        )
    return LoadedSplit(records, classes, report)


def sound(folder: Path) -> dict[str, LoadedSplit]:
    return {
        "train": split_of(folder / "train", range(12), patients="p"),
        "val": split_of(folder / "val", range(20, 24), patients="p"),
    }


def found(checkup: Checkup, what: str) -> Finding:
    matches = [item for item in checkup.findings if what in item.what]
    assert len(matches) == 1, [item.what for item in checkup.findings]
    return matches[0]


# The round


def test_a_sound_data_set_is_clean(tmp_path):
    checkup = check_splits(sound(tmp_path), Settings())
    assert checkup.findings == []
    assert verdict(checkup) == "clean"


def test_a_patient_in_two_splits_is_an_error_that_does_not_tell_the_id(tmp_path):
    splits = sound(tmp_path)
    splits["val"].records[0]["patient_id"] = "p3"
    checkup = check_splits(splits, Settings())
    item = found(checkup, "patients in more than one split")
    assert (item.level, item.count, verdict(checkup)) == (ERROR, 1, "errors")
    assert "train/3.png" in item.places[0] and "val/20.png" in item.places[0]
    assert "p3" not in as_text("set", checkup) + json.dumps(as_dict("set", checkup))


def test_images_in_two_splits_are_found_by_their_pixels(tmp_path):
    splits = sound(tmp_path)
    image = cv2.imread(splits["train"].records[5]["file_name"])
    cv2.imwrite(splits["val"].records[1]["file_name"], image)
    cv2.imwrite(splits["val"].records[2]["file_name"], (image * 0.8).astype(np.uint8))
    checkup = check_splits(splits, Settings())
    exact = found(checkup, "same pixels in both")
    near = found(checkup, "nearly the same in both")
    assert (exact.level, exact.count, near.count) == (PROBLEM, 1, 1)
    assert exact.places[0].endswith("val/21.png")


def test_an_image_twice_in_one_split_is_found(tmp_path):
    splits = sound(tmp_path)
    first, second = (record["file_name"] for record in splits["train"].records[:2])
    Path(second).write_bytes(Path(first).read_bytes())
    item = found(check_splits(splits, Settings()), "groups of images with the same pixels")
    assert (item.level, item.places) == (PROBLEM, (f"{first} = {second}",))


@pytest.mark.parametrize(("count", "level"), [(100, PROBLEM), (99, ERROR)])
def test_more_than_one_undecodable_image_in_a_hundred_is_an_error(tmp_path, count, level):
    split = split_of(tmp_path, range(count), patients="p")
    path = Path(split.records[0]["file_name"])
    path.write_bytes(path.read_bytes()[:-200])
    checkup = check_splits({"train": split}, Settings())
    item = found(checkup, "images that cannot be decoded")
    assert (item.level, item.count) == (level, 1)
    assert "truncated" in item.places[0]
    data = as_dict("set", checkup)["splits"]["train"]
    for kind, total, listed in (("images", count, 1), ("boxes", 2 * count, 2)):
        counts = data[kind]
        assert (counts["found"], counts["listed"]) == (total, listed)
        assert counts["kept"] + counts["dropped"] + counts["listed"] == total


def test_headers_alone_do_not_show_a_damaged_end(tmp_path):
    split = split_of(tmp_path, range(3), patients="p")
    path = Path(split.records[0]["file_name"])
    path.write_bytes(path.read_bytes()[:-200])
    assert check_splits({"train": split}, Settings(decode=False)).findings == []


def test_an_image_of_another_size_than_its_record_is_an_error(tmp_path):
    splits = sound(tmp_path)
    path = splits["train"].records[0]["file_name"]
    cv2.imwrite(path, cv2.imread(path)[:50])
    item = found(check_splits(splits, Settings()), "another size")
    assert item.level == ERROR
    assert f"{(SIDE, SIDE)} in the records, {(50, SIDE)} decoded" in item.places[0]


def test_kinds_of_files_that_do_not_fit_are_noted(tmp_path):
    splits = sound(tmp_path)
    one, two, three = (Path(record["file_name"]) for record in splits["train"].records[:3])
    image = cv2.imread(str(one), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(one), cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
    cv2.imwrite(str(two.with_suffix(".jpg")), cv2.imread(str(two)))
    two.with_suffix(".jpg").rename(two)
    cv2.imwrite(str(three), cv2.imread(str(three), cv2.IMREAD_GRAYSCALE).astype(np.uint16) * 257)
    checkup = check_splits(splits, Settings())
    assert found(checkup, "pixel modes are mixed").level == NOTE
    assert found(checkup, "bits a sample are mixed").places == ("8 15, 16 1",)
    assert found(checkup, "suffix is not their format").places == (f"{two} is JPEG",)


def test_what_the_reader_dropped_and_mended_is_repeated(tmp_path):
    boxes = ((10, 12, 41, 47), (20, 20, 20, 30), (60, 60, 110, 90))
    split = split_of(tmp_path, range(4), patients="p", boxes=boxes, classes=("ring",))
    checkup = check_splits({"train": split}, Settings())
    assert found(checkup, "without area dropped").level == PROBLEM
    assert found(checkup, "clipped to the image").level == NOTE
    assert found(checkup, "clipped to the image").count == 4


def test_classes_that_differ_or_lack_boxes_are_found(tmp_path):
    splits = sound(tmp_path)
    splits["val"] = split_of(tmp_path / "val", range(20, 24), patients="p", classes=("solid", "x"))
    splits["val"].report.boxes["x"] = 0
    checkup = check_splits(splits, Settings())
    assert found(checkup, "class names differ").level == ERROR
    assert found(checkup, "classes without a box").places == ("x",)


@pytest.mark.parametrize(
    ("filter_empty", "hint"),
    [(None, "training keeps them where"), (True, "training drops"), (False, "training keeps")],
)
def test_images_without_boxes_come_with_what_training_does(tmp_path, filter_empty, hint):
    splits = sound(tmp_path)
    splits["train"].records[0]["annotations"] = []
    item = found(check_splits(splits, Settings(filter_empty=filter_empty)), "without boxes")
    assert (item.level, item.count) == (NOTE, 1)
    assert item.cure.startswith(hint)


def test_a_split_without_boxes_is_an_error(tmp_path):
    checkup = check_splits({"train": split_of(tmp_path, range(3), boxes=())}, Settings())
    assert found(checkup, "no boxes at all").level == ERROR


def test_unknown_patients_are_said_to_be_unknown(tmp_path):
    checkup = check_splits({"train": split_of(tmp_path, range(3))}, Settings())
    assert found(checkup, "no patient of any image is known").level == NOTE


def test_a_split_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    splits = {**sound(tmp_path), "test": UserError("label.txt, line 3: 'x' is not a number")}
    checkup = check_splits(splits, Settings())
    item = found(checkup, "the split cannot be read")
    assert (item.level, item.split) == (ERROR, "test")
    assert "label.txt, line 3" in as_text("set", checkup)
    with pytest.raises(UserError, match="line 3"):
        check_splits({"test": splits["test"]}, Settings())


def test_boxes_that_no_anchor_fits_are_a_problem(tmp_path):
    split = split_of(tmp_path, range(4), patients="p", boxes=((0, 0, 90, 6),), classes=("ring",))
    checkup = check_splits({"train": split}, Settings(anchors=ANCHORS))
    item = found(checkup, "without an anchor of IoU 0.4")
    assert (item.level, item.count) == (PROBLEM, 4)
    assert as_dict("set", checkup)["splits"]["train"]["anchors"]["share_below_0.4"] == 1.0
    assert "100.0% below 0.4" in as_text("set", checkup)


# The picture


@pytest.mark.parametrize("with_config", [False, True])
def test_the_sheet_is_a_picture_even_of_a_damaged_image(tmp_path, with_config):
    splits = sound(tmp_path)
    Path(splits["train"].records[0]["file_name"]).write_bytes(b"")
    settings = Settings(anchors=ANCHORS if with_config else None)
    sheet = check_sheet("set", check_splits(splits, settings), settings)
    assert sheet.dtype == np.uint8 and sheet.shape[1:] == (1330, 3)
    assert sheet.std() > 10


@pytest.mark.parametrize("with_config", [False, True])
def test_the_sheet_of_a_set_without_any_box_is_a_picture(tmp_path, with_config):
    splits = {"train": split_of(tmp_path, range(3), boxes=())}
    settings = Settings(anchors=ANCHORS if with_config else None)
    sheet = check_sheet("set", check_splits(splits, settings), settings)
    assert sheet.dtype == np.uint8 and sheet.shape[1:] == (1330, 3)


def test_every_tick_label_of_the_sheet_is_light_and_no_name_is_a_formula(tmp_path, monkeypatch):
    figures = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr("ulga_d2.data.check.sheet.Figure", Kept)
    names = ("$x^$", "a\x1b$\\frac$")
    boxes = ((10, 12, 25, 30), (20, 20, 70, 80))
    splits = {"$train^$": split_of(tmp_path, range(4), classes=names, boxes=boxes)}
    settings = Settings(anchors=ANCHORS)
    check_sheet("set", check_splits(splits, settings), settings)
    (figure,) = figures
    labels = [
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for minor in (False, True)
        for label in axis.get_ticklabels(minor=minor)
    ]
    assert {label.get_color() for label in labels} == {INK}
    assert {"$x^$", "a\\x1b$\\frac$"} <= {label.get_text() for label in labels}
