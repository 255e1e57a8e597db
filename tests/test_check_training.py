"""The data check against what a training does with the data: crowds, tiny boxes, folds."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from test_check import ANCHORS, SIDE, found, sound, split_of

from ulga_d2.cli.main import main as ulga
from ulga_d2.data.check.doctor import Settings, check_splits
from ulga_d2.data.check.finding import ERROR, NOTE, PROBLEM
from ulga_d2.data.check.report import verdict
from ulga_d2.data.folds import Folds
from ulga_d2.data.progress import with_progress


def none_found(checkup, what: str) -> bool:
    return not any(what in item.what for item in checkup.findings)


# Crowds


def test_crowds_are_counted_with_their_share(tmp_path):
    splits = sound(tmp_path)
    for record in splits["train"].records[:3]:
        record["annotations"][0]["iscrowd"] = 1
    item = found(check_splits(splits, Settings()), "crowd regions")
    assert (item.level, item.split, item.count) == (NOTE, "train", 3)
    assert "12.5% of 24" in item.what and len(item.places) == 3


def test_a_split_of_nothing_but_crowds_is_an_error(tmp_path):
    splits = sound(tmp_path)
    for record in splits["val"].records:
        for annotation in record["annotations"]:
            annotation["iscrowd"] = 1
    checkup = check_splits(splits, Settings(square_size=64))
    item = found(checkup, "crowd regions, and no other box")
    assert (item.level, item.split, verdict(checkup)) == (ERROR, "val", "errors")


# Sizes


def test_boxes_under_two_pixels_are_a_problem_as_annotated(tmp_path):
    boxes = ((10, 12, 41, 47), (20, 20, 21.9, 60))
    splits = {"train": split_of(tmp_path, range(4), boxes=boxes)}
    item = found(check_splits(splits, Settings()), "with a side under 2 px")
    assert (item.level, item.count) == (PROBLEM, 4)
    assert "(50.0%)" in item.what and item.places[0].endswith("(1.90 px)")
    exact = {"train": split_of(tmp_path, range(4), boxes=((10, 12, 12, 47),))}
    assert none_found(check_splits(exact, Settings()), "under 2 px")


@pytest.mark.parametrize(("square_size", "count"), [(SIDE, 0), (SIDE // 2, 4), (SIDE // 4, 4)])
def test_boxes_that_shrink_under_two_pixels_are_counted_by_the_input(tmp_path, square_size, count):
    boxes = ((10, 12, 41, 47), (20, 20, 23.9, 60))  # 3.9 px wide
    splits = {"train": split_of(tmp_path, range(4), boxes=boxes)}
    checkup = check_splits(splits, Settings(square_size=square_size))
    if not count:
        assert none_found(checkup, "once the image is resized")
        return
    item = found(checkup, f"once the image is resized to {square_size} px")
    assert (item.level, item.count) == (PROBLEM, count)
    assert item.places[0].endswith(f"({3.9 * square_size / SIDE:.2f} px)")


def test_a_few_shrunk_boxes_are_a_note_and_tiles_do_not_shrink(tmp_path):
    splits = {"train": split_of(tmp_path, range(40), boxes=((10, 12, 41, 47),))}
    splits["train"].records[7]["annotations"][0]["bbox"] = [10, 10, 13, 40]
    item = found(check_splits(splits, Settings(square_size=32)), "once the image is resized")
    assert (item.level, item.count) == (NOTE, 1)
    tiles = ANCHORS.__class__(**{**ANCHORS.__dict__, "square_size": 48, "tiles": (48, 0.5)})
    assert none_found(check_splits(splits, Settings(anchors=tiles, square_size=48)), "resized")


def test_normalized_boxes_are_an_error_with_their_unit(tmp_path):
    boxes = ((0.1, 0.2, 0.6, 0.9), (0.0, 0.0, 1.0, 1.0))
    splits = {"train": split_of(tmp_path, range(4), boxes=boxes)}
    checkup = check_splits(splits, Settings(square_size=64))
    item = found(checkup, "seem to be normalized")
    assert (item.level, item.count) == (ERROR, 8)
    assert none_found(checkup, "under 2 px")
    splits["train"].records[0]["annotations"][0]["bbox"] = [0, 0, 1.5, 1.5]
    checkup = check_splits(splits, Settings())
    assert none_found(checkup, "normalized") and found(checkup, "with a side under 2 px").count == 8


# Folds


def folds_of(splits, fold_of, group: str = "image") -> Folds:
    names = [f"{split}/{r['image_id']}" for split in splits for r in splits[split].records]
    return Folds("cells", tuple(splits), 0, 2, group, False, dict(zip(names, fold_of, strict=True)))


def copy(source: str, target: str, factor: float = 1.0) -> None:
    cv2.imwrite(target, (cv2.imread(source) * factor).astype(np.uint8))


@pytest.mark.parametrize("prefix", ["", "cells_"])
def test_copies_in_two_folds_are_found_and_in_one_fold_are_not(tmp_path, prefix):
    splits = sound(tmp_path)
    files = [record["file_name"] for record in splits["train"].records]
    copy(files[0], files[1])  # other folds
    copy(files[2], files[5], 0.8)  # other folds, nearly the same
    copy(files[4], files[6])  # one fold
    folds = folds_of(splits, [number % 2 for number in range(16)])
    named = {prefix + name: split for name, split in splits.items()}
    checkup = check_splits(named, Settings(folds=folds))
    exact = found(checkup, "with the same pixels in two folds")
    near = found(checkup, "nearly the same in two folds")
    assert (exact.level, exact.count, near.count) == (PROBLEM, 1, 1)
    assert exact.places[0] == f"fold 0, fold 1: {files[0]} = {files[1]}"
    assert near.places[0] == f"fold 0, fold 1: {files[2]} = {files[5]}"


def test_folds_of_patients_are_looked_up_by_patient(tmp_path):
    splits = sound(tmp_path)
    files = [record["file_name"] for record in splits["train"].records]
    copy(files[0], files[3])
    fold_of = {record["patient_id"]: 0 for record in splits["train"].records}
    fold_of[splits["train"].records[3]["patient_id"]] = 1
    folds = Folds("cells", ("train",), 0, 2, "patient", False, fold_of)
    for anonymize in (False, True):
        checkup = check_splits(splits, Settings(folds=folds, anonymize=anonymize))
        item = found(checkup, "with the same pixels in two folds")
        assert item.count == 1
    assert item.places == ("fold 0, fold 1: train/1.png = train/4.png",)


def test_a_fold_file_of_other_data_is_an_error(tmp_path):
    folds = Folds("cells", ("train",), 0, 2, "image", False, {"train/none": 0})
    checkup = check_splits(sound(tmp_path), Settings(folds=folds))
    assert found(checkup, "the fold file names no image").level == ERROR


def test_the_folds_that_split_writes_are_checked(sample_data, tmp_path, capsys):
    folds = tmp_path / "folds.json"
    words = ["--folds", "2", "--group", "image", "--out", str(folds)]
    assert ulga(["data", "split", "brain_tumor", *words]) == 0
    assert f"ulga data check brain_tumor --folds {folds}" in capsys.readouterr().out
    fold_of = json.loads(folds.read_text())["fold_of"]
    root = sample_data / "brain_tumor" / "images"
    images = {f"{path.parent.name}/{path.stem}": path for path in root.rglob("*.*")}
    one = next(name for name, fold in fold_of.items() if fold == 0)
    other = next(name for name, fold in fold_of.items() if fold == 1)
    paths = [next(p for key, p in images.items() if key.endswith(n)) for n in (one, other)]
    before = paths[1].read_bytes()
    try:
        paths[1].write_bytes(paths[0].read_bytes())
        ulga(["data", "check", "brain_tumor", "--folds", str(folds)])
    finally:
        paths[1].write_bytes(before)
    assert "1 images with the same pixels in two folds" in capsys.readouterr().out


# Progress


def test_progress_counts_to_the_end(monkeypatch, caplog):
    times = iter(range(0, 100, 3))
    monkeypatch.setattr("ulga_d2.data.progress.time.monotonic", lambda: next(times))
    with caplog.at_level(logging.INFO):
        assert list(with_progress("abcdef", "reading", logging.getLogger("a"))) == list("abcdef")
    assert caplog.messages[0].startswith("reading: 1 of 6, about ")
    assert caplog.messages[-1].startswith("reading: 6 of 6, ")


def test_a_short_loop_logs_nothing(caplog):
    with caplog.at_level(logging.INFO):
        assert len(list(with_progress(range(9), "reading", logging.getLogger("a")))) == 9
    assert not caplog.messages


# Names of splits, and settings at the end of a command


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Return the YAML of a custom dataset with two splits of two images each."""
    for split in ("train", "val"):
        images, boxes = [], []
        for number in (1, 2):
            image = {"id": number, "file_name": f"{split}{number}.png", "width": 64, "height": 64}
            pixels = np.full((64, 64, 3), 60 * number, np.uint8)
            cv2.rectangle(pixels, (9, 9), (30, 30), (255, 9, 9), -1)
            cv2.imwrite(str(tmp_path / image["file_name"]), pixels)
            box = {"id": number, "image_id": number, "category_id": 1, "bbox": [9, 9, 21, 21]}
            images.append(image)
            boxes.append({**box, "iscrowd": 0, "area": 441})
        categories = [{"id": 1, "name": "cell"}]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    splits = "".join(f"  {s}: {{images: ., annotations: {s}.json}}\n" for s in ("train", "val"))
    (tmp_path / "own.yaml").write_text(f"name: cells\nformat: coco\nroot: .\nsplits:\n{splits}")
    (tmp_path / "config.yaml").write_text(
        "_BASE_: configs/_base_/retinanet.yaml\n"
        f"DATASETS:\n  CUSTOM: {tmp_path}/own.yaml\n  TRAIN: [cells_train]\n  TEST: [cells_val]\n"
    )
    return tmp_path


@pytest.fixture
def cells_config(cells: Path) -> Path:
    from conftest import CONFIGS

    path = cells / "config.yaml"
    base = CONFIGS / "brain_tumor_swin_baseline_nano.yaml"
    path.write_text(path.read_text().replace("configs/_base_/retinanet.yaml", str(base)))
    return path


@pytest.mark.parametrize("split", ["val", "cells_val"])
@pytest.mark.parametrize("file", ["own.yaml", "config.yaml"])
def test_a_split_has_one_name_in_every_command(cells, cells_config, split, file, capsys):
    sheet, saved = cells / "sheet.png", cells / "found.json"
    what = str(cells / file)
    assert ulga(["data", "show", what, "--split", split, "--sheet", str(sheet)]) == 0
    box = {"category_id": 1, "bbox": [9, 9, 21, 21], "score": 0.9}
    found = [{"image_id": number, **box} for number in (1, 2)]
    saved.write_text(json.dumps(found))
    words = ["--dataset", f"{what}:{split}", "--bootstrap", "0"]
    assert ulga(["evaluate", str(saved), *words, "--category-ids", "dataset"]) == 0
    assert "100.00" in capsys.readouterr().out


def test_an_unknown_split_is_answered_with_the_names_of_configs(cells, capsys):
    assert ulga(["data", "show", str(cells / "own.yaml"), "--split", "x", "--sheet", "s.png"]) == 2
    assert "no split x; there are cells_train, cells_val" in capsys.readouterr().err


def test_evaluate_takes_key_value_at_the_end(cells, capsys):
    saved = cells / "found.json"
    found = [
        {"image_id": 1, "category_id": 1, "bbox": [50, 50, 9, 9], "score": 0.95},
        {"image_id": 1, "category_id": 1, "bbox": [9, 9, 21, 21], "score": 0.9},
    ]
    saved.write_text(json.dumps(found))
    words = ["evaluate", str(saved), "--dataset", f"{cells / 'own.yaml'}:val", "--bootstrap", "0"]
    words += ["--category-ids", "dataset"]
    assert ulga([*words, "TEST.DETECTIONS_PER_IMAGE", "1"]) == 0
    assert "AR1 " in capsys.readouterr().out
    saved_limit = cells / "m.json"
    options = ["--json", str(saved_limit), "TEST.DETECTIONS_PER_IMAGE", "1", "SEED", "3"]
    assert ulga([*words, *options]) == 0
    written = json.loads(saved_limit.read_text())
    assert written["max_detections"] == 1 and written["figures"]["bbox/AP"]["value"] == 0
    assert ulga([*words, "TEST.DETECTIONS_PER_IMAG", "1"]) == 2
    assert "TEST.DETECTIONS_PER_IMAGE" in capsys.readouterr().err
    assert ulga([*words, "TEST.FROC_HIT", "nose"]) == 2


def test_evaluate_scores_the_fold_that_key_value_names(cells):
    own, folds, out = cells / "own.yaml", cells / "folds.json", cells / "m.json"
    words = ["--folds", "2", "--group", "image", "--out", str(folds)]
    assert ulga(["data", "split", str(own), *words]) == 0
    (cells / "found.json").write_text("[]")
    for fold in "01":
        words = ["--dataset", f"{own}:val", "--bootstrap", "0", "--category-ids", "dataset"]
        options = ["DATASETS.FOLDS_FILE", str(folds), "DATASETS.FOLD", fold]
        words += ["--json", str(out)]
        assert ulga(["evaluate", str(cells / "found.json"), *words, *options]) == 0
        names = json.loads(folds.read_text())["fold_of"]
        held_out = sum(number == int(fold) for number in names.values())
        assert 0 < held_out < 4 and json.loads(out.read_text())["images"] == held_out


def test_overfit_takes_key_value_at_the_end(cells_config, capsys):
    options = ["--images", "1", "--iterations", "1", "INPUT.SQUARE_SIZE", "32", "SEED", "1"]
    options += ["MODEL.DEVICE", "cpu"]
    assert ulga(["overfit", str(cells_config), *options]) == 1
    captured = capsys.readouterr()
    assert "1 images of 32 px" in captured.out
    assert "iteration 1 of 1: " in captured.err
    assert ulga(["overfit", str(cells_config), "INPUT.SQUARE_SIZ", "32"]) == 2


# Settings


def test_the_check_takes_the_frame_that_its_own_error_asks_for(tmp_path, capsys):
    pages = [Image.new("L", (40, 30), value) for value in (10, 200)]
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    pages[0].save(tmp_path / "images" / "a.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    file = tmp_path / "set.yaml"
    splits = "{train: {images: images, labels: labels}}"
    file.write_text(f"name: s\nformat: yolo\nroot: .\nclass_names: [cell]\nsplits: {splits}\n")
    assert ulga(["data", "check", str(file)]) == 1
    assert "set INPUT.FRAME to the one to read, 0 to 1" in capsys.readouterr().out
    assert ulga(["data", "check", str(file), "INPUT.FRAME", "1"]) == 0
    assert "cannot be decoded" not in capsys.readouterr().out
