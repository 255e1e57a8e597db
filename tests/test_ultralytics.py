"""YOLO datasets as other tools describe them: Ultralytics, data.yaml, and CVAT, obj.data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from data_files import GOOD, SPLIT_FIRST, boxes_of, write_image, write_yolo

from ulga_d2.cli.data_sets import find_data_set, load_one_split
from ulga_d2.data.custom import custom_class_names, custom_splits, is_custom_file, load_custom
from ulga_d2.data.formats.listed import CUT, TWICE
from ulga_d2.data.formats.ultralytics import IGNORED
from ulga_d2.data.formats.yolo import KEYPOINTS, LOST_LABELS, NO_LABELS
from ulga_d2.errors import UserError

KEYS = {"train": "images/train", "val": "images/val", "names": {0: "solid", 1: "ring"}}
BOX = [[16, 8, 24, 12]]


def write(folder: Path, **changes: object) -> Path:
    """Write two images for training and one for validation, and a data.yaml."""
    write_yolo(folder, {"a": GOOD, "b": ""}, names=None)
    write_yolo(folder, {"c": GOOD}, split="val", names=None)
    keys = {key: value for key, value in (KEYS | changes).items() if value is not None}
    (folder / "data.yaml").write_text(yaml.safe_dump(keys, sort_keys=False))
    return folder / "data.yaml"


def ids(path: Path, split: str = "train") -> list[str]:
    return [record["image_id"] for record in load_custom(path, split).records]


def test_data_yaml_is_read_as_it_is(tmp_path):
    path = write(tmp_path / "cells", nc=2)
    assert is_custom_file(path)
    assert custom_splits(path) == ("cells", ("train", "val"))
    assert custom_class_names(path, "val") == ("solid", "ring")
    loaded = load_custom(path, "train")
    assert [boxes_of(record) for record in loaded.records] == [BOX, []]
    assert ids(path) == ["images/train/a", "images/train/b"]
    assert not loaded.report.reasons


@pytest.mark.parametrize(
    "base", [".", "cells", "datasets/cells", "/nowhere/cells", "{}", "../cells", None]
)
def test_the_folder_that_path_gives_is_found(tmp_path, base, monkeypatch):
    path = write(tmp_path / "cells", path=base and base.format(tmp_path / "cells"))
    monkeypatch.chdir(tmp_path.parent)
    assert len(ids(path)) == 2


def test_path_may_lead_to_another_folder(tmp_path):
    path = write(tmp_path / "store", path="../store")
    moved = tmp_path / "configs" / "mine.yaml"
    moved.parent.mkdir()
    shutil.move(path, moved)
    assert custom_splits(moved) == ("mine", ("train", "val"))
    assert len(ids(moved)) == 2


def test_roboflow_paths_start_one_folder_too_high(tmp_path):
    for split, names in (("train", ("a",)), ("valid", ("b", "c"))):
        write_yolo(tmp_path, dict.fromkeys(names, GOOD), split=split, tree=SPLIT_FIRST, names=None)
    path = tmp_path / "data.yaml"
    path.write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\n"
        "names: ['solid', 'ring']\nroboflow:\n  workspace: x\n  version: 1\n"
    )
    assert custom_splits(path)[1] == ("train", "val")
    loaded = load_custom(path, "val")
    assert [record["image_id"] for record in loaded.records] == ["valid/images/b", "valid/images/c"]
    assert loaded.report.places[IGNORED] == [
        f"{path}: test (its images are not there)",
        f"{path}: roboflow",
    ]


def test_code_that_downloads_is_never_run(tmp_path):
    trap = tmp_path / "trap"
    path = write(tmp_path, download=f"open({str(trap)!r}, 'w')")
    assert load_custom(path, "train").report.reasons == {IGNORED: 1}
    assert not trap.exists()


def test_a_split_may_be_lists_and_several_folders(tmp_path):
    write_yolo(tmp_path, {"d": GOOD, "e": GOOD}, split="more", names=None)
    lines = ["./images/val/c.png", "images/more/e.png", str(tmp_path / "images/more/d.png")]
    (tmp_path / "val.txt").write_text("\n".join([*lines, *lines[:1]]))
    path = write(tmp_path, train=["images/train", "images/more"], val="val.txt")
    assert ids(path) == [f"images/{name}" for name in ("more/d", "more/e", "train/a", "train/b")]
    loaded = load_custom(path, "val")
    assert loaded.report.reasons == {TWICE: 1}
    assert loaded.report.boxes["solid"] == 3


def test_a_folder_above_images_and_labels_and_labels_beside_images_are_read(tmp_path):
    write_yolo(tmp_path, {"a": GOOD}, tree=SPLIT_FIRST, names=None)
    write_image(tmp_path / "flat" / "x.png")
    (tmp_path / "flat" / "x.txt").write_text(GOOD)
    path = tmp_path / "data.yaml"
    path.write_text("train: train\nval: flat\nnames: [solid]")
    for split in ("train", "val"):
        loaded = load_custom(path, split)
        assert [boxes_of(record) for record in loaded.records] == [BOX]
        assert not loaded.report.reasons


def test_labels_without_image_and_images_without_labels_are_counted(tmp_path):
    path = write(tmp_path)
    for number in range(200):
        write_image(tmp_path / "images" / "train" / f"{number}.png")
        (tmp_path / "labels" / "train" / f"{number}.txt").write_text(GOOD)
    (tmp_path / "images" / "train" / "7.png").unlink()
    (tmp_path / "labels" / "train" / "8.txt").unlink()
    (tmp_path / "images" / "train" / "more.json").write_text("{}")
    reasons = load_custom(path, "train").report.reasons
    assert reasons == {LOST_LABELS: 1, NO_LABELS: 1, "files not read (.json)": 1}


def test_boxes_with_keypoints_are_read_without_them(tmp_path):
    path = write(tmp_path, kpt_shape=[2, 3], flip_idx=[1, 0])
    (tmp_path / "labels" / "train" / "a.txt").write_text(f"{GOOD} 0.5 0.5 2 0.4 0.4 1")
    loaded = load_custom(path, "train")
    assert boxes_of(loaded.records[0]) == BOX
    assert loaded.report.reasons[KEYPOINTS] == 1
    (tmp_path / "labels" / "train" / "a.txt").write_text(f"{GOOD} 0.5 0.5")
    with pytest.raises(
        UserError, match=r"7 fields instead of 11 .* the 6 numbers that `kpt_shape`"
    ):
        load_custom(path, "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": "images/lost"}, r"images are not there; looked for .*images/lost.*datasets_dir"),
        ({"path": "/nowhere"}, None),
        ({"train": 3}, r"train is 3, not a path or a list of paths"),
        ({"train": ["images/train", None]}, r"train is \['images/train', None\], not a path"),
        ({"train": None, "val": None, "test": ""}, r"no train, val or test is given"),
        ({"path": ["a", "b"]}, r"`path` gives several folders"),
        ({"valid": "images/val"}, r"the split val stands twice; remove"),
        ({"names": {0: "a", 2: "b"}}, r"must run from 0 without gaps"),
        ({"names": ["a", "a "]}, r"a class name stands twice"),
        ({"names": ["a", "b\x1b[31m"]}, r"holds control characters"),
        ({"nc": 3}, r"nc is 3, but 2 names follow"),
        ({"kpt_shape": [17]}, r"kpt_shape is \[17\], not \[number of keypoints, 2 or 3\]"),
        ({"kpt_shape": [10**9, 3]}, r"kpt_shape is"),
        ({"train": "images/train\0"}, r"images are not there"),
    ],
)
def test_what_is_wrong_with_a_description_is_named(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    if message is None:  # the dataset was moved with its file
        assert len(ids(path)) == 2
        return
    with pytest.raises(UserError, match=rf"data\.yaml: .*{message}"):
        load_custom(path, "train")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("coco8.yaml", "coco8"),
        ("data.yaml", "my_cells_2"),
        ("dataset.yml", "my_cells_2"),
        ("été 1.yaml", "t_1"),
        ("brain_tumor.yaml", "brain_tumor_custom"),
        ("äö.yaml", "custom"),
    ],
)
def test_the_name_comes_from_the_file_or_its_folder(tmp_path, file, name):
    path = write(tmp_path / "my cells (2)")
    path = path.rename(path.with_name(file))
    assert custom_splits(path)[0] == name
    data_set = find_data_set(str(path))
    assert (data_set.name, list(data_set.loaders)) == (name, ["train", "val"])
    assert len(load_one_split(f"{path}:val").records) == 1


@pytest.mark.parametrize(
    "prefix", ["data/obj_train_data", "obj_train_data", "/mnt/x/obj_train_data"]
)
def test_cvats_yolo_export_is_read_as_it_is(tmp_path, prefix):
    folder = tmp_path / "export"
    for name in "abc":
        write_image(folder / "obj_train_data" / f"{name}.png")
        (folder / "obj_train_data" / f"{name}.txt").write_text("" if name == "b" else GOOD)
    (folder / "obj.names").write_text("solid\nring\n")
    (folder / "obj.data").write_text(
        "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
        "backup = backup/\n"
    )
    (folder / "train.txt").write_text(f"{prefix}/a.png\n{prefix}/b.png\n")
    (folder / "valid.txt").write_text(f"{prefix}/c.png\n")
    path = folder / "obj.data"
    assert custom_splits(path) == ("export", ("train", "val"))
    loaded = load_custom(path, "train")
    assert loaded.class_names == ("solid", "ring")
    assert [boxes_of(record) for record in loaded.records] == [BOX, []]
    assert set(loaded.report.reasons) <= {CUT}
    assert ids(path, "val") == ["obj_train_data/c"]
    assert find_data_set(str(path)).name == "export"


def test_cvats_ultralytics_export_is_read_as_it_is(tmp_path):
    path = write(tmp_path, path=".", train="train.txt", val="val.txt")
    (tmp_path / "train.txt").write_text("data/images/train/a.png\ndata/images/train/b.png\n")
    (tmp_path / "val.txt").write_text("data/images/val/c.png\n")
    assert ids(path) == ["images/train/a", "images/train/b"]
    assert load_custom(path, "val").report.boxes["solid"] == 1


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("obj.data", "train data/train.txt", r"'train data/train\.txt' is no `key = value`"),
        ("obj.data", "train = a\ntrain = b", r"the key train stands twice"),
        ("obj.data", "names = obj.names", r"no train, val or test"),
        ("obj.data", "train = data/lost.txt", r"images are not there; looked for .*lost\.txt"),
        ("obj.data", "train = train.txt\nnames = lost.names", r"names leads to .*lost\.names"),
        ("obj.data", "train = train.txt\nclasses = many", r"classes is 'many', not a number"),
        ("obj.data", "train = train.txt\nclasses = 3", r"nc is 3, but 2 names follow"),
        ("obj.names", "a\n\nb\n", r"class 1 has no name"),
        ("train.txt", "", r"train\.txt lists no image"),
        ("train.txt", "data/lost.png", r"missing or unreadable, .*lost\.png"),
    ],
)
def test_what_is_wrong_with_an_obj_data_is_named(tmp_path, file, text, message):
    write_image(tmp_path / "a.png")
    (tmp_path / "obj.data").write_text("train = train.txt")
    (tmp_path / "obj.names").write_text("solid\nring\n")
    (tmp_path / "train.txt").write_text("a.png\n")
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=message):
        load_custom(tmp_path / "obj.data", "train")


def test_two_listed_images_for_one_label_file_are_refused(tmp_path):
    path = write(tmp_path, train="train.txt")
    write_image(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "train.txt").write_text("images/train/a.png\nimages/train/a.jpg\n")
    with pytest.raises(
        UserError, match=r"train\.txt: .*a\.jpg: has the label file of .*a\.png, too"
    ):
        load_custom(path, "train")
