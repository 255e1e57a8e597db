"""The shipped configs as a set, and the DATASETS keys from YAML to records."""

from __future__ import annotations

import argparse
import itertools

import pytest
from chest_files import patients_of, write_entries, write_nih
from coco_files import coco_dataset, write_dataset
from conftest import CONFIGS
from detectron2.data import DatasetCatalog, MetadataCatalog
from test_ccellbio import write_voc_tree

from ulga_d2 import get_cfg
from ulga_d2.config import merge_config
from ulga_d2.data.builtin import LOADERS, NAMES, load_split, register_all
from ulga_d2.data.folds import to_json
from ulga_d2.data.make_folds import make_folds
from ulga_d2.data.options import DatasetOptions
from ulga_d2.data.root import DATA_SETS
from ulga_d2.engine.checks import check_config
from ulga_d2.engine.datasets import build_options, load_run_data
from ulga_d2.engine.launch import read_config
from ulga_d2.errors import UserError

BACKBONES = ("vit", "swin", "dat")
VARIANTS = ("baseline", "ulga")


def cfg_of(leaf: str, *opts: object):
    cfg = get_cfg()
    merge_config(cfg, str(CONFIGS / f"{leaf}.yaml"), list(map(str, opts)))
    check_config(cfg)
    return cfg


def test_the_data_sets_that_doctor_looks_for_are_those_that_can_be_read():
    assert list(LOADERS) == list(DATA_SETS)


def test_every_data_set_has_a_leaf_for_each_backbone_with_and_without_ulga():
    wanted = {"_".join(parts) for parts in itertools.product(LOADERS, BACKBONES, VARIANTS)}
    assert len(wanted) == 30
    nano = {f"{dataset}_swin_{variant}_nano" for dataset in LOADERS for variant in VARIANTS}
    assert wanted | nano <= {path.stem for path in CONFIGS.glob("*.yaml")}


@pytest.mark.parametrize("dataset", LOADERS)
def test_a_leaf_names_splits_that_exist_and_healthy_images_stay(dataset):
    for leaf in (f"{dataset}_swin_ulga", f"{dataset}_swin_ulga_nano"):
        cfg = cfg_of(leaf)
        assert list(cfg.DATASETS.TRAIN) == [f"{dataset}_train"]
        assert list(cfg.DATASETS.TEST) == [f"{dataset}_val"]
        assert {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST} <= NAMES.keys()
        assert not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        assert build_options(cfg) == DatasetOptions()


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["DATASETS.COD10K_CLASSES", 5], r"COD10K_CLASSES is 5; give 1, or 69"),
        (["DATASETS.NIH_NEGATIVES", -1], r"NIH_NEGATIVES is -1; give a number of images, or 0"),
        (["DATASETS.FOLD", -1], r"DATASETS\.FOLD is -1; folds count from 0"),
    ],
)
def test_an_option_that_no_data_set_knows_is_refused(opts, message):
    with pytest.raises(UserError, match=message):
        cfg_of("cod10k_swin_ulga_nano", *opts)


@pytest.fixture
def nih_root(tmp_path, monkeypatch):
    """Point the data root at NIH films of three training and two validation patients."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_all()
    root = tmp_path / "nih_chest_xray"
    patients = patients_of("train", 3) + patients_of("val", 2)
    write_nih(root, [f"{patient}_000.png,Mass,1,2,30,40" for patient in patients])
    write_entries(root, {f"{patient}_001.png": "No Finding" for patient in patients})
    return root


def test_the_keys_reach_the_reader_and_the_catalog_keeps_the_defaults(nih_root):
    data = load_run_data(
        cfg_of("nih_chest_xray_swin_ulga_nano", "DATASETS.NIH_NEGATIVES", 2), with_training=True
    )
    assert len(data.train) == 5 and len(data.test["nih_chest_xray_val"]) == 4
    assert MetadataCatalog.get("nih_chest_xray_val").data_report["images_without_boxes"] == 2
    assert len(DatasetCatalog.get("nih_chest_xray_val")) == 2


def test_a_run_trains_on_all_folds_but_one(nih_root, tmp_path):
    pooled = {split: load_split(f"nih_chest_xray_{split}") for split in ("train", "val")}
    folds = make_folds("nih_chest_xray", pooled, k=2, group="patient", stratify=False, seed=1)
    (tmp_path / "folds.json").write_text(to_json(folds))
    options = ("DATASETS.FOLDS_FILE", tmp_path / "folds.json", "DATASETS.FOLD", 1)
    data = load_run_data(cfg_of("nih_chest_xray_swin_ulga_nano", *options), with_training=True)
    train, val = data.train, data.test["nih_chest_xray_val"]
    assert len(train) + len(val) == 5
    assert {folds.fold_of[record["patient_id"]] for record in val} == {1}
    assert {folds.fold_of[record["patient_id"]] for record in train} == {0}


def test_an_unknown_data_set_is_refused_with_the_nearest(nih_root):
    cfg = cfg_of("nih_chest_xray_swin_ulga_nano", "DATASETS.TEST", "('nih_chest_xry_val',)")
    with pytest.raises(UserError, match=r"nih_chest_xry_val; did you mean nih_chest_xray_val\?"):
        load_run_data(cfg, with_training=False)


def test_a_foreign_data_set_works_but_not_with_our_fold_files(nih_root):
    records = [{"annotations": []}]
    DatasetCatalog.register("foreign", lambda: records)
    MetadataCatalog.get("foreign").set(thing_classes=["thing"])
    try:
        opts = ("DATASETS.TEST", "('foreign',)")
        cfg = cfg_of("nih_chest_xray_swin_ulga_nano", *opts)
        assert load_run_data(cfg, with_training=False).test == {"foreign": records}
        cfg = cfg_of("nih_chest_xray_swin_ulga_nano", *opts, "DATASETS.FOLDS_FILE", "folds.json")
        with pytest.raises(UserError, match="FOLDS_FILE divides data sets that this project reads"):
            load_run_data(cfg, with_training=False)
    finally:
        DatasetCatalog.remove("foreign")
        MetadataCatalog.remove("foreign")


OWN = """
name: mine
format: voc
root: cells
splits:
  train: {images: JPEGImages, annotations: Annotations, list: ImageSets/Main/train.txt}
  val: {images: JPEGImages, annotations: Annotations, list: ImageSets/Main/val.txt}
"""


def test_a_users_own_set_is_named_by_its_yaml(tmp_path):
    write_voc_tree(tmp_path / "cells")
    (tmp_path / "mine.yaml").write_text(OWN)
    opts = ["DATASETS.CUSTOM", tmp_path / "mine.yaml", "DATASETS.TRAIN", "('mine_train',)"]
    cfg = cfg_of("ccellbio_swin_ulga_nano", *opts, "DATASETS.TEST", "('mine_val',)")
    data = load_run_data(cfg, with_training=True)
    assert data.class_names == ("RBC", "WBC")
    assert [record["image_id"] for record in data.train] == ["a"]
    assert MetadataCatalog.get("mine_val").data_report["boxes"] == {"RBC": 1, "WBC": 0}
    cfg = cfg_of("ccellbio_swin_ulga_nano", *opts, "DATASETS.TEST", "('mine_test',)")
    with pytest.raises(UserError, match=r"unknown data set mine_test; did you mean mine_"):
        load_run_data(cfg, with_training=True)


def test_images_of_groups_alone_are_never_trained_as_background(tmp_path):
    content = coco_dataset(images=4, objects=2)
    for item in content["annotations"]:
        item["iscrowd"] = int(item["image_id"] == content["images"][0]["id"])
    yaml_file = write_dataset(tmp_path, {"train": content, "val": content})
    opts = ["DATASETS.CUSTOM", yaml_file, "DATASETS.TRAIN", "('own_train',)"]
    cfg = cfg_of("ccellbio_swin_ulga_nano", *opts, "DATASETS.TEST", "('own_val',)")
    data = load_run_data(cfg, with_training=True)
    assert len(data.train) == 3 and len(data.test["own_val"]) == 4
    for item in content["annotations"]:
        item["iscrowd"] = "1"
    write_dataset(tmp_path, {"train": content, "val": content})
    with pytest.raises(UserError, match=r"all boxes are marked as groups \(iscrowd 1\)"):
        load_run_data(cfg, with_training=True)


def test_a_custom_set_alone_means_its_train_and_val_splits(tmp_path, monkeypatch):
    write_voc_tree(tmp_path / "cells")
    (tmp_path / "mine.yaml").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    args = argparse.Namespace(eval_only=False, num_gpus=1, num_machines=1)
    args.config_file = "configs/custom_swin_ulga_nano.yaml"
    args.opts = ["DATASETS.CUSTOM", "mine.yaml"]
    cfg = read_config(args)
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("mine_train",), ("mine_val",))
    assert cfg.DATASETS.CUSTOM == str(tmp_path / "mine.yaml")
    assert cfg.OUTPUT_DIR == "output/mine_swin_ulga_nano"
    args.config_file = "configs/ccellbio_swin_ulga_nano.yaml"
    cfg = read_config(args)
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("mine_train",), ("mine_val",))
    args.opts = [*args.opts, "DATASETS.TEST", "('mine_train',)"]
    assert read_config(args).DATASETS.TRAIN == ("ccellbio_train",)
    (tmp_path / "mine.yaml").write_text(OWN.replace("val:", "dev:"))
    args.opts = args.opts[:2]
    with pytest.raises(UserError, match=r"mine\.yaml has no split val; it has train, dev\. Name"):
        read_config(args)


def test_a_custom_config_without_data_says_how_to_name_them(tmp_path):
    cfg = cfg_of("custom_swin_ulga_nano")
    with pytest.raises(UserError, match=r"must each name a dataset; .* give --data PATH, or"):
        load_run_data(cfg, with_training=True)
