"""Our datasets in detectron2's catalogs, as a config describes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from annotation_files import RECT, via_file, via_region, voc_file, voc_object, write_voc_set
from chest_files import patients_of, write_entries, write_nih
from data_files import coco_content, write_coco, write_image
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

import ulga_d2
from ulga_d2.data.custom import load_custom
from ulga_d2.data.folds import to_json
from ulga_d2.data.make_folds import make_folds
from ulga_d2.errors import UserError


def config(custom: Path | str = "", **datasets: object) -> CfgNode:
    cfg = ulga_d2.get_cfg()
    cfg.DATASETS.CUSTOM = str(custom)
    for key, value in datasets.items():
        cfg.DATASETS[key] = value
    return cfg


def describe(folder: Path, format_: str, splits: dict, **keys: object) -> Path:
    content = {"name": "mine", "format": format_, "root": ".", "splits": splits, **keys}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    return folder / "mine.yaml"


def voc(folder: Path, **keys: object) -> Path:
    write_voc_set(folder, a=voc_file(voc_object("ring")), b=voc_file(voc_object("dot")))
    (folder / "train.txt").write_text("a\n")
    (folder / "val.txt").write_text("b\n")
    splits = {
        split: {"images": "JPEGImages", "annotations": "Annotations", "list": f"{split}.txt"}
        for split in ("train", "val")
    }
    return describe(folder, "voc", splits, **keys)


def coco(folder: Path) -> Path:
    write_coco(folder, coco_content())
    paths = {"images": "train", "annotations": "train/_annotations.coco.json"}
    return describe(folder, "coco", {"train": paths})


def csv(folder: Path) -> Path:
    write_image(folder / "images" / "a.png")
    (folder / "boxes.csv").write_text("image,x1,y1,x2,y2,class\na.png,4,2,12,12,ring\n")
    paths = {"images": "images", "annotations": "boxes.csv"}
    return describe(folder, "csv", {"train": paths})


def via(folder: Path) -> Path:
    write_image(folder / "images" / "a.png")
    (folder / "train.json").write_text(json.dumps(via_file(via_region(RECT, kind="ring"))))
    paths = {"images": "images", "annotations": "train.json"}
    return describe(folder, "via", {"train": paths}, class_attribute="kind")


@pytest.mark.parametrize("write", [voc, coco, csv, via])
def test_class_names_are_those_of_the_records_and_no_image_is_opened_for_them(
    write, tmp_path, catalogs
):
    path = write(tmp_path)
    expected = load_custom(path, "train").class_names
    for image in (*tmp_path.rglob("*.png"), *tmp_path.rglob("*.jpg")):
        image.unlink()
    ulga_d2.register_datasets(config(path))
    assert MetadataCatalog.get("mine_train").thing_classes == list(expected)


def test_the_catalog_gives_the_records_of_each_split(tmp_path, catalogs):
    path = voc(tmp_path)
    ulga_d2.register_datasets(config(path))
    for split in ("train", "val"):
        assert DatasetCatalog.get(f"mine_{split}") == load_custom(path, split).records


def test_a_second_call_changes_nothing_and_keeps_what_others_have_set(tmp_path, catalogs):
    cfg = config(voc(tmp_path))
    ulga_d2.register_datasets(cfg)
    metadata = MetadataCatalog.get("mine_train")
    metadata.thing_colors = [(255, 0, 0), (0, 255, 0)]
    before = dict(DatasetCatalog.data)
    DatasetCatalog.get("mine_train")
    after_loading = metadata.as_dict()
    ulga_d2.register_datasets(cfg)
    assert before == DatasetCatalog.data
    assert MetadataCatalog.get("mine_train") is metadata
    assert metadata.as_dict() == after_loading and metadata.thing_colors


def test_loading_works_from_another_working_directory(tmp_path, catalogs, monkeypatch):
    voc(tmp_path)
    monkeypatch.chdir(tmp_path)
    ulga_d2.register_datasets(config("mine.yaml"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(DatasetCatalog.get("mine_train")) == 1


def test_the_class_names_of_the_config_are_taken_and_compared_with_the_data(tmp_path, catalogs):
    ulga_d2.register_datasets(config(voc(tmp_path), CLASS_NAMES=["ring", "dot"]))
    assert MetadataCatalog.get("mine_train").thing_classes == ["ring", "dot"]
    with pytest.raises(UserError, match=r"mine_train: \['dot', 'ring'\](.|\n)*CLASS_NAMES"):
        DatasetCatalog.get("mine_train")


def test_a_name_that_other_code_has_registered_is_refused_and_nothing_is_registered(
    tmp_path, catalogs
):
    DatasetCatalog.register("mine_val", list)
    with pytest.raises(UserError, match=r"mine_val is already .* by other code; change `name` in"):
        ulga_d2.register_datasets(config(voc(tmp_path)))
    assert DatasetCatalog["mine_val"] is list and "mine_train" not in DatasetCatalog.list()
    DatasetCatalog.pop("brain_tumor_val")
    DatasetCatalog.register("brain_tumor_val", list)
    with pytest.raises(UserError, match=r"brain_tumor_val is already registered"):
        ulga_d2.register_datasets(config(TEST=("brain_tumor_val",)))


def test_two_custom_datasets_of_one_name_are_refused(tmp_path, catalogs):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    ulga_d2.register_datasets(config(voc(tmp_path / "a")))
    with pytest.raises(UserError, match=r"mine_train is already .* by .*a.mine\.yaml; change"):
        ulga_d2.register_datasets(config(voc(tmp_path / "b")))


def test_a_custom_dataset_with_the_name_of_a_built_in_one_is_refused(tmp_path, catalogs):
    paths = {"images": "JPEGImages", "annotations": "Annotations"}
    voc(tmp_path)
    path = describe(tmp_path, "voc", {"tumor_train": paths}, name="brain")
    with pytest.raises(UserError, match=r"brain_tumor_train is the name of a built-in dataset"):
        ulga_d2.register_datasets(config(path))


def test_a_built_in_dataset_gets_its_class_names_without_data(monkeypatch, catalogs):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/nowhere")
    names = ["ring", "solid"]
    ulga_d2.register_datasets(config(TEST=("brain_tumor_val",), CLASS_NAMES=names))
    assert MetadataCatalog.get("brain_tumor_val").thing_classes == names
    with pytest.raises(UserError):
        DatasetCatalog.get("brain_tumor_val")


@pytest.fixture
def nih_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data root with NIH films of three training and two validation patients."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    patients = patients_of("train", 3) + patients_of("val", 2)
    root = tmp_path / "nih_chest_xray"
    write_nih(root, [f"{patient}_000.png,Mass,1,2,30,40" for patient in patients])
    write_entries(root, {f"{patient}_001.png": "No Finding" for patient in patients})
    return tmp_path


def test_the_loaders_heed_the_dataset_keys(nih_root, catalogs):
    name = "nih_chest_xray_val"
    ulga_d2.register_datasets(config(TEST=(name,), NIH_NEGATIVES=2))
    assert len(DatasetCatalog.get(name)) == 4
    ulga_d2.register_datasets(config(TEST=(name,)))
    assert len(DatasetCatalog.get(name)) == 2
    assert MetadataCatalog.get(name).data_report["images_without_boxes"] == 0


def test_folds_of_a_custom_dataset_are_heeded(tmp_path, catalogs):
    path = voc(tmp_path)
    pooled = {split: load_custom(path, split) for split in ("train", "val")}
    folds = make_folds("mine", pooled, k=2, group="image", stratify=False, seed=1)
    (tmp_path / "folds.json").write_text(to_json(folds))
    for fold in (0, 1):
        options = {"FOLDS_FILE": str(tmp_path / "folds.json"), "FOLD": fold}
        ulga_d2.register_datasets(config(path, **options))
        found = {record["image_id"] for record in DatasetCatalog.get("mine_val")}
        assert found == {group for group, number in folds.fold_of.items() if number == fold}


def test_importing_the_package_and_its_keys_does_not_import_torch():
    code = "import sys, ulga_d2, ulga_d2.keys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_attribute_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'register_dataset'"):
        ulga_d2.register_dataset  # noqa: B018
