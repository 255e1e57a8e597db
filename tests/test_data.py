"""Where data sets lie, and how detectron2 comes to know them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from data_files import (
    GOOD,
    HEIGHT,
    IMAGES_FIRST,
    SPLIT_FIRST,
    WIDTH,
    coco_content,
    write_coco,
    write_yolo,
)
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ulga_d2.data.brain_tumor import describe, find_layout, load_brain_tumor
from ulga_d2.data.builtin import register_all
from ulga_d2.data.progress import with_progress
from ulga_d2.errors import UserError


@pytest.fixture(autouse=True)
def captured_logs(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let caplog see our loggers even after another test has set up detectron2's handlers."""
    monkeypatch.setattr(logging.getLogger("ulga_d2"), "propagate", True)
    caplog.set_level(logging.INFO, logger="ulga_d2")


@pytest.mark.parametrize(
    ("tree", "folder", "split"),
    [
        (IMAGES_FIRST, "train", "train"),
        (IMAGES_FIRST, "val", "val"),
        (IMAGES_FIRST, "test", "test"),
        (SPLIT_FIRST, "train", "train"),
        (SPLIT_FIRST, "valid", "val"),
        (SPLIT_FIRST, "test", "test"),
    ],
)
def test_both_yolo_trees_give_the_same_exact_records(tmp_path, tree, folder, split):
    labels = {"val_1 (117)": "1 0.5 0.5 0.2 0.4\n", "b": ""}
    write_yolo(tmp_path, labels, split=folder, tree=tree)
    loaded = load_brain_tumor(tmp_path, split)
    assert loaded.class_names == ("solid", "ring")
    images = tmp_path / tree[0].format(folder)
    empty, boxed = loaded.records
    assert empty == {
        "file_name": str(images / "b.png"),
        "image_id": "b",
        "height": HEIGHT,
        "width": WIDTH,
        "annotations": [],
    }
    assert boxed == {
        "file_name": str(images / "val_1 (117).png"),
        "image_id": "val_1 (117)",
        "height": HEIGHT,
        "width": WIDTH,
        "annotations": [
            {
                "bbox": [16.0, 6.0, 24.0, 14.0],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": 1,
                "iscrowd": 0,
            }
        ],
    }


def test_coco_gives_exact_records_and_drops_the_placeholder_parent(tmp_path):
    loaded = load_brain_tumor(write_coco(tmp_path, coco_content(), "valid"), "val")
    assert loaded.class_names == ("label0", "label1")
    boxed, empty = loaded.records
    assert boxed["annotations"] == [
        {
            "bbox": [4.0, 2.0, 12.0, 12.0],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": 1,
            "iscrowd": 0,
        }
    ]
    assert (boxed["image_id"], empty["image_id"], empty["annotations"]) == (7, 9, [])


def test_layout_is_found_in_the_only_subfolder_that_has_one(tmp_path):
    write_yolo(tmp_path / "brain-tumor", {"a": ""})
    (tmp_path / "notes").mkdir()
    layout = find_layout(tmp_path)
    assert layout is not None and layout.root == tmp_path / "brain-tumor"


def test_describe_counts_the_images_of_each_split(tmp_path):
    write_yolo(tmp_path, {"a": "", "b": ""})
    write_yolo(tmp_path, {"c": ""}, split="val")
    assert describe(find_layout(tmp_path)) == "YOLO, 2 train / 1 val images"


def test_no_layout_is_none_not_an_error(tmp_path):
    assert find_layout(tmp_path) is None
    assert find_layout(tmp_path / "missing") is None


def test_finding_a_layout_needs_the_standard_library_alone(tmp_path):
    write_yolo(tmp_path, {"a": ""})
    code = (
        "import sys\n"
        "for name in ('torch', 'numpy', 'yaml', 'cv2', 'detectron2', 'PIL', 'iopath'):\n"
        "    sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from ulga_d2.data.brain_tumor import describe, find_layout\n"
        "from ulga_d2.data.root import data_root\n"
        "print(describe(find_layout(Path(sys.argv[1]))), data_root())\n"
    )
    environment = {**os.environ, "DETECTRON2_DATASETS": ""}
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[1],
    )
    assert result.stdout == "YOLO, 1 train images datasets\n", result.stderr


def test_two_layouts_at_once_are_refused_and_both_named(tmp_path):
    write_yolo(tmp_path, {"a": ""})
    write_coco(tmp_path, coco_content())
    with pytest.raises(UserError, match=r"2 layouts at once, YOLO in .* and COCO in .*move one"):
        find_layout(tmp_path)


def test_two_folders_for_one_split_are_refused_and_both_named(tmp_path):
    write_yolo(tmp_path, {"a": ""}, split="val")
    write_yolo(tmp_path, {"a": ""}, split="valid")
    with pytest.raises(UserError, match=r"images/val and .*images/valid would both be the val"):
        find_layout(tmp_path)


def test_missing_data_say_what_was_looked_for_and_how_to_go_on(tmp_path):
    with pytest.raises(UserError) as error:
        load_brain_tumor(tmp_path / "brain_tumor", "train")
    message = str(error.value)
    for part in (
        "brain_tumor does not exist",
        "YOLO: images/{train,val,test} and labels/{train,val,test}",
        "YOLO: {train,valid,test}/images and {train,valid,test}/labels",
        "COCO: {train,valid,test}/_annotations.coco.json",
        "datasets/README.md",
        "DETECTRON2_DATASETS",
        f"ulga sample brain_tumor {tmp_path / 'brain_tumor'}",
    ):
        assert part in message
    (tmp_path / "brain_tumor").mkdir()
    with pytest.raises(
        UserError, match=r"holds none of these folder trees(.|\n)*, move that folder away"
    ):
        load_brain_tumor(tmp_path / "brain_tumor", "train")


def test_missing_split_names_the_splits_that_exist(tmp_path):
    write_yolo(tmp_path, {"a": ""})
    with pytest.raises(UserError, match=r"have no test split \(YOLO, 1 train images\); name anoth"):
        load_brain_tumor(tmp_path, "test")


def test_reading_writes_nothing_into_the_data(tmp_path):
    write_yolo(tmp_path, {"a": "0 0.5 0.5 0.2 0.2"})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    load_brain_tumor(tmp_path, "train")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_all()
    return tmp_path / "brain_tumor"


def test_registering_twice_changes_nothing_and_reads_nothing(monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/nowhere")
    register_all()
    before = {name: DatasetCatalog[name] for name in DatasetCatalog.list()}
    register_all()
    assert {name: DatasetCatalog[name] for name in DatasetCatalog.list()} == before
    assert {"brain_tumor_train", "brain_tumor_val", "brain_tumor_test"} <= set(before)


def test_loading_sets_the_metadata_and_says_what_was_read(data_folder, caplog):
    write_yolo(data_folder, {"a": f"{GOOD}\n0 0.5 0.5 0 0", "b": ""})
    records = DatasetCatalog.get("brain_tumor_train")
    metadata = MetadataCatalog.get("brain_tumor_train")
    assert len(records) == 2
    assert metadata.thing_classes == ["solid", "ring"]
    assert metadata.evaluator_type == "coco"
    assert metadata.data_report["boxes"] == {"solid": 1, "ring": 0}
    assert metadata.data_report["reasons"] == {"boxes without area dropped": 1}
    assert json.dumps(metadata.data_report)
    summary, oddities = (record.getMessage() for record in caplog.records)
    assert "2 images (1 without boxes), 1 boxes (solid 1, ring 0)" in summary
    assert "1 boxes without area dropped (first: " in oddities and "a.txt, line 2" in oddities


def test_a_set_can_be_read_again_from_another_root(data_folder, monkeypatch, tmp_path_factory):
    write_yolo(data_folder, {"a": GOOD})
    DatasetCatalog.get("brain_tumor_train")
    other = tmp_path_factory.mktemp("other")
    write_yolo(other / "brain_tumor", {"a": GOOD}, names="names: [lesion]")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(other))
    DatasetCatalog.get("brain_tumor_train")
    assert MetadataCatalog.get("brain_tumor_train").thing_classes == ["lesion"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, r"brain_tumor_train has no image; check that labels lie where"),
        ({"a": ""}, r"brain_tumor_train has no box in its 1 images; check"),
        (
            {"a": "0 20 10 8 8"},
            r"a\.txt, line 1: 20 is above 1, .* seem to be pixels",
        ),
    ],
)
def test_a_set_without_images_or_boxes_is_refused(data_folder, labels, message):
    write_yolo(data_folder, labels)
    (data_folder / "images" / "train").mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError, match=message):
        DatasetCatalog.get("brain_tumor_train")


def test_only_a_loop_that_takes_long_reports_its_progress(caplog, monkeypatch):
    now = iter(range(0, 1000, 2))
    clock: Callable[[], float] = lambda: float(next(now))  # noqa: E731
    monkeypatch.setattr("ulga_d2.data.progress.time.monotonic", clock)
    logger = logging.getLogger("ulga_d2.test")
    assert list(with_progress(range(6), "reading x", logger)) == list(range(6))
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "reading x: 2 of 6, about 12 s left",
        "reading x: 5 of 6, about 2 s left",
        "reading x: 6 of 6, 14 s",
    ]
