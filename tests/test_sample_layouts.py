"""Every layout of the sample generator is read back by the reader of the real data set."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pydicom
import pytest
from PIL import Image
from pycocotools import mask as run_lengths

from ulga_d2.cli.sample import FORMATS
from ulga_d2.data.builtin import LOADERS
from ulga_d2.data.image import read_image
from ulga_d2.data.options import DatasetOptions
from ulga_d2.data.sample import write_sample
from ulga_d2.data.sample.write import WRITERS

LAYOUTS = [(dataset, layout) for dataset, forms in WRITERS.items() for layout in forms]
TRAIN, VAL = 9, 5
# sha256 over all files of the first form that the generator had; pictures in the documents and
# results of training depend on it. Difficulty "medium", 5 + 2 images of 64 pixels, seed 6.
FIRST_FORM = "142870c497074ecee46f8a89adac1af5960e8224231691822a032bbac8a9fbec"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("samples")
    for dataset, layout in LAYOUTS:
        write(folder / layout / dataset, dataset, layout)
    return {layout: folder / layout / dataset for dataset, layout in LAYOUTS}


def write(root: Path, dataset: str, layout: str, **changes: object) -> None:
    parameters = {
        "num_train": TRAIN, "num_val": VAL, "size": 64, "difficulty": "easy", "seed": 3
    }  # fmt: skip
    write_sample(dataset, root, layout=layout, **parameters | changes)


def rows_of(root: Path) -> list[dict]:
    with open(root / "difficulty.csv", newline="") as file:
        return list(csv.DictReader(file))


def files_of(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def test_the_command_offers_every_layout():
    assert {name: tuple(forms) for name, forms in WRITERS.items()} == FORMATS


def test_the_first_form_is_byte_for_byte_what_it_was(tmp_path):
    root = tmp_path / "s"
    write_sample("brain_tumor", root, 5, 2, 64, "medium", 6)
    digest = hashlib.sha256()
    for name, data in sorted(files_of(root).items()):
        digest.update(name.encode() + data)
    assert digest.hexdigest() == FIRST_FORM


@pytest.mark.parametrize(("dataset", "layout"), LAYOUTS)
def test_the_reader_finds_the_boxes_of_the_masks_and_nothing_odd(roots, dataset, layout):
    root = roots[layout]
    rows = rows_of(root)
    for split, count in (("train", TRAIN), ("val", VAL)):
        loaded = LOADERS[dataset](root, split)
        assert len(loaded.records) == count
        assert not loaded.report.reasons
        expected = [
            [float(row[key]) for key in ("x0", "y0", "x1", "y1")]
            for row in rows
            if row["split"] == split
        ]
        found = [item["bbox"] for record in loaded.records for item in record["annotations"]]
        for boxes in (expected, found):
            boxes.sort(key=lambda box: [round(value) for value in box])
        # NIH's numbers are whole pixels of a viewer; Br35H's ellipses are fitted.
        tolerance = {"nih": 0.08}.get(layout, 1e-3)
        assert len(found) == len(expected)
        if layout == "via":
            assert np.median(np.abs(np.array(found) - expected)) < 1
        else:
            np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize(("dataset", "layout"), LAYOUTS)
def test_images_can_be_read_and_have_the_size_that_is_stated(roots, dataset, layout):
    for record in LOADERS[dataset](roots[layout], "train").records:
        assert read_image(record["file_name"]).shape == (record["height"], record["width"], 3)


@pytest.mark.parametrize(
    ("dataset", "layout"), [("brain_tumor", "cheng"), ("cod10k", "v2"), ("cod10k", "v3"),
                            ("ccellbio", "ours")]
)  # fmt: skip
def test_masks_have_the_boxes_as_their_bounds(roots, dataset, layout):
    for record in LOADERS[dataset](roots[layout], "train").records:
        for item in record["annotations"]:
            x, y, w, h = run_lengths.toBbox(item["segmentation"])
            tolerance = 0 if layout in ("cheng", "v2") else 1
            np.testing.assert_allclose([x, y, x + w, y + h], item["bbox"], atol=tolerance)


def test_outlines_cover_their_masks(roots):
    exact = LOADERS["cod10k"](roots["v2"], "train").records
    traced = LOADERS["cod10k"](roots["v3"], "train").records
    ious = []
    for one, other in zip(exact, traced, strict=True):
        masks = [[a["segmentation"] for a in r["annotations"]] for r in (one, other)]
        ious += run_lengths.iou(*masks, [0] * len(masks[1])).max(axis=1).tolist()
    assert min(ious) > 0.8 and np.median(ious) > 0.95


@pytest.mark.parametrize(("dataset", "layout"), LAYOUTS)
def test_equal_parameters_give_equal_files(roots, tmp_path, dataset, layout):
    write(tmp_path / dataset, dataset, layout)
    assert files_of(tmp_path / dataset) == files_of(roots[layout])


@pytest.mark.parametrize(("dataset", "layout"), LAYOUTS)
def test_an_image_does_not_depend_on_how_many_there_are(roots, tmp_path, dataset, layout):
    if layout == "cheng":
        pytest.skip("its files are numbered across the splits")
    write(tmp_path / dataset, dataset, layout, num_train=TRAIN - 4)
    few, many = (
        {r["image_id"] if layout != "roboflow" else Path(r["file_name"]).name:
         (Path(r["file_name"]).read_bytes(), [a["bbox"] for a in r["annotations"]])
         for r in LOADERS[dataset](root, "train").records}
        for root in (tmp_path / dataset, roots[layout])
    )  # fmt: skip
    assert len(few) == TRAIN - 4 and few.items() <= many.items()


@pytest.mark.parametrize(("dataset", "layout"), [(d, next(iter(f))) for d, f in WRITERS.items()])
def test_difficulty_changes_the_pixels_but_not_the_boxes(roots, tmp_path, dataset, layout):
    write(tmp_path / dataset, dataset, layout, difficulty="hard")
    easy, hard = (
        sorted(LOADERS[dataset](root, "train").records, key=lambda r: str(r["image_id"]))
        for root in (roots[layout], tmp_path / dataset)
    )
    for one, other in zip(easy, hard, strict=True):
        boxes = [[(a["bbox"], a["category_id"]) for a in r["annotations"]] for r in (one, other)]
        assert boxes[0] == boxes[1]
        assert Path(one["file_name"]).read_bytes() != Path(other["file_name"]).read_bytes()


# The quirks of each release


def test_nih_has_the_headers_lists_and_modes_of_the_release(roots):
    root = roots["nih"]
    header, *rows = (root / "BBox_List_2017.csv").read_text().splitlines()
    assert header == "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    assert {len(row.split(",")) for row in rows} == {6} and len(header.split(",")) == 9
    assert "Infiltrate" in {row.split(",")[1] for row in rows}
    entries = (root / "Data_Entry_2017_v2020.csv").read_text()
    assert "Infiltration" in entries and "Infiltrate," not in entries
    test = (root / "test_list.txt").read_text().split()
    assert {row.split(",")[0] for row in rows} == set(test)
    modes = {Image.open(path).mode for path in root.rglob("*.png")}
    assert modes == {"L", "RGBA"}
    patients = [name.split("_")[0] for name in test]
    assert len(set(patients)) < len(patients)
    with_negatives = LOADERS["nih_chest_xray"](root, "train", DatasetOptions(nih_negatives=2))
    assert len(with_negatives.records) == TRAIN + 2


def test_rsna_has_the_header_fields_and_rows_of_the_release(roots):
    root = roots["rsna"]
    record = LOADERS["rsna_pneumonia"](root, "train").records[0]
    film = pydicom.dcmread(record["file_name"])
    assert film.file_meta.TransferSyntaxUID == pydicom.uid.JPEGBaseline8Bit
    assert (film.Modality, film.ConversionType, film.BitsStored) == ("CR", "WSD", 8)
    assert film.PatientID == Path(record["file_name"]).stem == record["patient_id"]
    assert "WindowCenter" not in film and "RescaleSlope" not in film
    labels = (root / "stage_2_train_labels.csv").read_text().splitlines()
    assert any(line.endswith(",,,,,0") for line in labels)
    details = (root / "stage_2_detailed_class_info.csv").read_text().splitlines()
    assert len(details) == len(labels)
    assert len(list((root / "stage_2_test_images").iterdir())) == 2


def test_rsna_is_mostly_negative_and_detailed_classes_go_with_the_target(roots):
    records = LOADERS["rsna_pneumonia"](roots["rsna"], "train").records
    assert 0 < sum(bool(record["annotations"]) for record in records) < TRAIN / 2
    for record in records:
        assert bool(record["annotations"]) == (record["detailed_class"] == "Lung Opacity")


@pytest.mark.parametrize("layout", ["v2", "v3", "kaggle"])
def test_cod10k_has_other_images_of_all_three_names(roots, layout):
    negatives = LOADERS["cod10k"](roots[layout], "train", DatasetOptions(cod10k_noncam=True))
    names = {Path(r["file_name"]).stem.rsplit("-", 1)[0] for r in negatives.records}
    assert sum("NonCAM" in name for name in names) == 3
    fine = LOADERS["cod10k"](roots[layout], "train", DatasetOptions(cod10k_classes=69))
    assert not fine.report.reasons and sum(n > 0 for n in fine.report.boxes.values()) > 5


def test_roboflow_has_a_placeholder_and_ids_from_0(roots):
    content = json.loads((roots["roboflow"] / "train" / "_annotations.coco.json").read_text())
    assert content["categories"][0] == {
        "id": 0, "name": "brain-tumor", "supercategory": "none"
    }  # fmt: skip
    assert content["images"][0]["id"] == content["annotations"][0]["id"] == 0


def test_via_has_all_shapes(tmp_path):
    write(tmp_path, "brain_tumor", "via", num_train=60)
    content = json.loads((tmp_path / "TRAIN" / "annotations_train.json").read_text())
    shapes = {r["shape_attributes"]["name"] for e in content.values() for r in e["regions"]}
    assert shapes == {"polygon", "ellipse", "circle"}


def test_cheng_files_look_like_matlabs_and_part_the_patients(roots):
    root = roots["cheng"]
    with open(root / "1.mat", "rb") as file:
        assert file.read(10) == b"MATLAB 7.3" and file.seek(126) and file.read(2) == b"IM"
    with h5py.File(root / "1.mat") as file:
        assert file["cjdata/image"].dtype == np.int16 and file["cjdata/image"][()].max() > 255
        assert file["cjdata/tumorBorder"].shape[0] == 1
    patients = [
        {r["patient_id"] for r in LOADERS["brain_tumor"](root, s).records} for s in ("train", "val")
    ]
    assert not patients[0] & patients[1]
