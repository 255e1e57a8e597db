"""`--data PATH`: each kind of dataset recognized by its content, and trained on at once."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest
import yaml
from annotation_files import RECT, via_region, voc_file, voc_object
from conftest import CONFIGS, TINY, tiny_options
from data_files import GOOD, HEIGHT, WIDTH, write_image

from ulga_d2.cli.main import main as ulga
from ulga_d2.data.custom import load_custom
from ulga_d2.data.make_folds import grouping_of, hold_out
from ulga_d2.data.recognize import recognize
from ulga_d2.engine.launch import add_arguments, run
from ulga_d2.engine.own_data import MODELS
from ulga_d2.errors import UserError

NUMBER = {"train": 6, "val": 3}
SPLITS = ("train", "val")
RUNS = ("one", "two")


def stems(split: str) -> list[str]:
    return [f"{split}{chr(97 + number)}" for number in range(NUMBER[split])]


def write_images(folder: Path, split: str) -> None:
    for stem in stems(split):
        write_image(folder / f"{stem}.png")


def coco(split: str, prefix: str = "") -> str:
    images = [
        {"id": number, "file_name": f"{prefix}{stem}.png", "width": WIDTH, "height": HEIGHT}
        for number, stem in enumerate(stems(split))
    ]
    boxes = [
        {"id": n, "image_id": n, "category_id": 1 + n % 2, "bbox": [4, 2, 8, 10], "iscrowd": 0}
        for n in range(len(images))
    ]
    categories = [{"id": 1, "name": "ring"}, {"id": 2, "name": "dot"}]
    return json.dumps({"images": images, "annotations": boxes, "categories": categories})


def csv(split: str, prefix: str = "", header: str = "image,x1,y1,x2,y2,label") -> str:
    numbers = "4,2,12,12" if "x1" in header else "4,2,8,10"
    rows = [
        f"{prefix}{stem}.png,{numbers},{('ring', 'dot')[number % 2]}"
        for number, stem in enumerate(stems(split))
    ]
    return "\n".join([header, *rows]) + "\n"


def write_labels(folder: Path, split: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, stem in enumerate(stems(split)):
        (folder / f"{stem}.txt").write_text(f"{number % 2}{GOOD[1:]}\n")


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def coco_tree(root: Path) -> Path:
    for split in SPLITS:
        write_images(root / "images" / split, split)
        write_text(root / "annotations" / f"instances_{split}2017.json", coco(split))
    return root


def coco_roboflow(root: Path) -> Path:
    for split, folder in (("train", "train"), ("val", "valid")):
        write_images(root / folder, split)
        write_text(root / folder / "_annotations.coco.json", coco(split))
    return root


def coco_file(root: Path) -> Path:
    return coco_tree(root) / "annotations" / "instances_train2017.json"


def yolo_yaml(root: Path) -> Path:
    for split in SPLITS:
        write_images(root / "images" / split, split)
        write_labels(root / "labels" / split, split)
    names = "train: images/train\nval: images/val\nnames: [ring, dot]\n"
    write_text(root / "data.yaml", names)
    return root / "data.yaml"


def yolo_roboflow(root: Path) -> Path:
    for split, folder in (("train", "train"), ("val", "valid")):
        write_images(root / folder / "images", split)
        write_labels(root / folder / "labels", split)
    paths = "train: ../train/images\nval: ../valid/images\n"
    write_text(root / "data.yaml", f"{paths}nc: 2\nnames: [ring, dot]\nroboflow: {{version: 1}}\n")
    return root


def yolo_without_yaml(root: Path) -> Path:
    yolo_yaml(root).unlink()
    write_text(root / "classes.txt", "ring\ndot\n")
    return root


def darknet(root: Path) -> Path:
    for split, name in (("train", "train"), ("val", "valid")):
        write_images(root / f"obj_{split}_data", split)
        write_labels(root / f"obj_{split}_data", split)
        lines = [f"data/obj_{split}_data/{stem}.png" for stem in stems(split)]
        write_text(root / f"{name}.txt", "\n".join(lines) + "\n")
    write_text(root / "obj.names", "ring\ndot\n")
    lines = "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
    write_text(root / "obj.data", lines)
    return root


def csv_corners(root: Path) -> Path:
    for split in SPLITS:
        write_images(root / "images", split)
        write_text(root / f"{split}.csv", csv(split))
    return root


def csv_sides(root: Path) -> Path:
    csv_corners(root)
    for split in SPLITS:
        write_text(root / f"{split}.csv", csv(split, header="filename,x,y,width,height,class"))
    return root / "train.csv"


def csv_absolute(root: Path) -> Path:
    csv_corners(root / "elsewhere")
    for split in SPLITS:
        write_text(root / "boxes" / f"{split}.csv", csv(split, f"{root}/elsewhere/images/"))
    return root / "boxes"


def voc_lists(root: Path) -> Path:
    for split in SPLITS:
        write_images(root / "JPEGImages", split)
        for number, stem in enumerate(stems(split)):
            text = voc_file(voc_object(("ring", "dot")[number % 2]), file=f"{stem}.png")
            write_text(root / "Annotations" / f"{stem}.xml", text)
        write_text(root / "ImageSets" / "Main" / f"{split}.txt", "\n".join(stems(split)))
    return root


def voc_roboflow(root: Path) -> Path:
    for split, folder in (("train", "train"), ("val", "valid")):
        write_images(root / folder, split)
        for number, stem in enumerate(stems(split)):
            text = voc_file(voc_object(("ring", "dot")[number % 2]), file=f"{stem}.png")
            write_text(root / folder / f"{stem}.xml", text)
    return root


def via(root: Path) -> Path:
    for split in SPLITS:
        write_images(root / split, split)
        entries = {
            stem: {
                "filename": f"{stem}.png",
                "regions": [via_region(RECT, kind=("ring", "dot")[number % 2])],
            }
            for number, stem in enumerate(stems(split))
        }
        write_text(root / split / "via_region_data.json", json.dumps(entries))
    return root


def dataset_yaml(root: Path) -> Path:
    coco_tree(root / "files")
    splits = {
        split: {
            "images": f"images/{split}",
            "annotations": f"annotations/instances_{split}2017.json",
        }
        for split in SPLITS
    }
    content = {"name": "cells", "format": "coco", "root": "files", "splits": splits}
    write_text(root / "my.yaml", yaml.safe_dump(content))
    return root / "my.yaml"


BY_ID = ("ring", "dot")
SORTED = ("dot", "ring")
KINDS = {
    coco_tree: ("COCO", BY_ID),
    coco_roboflow: ("COCO", BY_ID),
    coco_file: ("COCO", BY_ID),
    yolo_yaml: ("YOLO", BY_ID),
    yolo_roboflow: ("YOLO", BY_ID),
    yolo_without_yaml: ("YOLO", BY_ID),
    darknet: ("YOLO", BY_ID),
    csv_corners: ("CSV", SORTED),
    csv_sides: ("CSV", SORTED),
    csv_absolute: ("CSV", SORTED),
    voc_lists: ("Pascal VOC", SORTED),
    voc_roboflow: ("Pascal VOC", SORTED),
    via: ("VIA", SORTED),
    dataset_yaml: ("COCO", BY_ID),
}


def train(path: Path, out: Path, *words: str) -> int:
    changes = tiny_options(out, SOLVER__MAX_ITER=1, SOLVER__CHECKPOINT_PERIOD=1)
    return ulga(["train", "--data", str(path), *words, *changes])


@pytest.mark.parametrize("write", KINDS, ids=lambda write: write.__name__)
def test_one_command_trains_on_each_kind_of_dataset(tmp_path, write, monkeypatch):
    path = write(tmp_path / "cells")
    monkeypatch.chdir(tmp_path)
    assert train(path.relative_to(tmp_path), tmp_path / "run") == 0
    label, names = KINDS[write]
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f": {label}" in log
    assert f", 6 train and 3 val images, classes {', '.join(names)}\n" in log
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["DATASETS"]["CUSTOM"] == str(tmp_path / "run" / "dataset" / "cells.yaml")
    assert config["DATASETS"]["CLASS_NAMES"] == list(names)
    predictions = json.loads((tmp_path / "run" / "inference" / "metrics.json").read_text())
    assert predictions


def test_ambiguous_data_are_refused_with_the_candidates(tmp_path):
    coco_roboflow(tmp_path)
    yolo_yaml(tmp_path)
    with pytest.raises(UserError, match=r"could mean 2 datasets; give one of these") as found:
        recognize(tmp_path)
    assert f"{tmp_path}/data.yaml (YOLO)" in str(found.value)
    assert f"{tmp_path}/valid/_annotations.coco.json (COCO)" in str(found.value)
    assert recognize(tmp_path / "data.yaml").label == "YOLO"
    assert recognize(tmp_path / "train" / "_annotations.coco.json").label == "COCO"


def test_a_folder_called_data_gives_a_dataset_of_another_name(tmp_path):
    yolo_yaml(tmp_path / "cells" / "data")
    assert train(tmp_path / "cells" / "data", tmp_path / "run") == 0
    assert (tmp_path / "run" / "dataset" / "cells.yaml").is_file()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("cells/train.csv", "cells"),
        ("cells/train_boxes_2.csv", "cells"),
        ("a/my test set.csv", "my_set"),
        ("a/beads.csv", "beads"),
        ("cells in test/boxes.csv", "cells_in_test"),
        ("cells/annotations/train.csv", "cells"),
        ("brain_tumor/train.csv", "brain_tumor_custom"),
    ],
)
def test_a_dataset_is_named_by_what_its_path_says(tmp_path, path, name):
    write_images(tmp_path / path.partition("/")[0] / "images", "train")
    write_text(tmp_path / path, csv("train"))
    assert recognize(tmp_path / path).name == name


def test_image_names_that_differ_in_case_slashes_and_unicode_form_find_their_folder(tmp_path):
    content = json.loads(coco("train"))
    for image in content["images"]:
        image["file_name"] = f"Sub\\Gr\u00f6\u00dfe_{image['file_name']}"
        name = f"gro\u0308\u00dfe_{Path(image['file_name'][4:]).name[6:]}"
        write_image(tmp_path / "pictures" / "sub" / name)
    write_text(tmp_path / "boxes.json", json.dumps(content))
    found = recognize(tmp_path).content["splits"]["train"]
    assert found["images"] == str(tmp_path / "pictures")
    assert train(tmp_path, tmp_path / "run") == 0


def test_a_run_inside_of_the_datas_folder_is_no_part_of_the_data(tmp_path, capfd):
    write_images(tmp_path / "images", "train")
    write_labels(tmp_path / "labels", "train")
    write_text(tmp_path / "classes.txt", "ring\ndot\n")
    before = recognize(tmp_path)
    assert train(tmp_path, tmp_path / "output" / "run") == 0
    assert recognize(tmp_path) == before
    assert train(tmp_path, tmp_path / "images" / "run") == 2
    assert "where its pictures would be read as images; give an OUTPUT_DIR outside" in (
        capfd.readouterr().err
    )


def test_files_of_one_split_are_refused_with_their_names(tmp_path):
    coco_tree(tmp_path)
    write_text(tmp_path / "annotations" / "keypoints_train2017.json", coco("train"))
    with pytest.raises(UserError, match="could mean 3 datasets") as found:
        recognize(tmp_path)
    assert "keypoints_train2017.json (COCO)" in str(found.value)


def test_images_outside_of_the_folders_of_the_splits_are_refused(tmp_path):
    yolo_without_yaml(tmp_path)
    write_image(tmp_path / "images" / "more.png")
    with pytest.raises(UserError, match=r"more\.png is in none of the folders of train, val"):
        recognize(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"has 1 images and no annotations that are recognized; there must be a YOLO"),
        (
            {"a.json": '{"shapes": [], "imagePath": "a.png"}'},
            r"LabelMe.* export the dataset as COCO",
        ),
        ({"a.csv": "image,size\na.png,3\n"}, r"a\.csv: no column is 'x, y, width, height'"),
        ({"a.csv": csv("train")}, r"none of the images that .*a\.csv names \(first: traina\.png\)"),
        ({"one.txt": GOOD}, r"nothing says the names of their classes; write classes\.txt"),
        ({"a/x.txt": "a", "a.yaml": "SEED: 1\n"}, r"no annotations that are recognized"),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused_with_what_is_missing(tmp_path, files, message):
    write_image(tmp_path / "one.png")
    for name, text in files.items():
        write_text(tmp_path / name, text)
    with pytest.raises(UserError, match=message):
        recognize(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nothing", None, r"--data .*nothing does not exist"),
        ("c.yaml", "SEED: 1\n", r"c\.yaml is no dataset; give a training config as --config-file"),
        ("a.json", "[]", r"a\.json is neither a COCO file"),
        ("a.json", "{", r"a\.json, line 1: not valid JSON"),
        ("a.csv", "a,b\n1,2\n", r"a\.csv: no column is 'image, x, y, width, height'"),
        ("a.doc", "a", r"a\.doc is no dataset; give its folder, or a YOLO data\.yaml"),
    ],
)
def test_a_file_that_is_no_dataset_is_refused(tmp_path, name, text, message):
    if text is not None:
        write_text(tmp_path / name, text)
    with pytest.raises(UserError, match=message):
        recognize(tmp_path / name)


def test_a_validation_split_is_made_by_group_and_kept(tmp_path, monkeypatch, capfd):
    """No patient is in both splits, a second run has the same ones, and --eval-only reads them."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "cells"
    names = [f"P{patient:02d}_{number}" for patient in range(15) for number in range(2)]
    for name in names:
        write_image(root / "images" / f"{name}.png")
        write_text(root / "labels" / f"{name}.txt", GOOD)
    write_text(root / "data.yaml", "names: [ring]\n")
    assert train(root, Path("one")) == train(root, Path("two")) == 0
    log = (tmp_path / "one" / "log.txt").read_text()
    assert "the data have no validation split, so a part of the training images" in log
    assert "images whose names differ in the last number alone stay together" in log
    folds = [json.loads((tmp_path / run / "dataset" / "folds.json").read_text()) for run in RUNS]
    assert folds[0] == folds[1]
    assert folds[0]["fold_of"].keys() == {f"images/{name[:3]}" for name in names}
    held_out = {group for group, fold in folds[0]["fold_of"].items() if fold == 0}
    assert 0.1 * 15 <= len(held_out) <= 0.3 * 15
    count = 2 * len(held_out)
    assert f": YOLO, {30 - count} train and {count} val images, classes ring\n" in log
    config = yaml.safe_load((tmp_path / "one" / "config.yaml").read_text())
    assert config["DATASETS"]["FOLDS_FILE"] == str(tmp_path / "one" / "dataset" / "folds.json")
    monkeypatch.chdir(root)
    again = ["--config-file", "../one/config.yaml", "--eval-only", "OUTPUT_DIR", "../three"]
    assert run([*again, "MODEL.WEIGHTS", "../one/model_final.pth"]) == 0
    assert f": {count} images (0 without boxes)" in (tmp_path / "three" / "log.txt").read_text()
    capfd.readouterr()
    assert ulga(["data", "check", "../one/config.yaml", "--headers"]) < 2
    assert "cells_train" in (text := capfd.readouterr().out) and "cells_val" in text


def test_a_run_is_resumed_with_its_own_data_and_no_other(tmp_path, capfd):
    path, out = yolo_yaml(tmp_path / "cells"), tmp_path / "run"
    assert train(path, out) == 0
    assert train(path, out) == 2  # holds a run
    assert "already holds a run. Add --resume" in capfd.readouterr().err
    assert train(path, out, "--resume") == 0
    assert train(coco_tree(tmp_path / "cells2"), out, "--resume") == 2
    assert "holds a run on other data than --data" in capfd.readouterr().err


def test_every_model_name_has_a_config_and_others_are_refused(tmp_path, capfd):
    assert {f"custom_{model}" for model in MODELS} == {
        path.stem for path in CONFIGS.glob("custom_*.yaml")
    }
    path = yolo_yaml(tmp_path / "cells")
    assert ulga(["train", "--data", str(path), "--model", "swin_ulga_mini"]) == 2
    assert "--model swin_ulga_mini is unknown; did you mean swin_ulga" in capfd.readouterr().err
    assert ulga(["train", "--model", "swin_ulga"]) == 2
    assert "--model goes with --data PATH" in capfd.readouterr().err
    assert ulga(["train", "--data", str(path), "--model", "vit_ulga", "--config-file", "a"]) == 2
    assert "--model and --config-file both choose a model" in capfd.readouterr().err


def test_the_output_folder_has_the_names_of_dataset_and_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = yolo_yaml(tmp_path / "my cells")
    words = [word for pair in TINY.items() for word in pair]
    last = ["SOLVER.MAX_ITER", "1", "SOLVER.CHECKPOINT_PERIOD", "1"]
    assert run(["--data", str(path), "--model", "swin_baseline_nano", *words, *last]) == 0
    out = tmp_path / "output" / "my_cells_swin_baseline_nano"
    assert (out / "dataset" / "my_cells.yaml").is_file() and (out / "model_final.pth").is_file()


def test_a_classes_file_sets_the_order_of_a_csv_files_classes(tmp_path):
    csv_corners(tmp_path)
    found = recognize(tmp_path)
    assert found.content["class_names"] == ["dot", "ring"]
    assert found.notes[0].startswith("classes in alphabetical order; a classes.txt")
    write_text(tmp_path / "classes.txt", "ring\ndot\n")
    found = recognize(tmp_path)
    assert found.content["class_names"] == ["ring", "dot"]
    assert found.notes[0] == f"classes in the order of {tmp_path}/classes.txt"


def test_a_csv_column_that_names_the_split_is_reported_as_unused(tmp_path):
    write_images(tmp_path, "train")
    lines = csv("train").splitlines()
    write_text(tmp_path / "a.csv", "\n".join(f"{line},Split" for line in lines))
    assert "the column Split is not used" in recognize(tmp_path / "a.csv").notes[1]


def test_a_folds_file_of_the_user_divides_the_data(tmp_path):
    path = yolo_yaml(tmp_path / "cells")
    words = ["--folds", "3", "--group", "image", "--out", str(tmp_path / "folds.json")]
    assert ulga(["data", "split", str(path), *words]) == 0
    fold_of = json.loads((tmp_path / "folds.json").read_text())["fold_of"]
    out = tmp_path / "run"
    changes = tiny_options(out, SOLVER__MAX_ITER=1, DATASETS__FOLDS_FILE=tmp_path / "folds.json")
    assert ulga(["train", "--data", str(path), *changes]) == 0
    log = (out / "log.txt").read_text()
    assert f"DATASETS.FOLDS_FILE {tmp_path}/folds.json divides train and val anew" in log
    assert re.search(rf"cells_val from .*: {list(fold_of.values()).count(0)} images", log)


def test_a_csv_file_without_classes_has_one(tmp_path):
    write_images(tmp_path, "train")
    text = "\n".join(line.rpartition(",")[0] for line in csv("train").splitlines())
    write_text(tmp_path / "boxes.csv", text)
    assert recognize(tmp_path / "boxes.csv").content["class_names"] == ["object"]


@pytest.mark.parametrize(
    ("names", "group"),
    [
        ([f"P{n // 3}_{n}.png" for n in range(60)], "P0"),
        ([f"P{n // 3} slice{n}.png" for n in range(60)], "P0"),
        ([f"{n // 3}/{n}.png" for n in range(60)], "0"),
        ([f"a{n // 3}_jpg.rf.{n:032x}.jpg" for n in range(60)], "a0_jpg"),
        ([f"img_{n}.png" for n in range(60)], None),  # one group
        ([f"{n}.png" for n in range(60)], None),
        ([f"P{n // 30}_{n}.png" for n in range(60)], None),  # two groups
        ([f"P{n // 3}_{n}.png" for n in range(60)] + ["odd.png"], None),
        ([], None),
    ],
)
def test_images_of_one_group_are_told_by_their_names(names, group):
    found = grouping_of(names)
    assert (found and re.match(found[0], names[0])[1]) == group


def test_train_net_and_ulga_train_take_the_same_words():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--data", "x", "--model", "vit_ulga", "SEED", "1"])
    assert (args.data, args.model, args.opts) == ("x", "vit_ulga", ["SEED", "1"])


def one_split(labels: dict[str, list[int]], root: Path) -> Path:
    """Write YOLO images and labels of one split; return their folder."""
    for stem, classes in labels.items():
        write_image(root / "images" / f"{stem}.png")
        text = "\n".join(f"{number}{GOOD[1:]}" for number in classes)
        write_text(root / "labels" / f"{stem}.txt", text)
    write_text(root / "classes.txt", "ring\ndot\n")
    return root


@pytest.mark.parametrize("rare", range(0, 40, 5))
def test_a_class_of_one_image_is_trained_on_and_the_share_is_about_a_fifth(tmp_path, rare):
    letters = [f"{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(40)]
    labels = {stem: [0, 1] if n == rare else [0] for n, stem in enumerate(letters)}
    write_text(tmp_path / "d.yaml", "train: images\nnames: [ring, dot]\n")
    one_split(labels, tmp_path)
    loaded = load_custom(tmp_path / "d.yaml", "train")
    folds = hold_out("d", loaded, group="image").fold_of
    assert folds[f"train/images/{letters[rare]}"] != 0
    assert 4 <= list(folds.values()).count(0) <= 12


@pytest.mark.parametrize("labels", [{"a": [0]}, {"a": [0], "b": [], "c": []}])
def test_too_few_images_with_boxes_make_no_validation_split(tmp_path, labels, capfd):
    assert train(one_split(labels, tmp_path / "cells"), tmp_path / "run") == 2
    assert "are too few to make one; annotate more images" in capfd.readouterr().err


def test_data_without_training_images_are_refused(tmp_path, capfd):
    path = yolo_yaml(tmp_path / "cells")
    path.write_text("val: images/val\nnames: [ring, dot]\n")
    assert train(path, tmp_path / "run") == 2
    assert "--data: no training images, only the split val" in capfd.readouterr().err


def test_two_processes_train_on_one_made_split(tmp_path):
    labels = {chr(97 + n): [n % 2] for n in range(12)}
    path = one_split(labels, tmp_path / "cells")
    assert train(path, tmp_path / "run", "--num-gpus", "2") == 0
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("the data have no validation split") == 1
