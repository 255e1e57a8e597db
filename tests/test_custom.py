"""A user's own data set from one YAML file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from annotation_files import RECT, via_file, via_region, voc_file, voc_object, write_voc_set
from data_files import GOOD, WIDTH, boxes_of, coco_content, write_image, write_yolo
from data_files import write_coco as write_coco_set

from ulga_d2.data.custom import custom_splits, load_custom
from ulga_d2.errors import UserError

VOC_SPLITS = {
    split: {"images": "JPEGImages", "annotations": "Annotations", "list": f"{split}.txt"}
    for split in ("train", "val")
}


def write(folder: Path, description: object, **changes: object) -> Path:
    """Write the description; a change to None takes the key out."""
    path = folder / "own.yaml"
    if isinstance(description, dict):
        keys = {"name": "own", "root": "."} | description | changes
        description = yaml.safe_dump(
            {key: value for key, value in keys.items() if value is not None}, sort_keys=False
        )
    path.write_text(description)
    return path


def voc(folder: Path, **changes: object) -> Path:
    write_voc_set(folder, p1_a=voc_file(voc_object("ring")), p2_a=voc_file(voc_object("dot")))
    (folder / "train.txt").write_text("p1_a\n")
    (folder / "val.txt").write_text("p2_a\n")
    return write(folder, {"format": "voc", "splits": VOC_SPLITS}, **changes)


def test_voc_splits_of_one_folder_have_the_same_classes(tmp_path):
    path = voc(tmp_path)
    assert custom_splits(path) == ("own", ("train", "val"))
    train, val = (load_custom(path, split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("dot", "ring")
    assert [record["image_id"] for record in val.records] == ["p2_a"]
    assert not train.report.reasons and "patient_id" not in train.records[0]


def test_class_names_and_their_order_can_be_given(tmp_path):
    assert load_custom(voc(tmp_path, class_names=["ring", "dot"]), "train").class_names == (
        "ring",
        "dot",
    )
    with pytest.raises(UserError, match=r"unknown classes 'dot' \(1 boxes\); there are ring"):
        load_custom(voc(tmp_path, class_names=["ring"]), "val")


def test_the_patient_is_found_in_the_path_of_the_image(tmp_path):
    loaded = load_custom(voc(tmp_path, patient="^(p[0-9]+)_"), "train")
    assert loaded.records[0]["patient_id"] == "p1"
    with pytest.raises(UserError, match=r"`patient` \^x\(y\) finds nobody in p1_a\.png; extend"):
        load_custom(voc(tmp_path, patient="^x(y)"), "train")


def test_coco_is_read_and_images_that_it_does_not_name_are_listed(tmp_path):
    write_coco_set(tmp_path, coco_content())
    write_image(tmp_path / "train" / "forgotten.png")
    split = {"images": "train", "annotations": "train/_annotations.coco.json"}
    loaded = load_custom(write(tmp_path, {"format": "coco", "splits": {"all": split}}), "all")
    assert loaded.class_names == ("label0", "label1")
    assert loaded.report.reasons == {"images in the folder that the split does not use": 1}


def test_yolo_is_read_with_its_class_names(tmp_path):
    write_yolo(tmp_path, {"a": GOOD})
    splits = {"train": {"images": "images/train", "labels": "labels/train"}}
    description = {"format": "yolo", "splits": splits}
    with pytest.raises(UserError, match=r"write `class_names: \[first class, second class\]`"):
        load_custom(write(tmp_path, description), "train")
    loaded = load_custom(write(tmp_path, description, class_names=["solid", 2]), "train")
    assert loaded.class_names == ("solid", "2")


def test_csv_is_read_with_its_columns(tmp_path):
    write_image(tmp_path / "images" / "a.png")
    (tmp_path / "boxes.csv").write_text("bild,x1,y1,x2,y2,label\na.png,4,2,12,12,ring\n")
    splits = {"train": {"images": "images", "annotations": "boxes.csv"}}
    description = {"format": "csv", "splits": splits, "columns": {"image": "bild"}}
    assert boxes_of(load_custom(write(tmp_path, description), "train").records[0]) == [
        [4, 2, 12, 12]
    ]


def test_via_splits_share_the_classes_of_both_files(tmp_path):
    splits = {}
    for split, kind in (("train", "ring"), ("val", "dot")):
        write_image(tmp_path / split / "a.png")
        value = via_file(via_region(RECT, kind=kind, note="good"))
        (tmp_path / f"{split}.json").write_text(json.dumps(value))
        splits[split] = {"images": split, "annotations": f"{split}.json"}
    description = {"format": "via", "splits": splits, "class_attribute": "kind"}
    assert load_custom(write(tmp_path, description), "val").class_names == ("dot", "ring")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "vok"}, r"own\.yaml: format is 'vok'; did you mean voc\?"),
        ({"format": None}, r"format is 'None'; it must be one of coco, yolo, voc, csv, via"),
        ({"root": None}, r"the key root is missing"),
        ({"pateint": "x"}, r"unknown key pateint; did you mean patient\?"),
        ({"class_attribute": "x"}, r"unknown key class_attribute"),
        ({"name": "a b"}, r"name 'a b' may hold letters, digits"),
        ({"name": "brain_tumor"}, r"brain_tumor is a data set of ours; choose another name"),
        ({"name": 3}, r"name is '3', not text; put it in quotes"),
        ({"splits": {}}, r"splits must hold one entry a split"),
        ({"splits": {"train": "x"}}, r"splits\.train must hold images, annotations"),
        ({"splits": {"train": {"images": "JPEGImages"}}}, r"splits\.train\.annotations is missing"),
        (
            {"splits": {"train": VOC_SPLITS["train"] | {"labels": "x"}}},
            r"unknown key splits\.train\.labels",
        ),
        (
            {"splits": {"train": VOC_SPLITS["train"] | {"list": "Annotations"}}},
            r"splits\.train\.list leads to .*Annotations, which is no file; correct it or root",
        ),
        ({"root": "elsewhere"}, r"splits\.train\.images leads to .*elsewhere/JPEGImages, which is"),
        ({"class_names": "ring"}, r"class_names must be a list of names"),
        ({"class_names": [True]}, r"class_names must be a list of names, in quotes"),
        ({"class_names": ["a", "a"]}, r"a class name stands twice"),
        ({"class_names": ["a", "a "]}, r"a class name stands twice"),
        ({"class_names": [1.5]}, r"class_names must be a list of names, in quotes"),
        ({"class_names": ["a\x07"]}, r"the class name 'a\\x07' holds control characters"),
        ({"class_names": ["x" * 501]}, r"the class name 'x{20}'\.\.\. has 501 characters"),
        ({"voc_base": 2}, r"voc_base is '2'; write 1 where the first pixel is 1"),
        ({"voc_base": True}, r"voc_base is 'True'"),
        ({"patient": "("}, r"patient '\(' is no pattern"),
        ({"patient": "a"}, r"has 0 groups; put the part of the path"),
    ],
)
def test_a_faulty_description_is_refused_with_the_key_and_the_cure(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        load_custom(voc(tmp_path, **changes), "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"own\.yaml: no data set; write name, format, root, splits"),
        ("- a", r"no data set"),
        ("a: [", r"own\.yaml is not valid YAML"),
        ("name: a\nname: b", r"the key 'name' is given twice, in lines 1 and 2"),
        ("1: a\ntrue: b", r"the key 'true' is given twice"),
        ("a: &a [*a]", r"once its aliases are written out"),
        (
            "a0: &a0 [x]\n"
            + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)),
            r"once its aliases are written out",
        ),
        ("a: !!python/name:os.system", r"not valid YAML"),
        ("a: 2026-99-99", r"not valid YAML: month must be in"),
        ("[" * 5000, r"not valid YAML: nested too deeply"),
        ("# long\n" * 150_000, r"has more than the 1,000,000 characters"),
        ("a: " + "9" * 5000, r"not valid YAML: a whole number of more than 1,000"),
        ("format: voc\nformat: yolo", r"the key 'format' is given twice"),
        ("names: [010, 2]", r"010 would be read as the number 8; put it in quotes"),
        ("names: [1_0]", r"1_0 would be read as the number 10"),
        ("names: [1:30]", r"1:30 would be read as the number 90"),
        ("{" * 90_000, r"not valid YAML"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        custom_splits(write(tmp_path, text))


def test_a_split_that_is_not_described_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"own\.yaml has no split test; it has train, val"):
        load_custom(voc(tmp_path), "test")


def test_the_root_is_relative_to_the_description(tmp_path, monkeypatch):
    voc(tmp_path / "data")
    path = write(tmp_path, {"format": "voc", "splits": VOC_SPLITS, "root": "data"})
    monkeypatch.chdir(tmp_path.parent)
    assert load_custom(path, "train").records[0]["width"] == WIDTH


def test_the_first_pixel_of_voc_files_is_that_of_all_splits(tmp_path):
    for split, corners in (("train", (0, 3, 10, 10)), ("val", (5, 3, 12, 12))):
        write_voc_set(tmp_path / split, a=voc_file(voc_object(corners=corners)))
    folders = {"images": "{}/JPEGImages", "annotations": "{}/Annotations"}
    splits = {
        split: {key: folder.format(split) for key, folder in folders.items()}
        for split in ("train", "val")
    }
    path = write(tmp_path, {"format": "voc", "splits": splits})
    assert boxes_of(load_custom(path, "val").records[0]) == [[5, 3, 12, 12]]
    path = write(tmp_path, {"format": "voc", "splits": splits, "voc_base": 1})
    assert boxes_of(load_custom(path, "val").records[0]) == [[4, 2, 12, 12]]


def test_a_pattern_that_never_ends_is_an_error(tmp_path):
    path = voc(tmp_path, patient="^((?:[^/]+)+)/x$")
    for kind in ("Annotations/p1_a.xml", "JPEGImages/p1_a.png"):
        file = tmp_path / kind
        file.rename(file.with_stem("p" * 40))
    (tmp_path / "train.txt").write_text("p" * 40)
    with pytest.raises(UserError, match=r"own\.yaml: patient .* does not come to an end .* pppp"):
        load_custom(path, "train")


def test_annotations_beside_their_images_are_no_unread_files(tmp_path):
    write_image(tmp_path / "all" / "a.png")
    (tmp_path / "all" / "a.xml").write_text(voc_file(voc_object()))
    (tmp_path / "all" / "a.txt").write_text(GOOD)
    split = {"images": "all", "annotations": "all"}
    path = write(tmp_path, {"format": "voc", "splits": {"train": split}})
    assert load_custom(path, "train").report.reasons == {"files not read (.txt)": 1}


def test_yolo_takes_a_list_of_a_splits_images(tmp_path):
    for name in "abc":
        write_image(tmp_path / "obj_train_data" / f"{name}.png")
        (tmp_path / "obj_train_data" / f"{name}.txt").write_text(GOOD)
    splits = {}
    for split, names in (("train", "ab"), ("val", "c")):
        lines = "".join(f"data/obj_train_data/{name}.png\n" for name in names)
        (tmp_path / f"{split}.txt").write_text(lines)
        folders = dict.fromkeys(("images", "labels"), "obj_train_data")
        splits[split] = {**folders, "list": f"{split}.txt"}
    path = write(tmp_path, {"format": "yolo", "splits": splits, "class_names": ["solid"]})
    assert [len(load_custom(path, split).records) for split in splits] == [2, 1]
    assert not load_custom(path, "train").report.dropped_images


def csv_set(folder: Path, prefix: str, **changes: object) -> Path:
    for name in "abc":
        write_image(folder / "elsewhere" / f"{name}.png")
    rows = [
        f"{prefix}{name}.png,4,2,12,12,{label}"
        for name, label in zip("ab", ("ring", "dot"), strict=True)
    ]
    (folder / "boxes.csv").write_text("\n".join(["image,x1,y1,x2,y2,label", *rows]))
    splits = {"train": {"annotations": "boxes.csv"}}
    return write(folder, {"format": "csv", "splits": splits}, **changes)


def test_the_folder_of_images_may_be_left_out_where_their_names_are_absolute(tmp_path):
    path = csv_set(tmp_path, f"{tmp_path}/elsewhere/")
    loaded = load_custom(path, "train")
    assert [record["file_name"] for record in loaded.records] == [
        str(tmp_path / "elsewhere" / f"{name}.png") for name in "ab"
    ]
    assert not loaded.report.reasons  # c.png need not be the dataset's
    content = coco_content()
    for image in content["images"]:
        image["file_name"] = str(tmp_path / "train" / image["file_name"])
    write_coco_set(tmp_path, content)
    splits = {"all": {"annotations": "train/_annotations.coco.json"}}
    path = write(tmp_path, {"format": "coco", "splits": splits})
    assert [record["image_id"] for record in load_custom(path, "all").records] == [7, 9]


def test_a_folder_of_images_is_needed_where_their_names_are_relative(tmp_path):
    with pytest.raises(UserError, match=r"boxes\.csv names a\.png, which is no absolute path; wri"):
        load_custom(csv_set(tmp_path, ""), "train")


def test_the_order_of_a_csv_files_classes_is_stated_or_alphabetical_and_logged(tmp_path, caplog):
    caplog.set_level("INFO")
    path = csv_set(tmp_path, f"{tmp_path}/elsewhere/")
    assert load_custom(path, "train").class_names == ("dot", "ring")
    assert "classes in alphabetical order, dot, ring; `class_names` sets another" in caplog.text
    caplog.clear()
    path = csv_set(tmp_path, f"{tmp_path}/elsewhere/", class_names=["ring", "dot"])
    loaded = load_custom(path, "train")
    assert loaded.class_names == ("ring", "dot") and "alphabetical" not in caplog.text
    assert [record["annotations"][0]["category_id"] for record in loaded.records] == [0, 1]


def test_a_data_yaml_may_say_whose_images_they_are(tmp_path):
    write_yolo(tmp_path, {"p1_a": GOOD, "p2_a": GOOD})
    (tmp_path / "data.yaml").write_text(
        "train: images/train\nnames: [solid]\npatient: '/([^/]+)_'\n"
    )
    loaded = load_custom(tmp_path / "data.yaml", "train")
    assert [record["patient_id"] for record in loaded.records] == ["p1", "p2"]
    assert not loaded.report.reasons
