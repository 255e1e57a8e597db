"""Each data set from nothing to figures: written, checked, trained on for 20 steps, evaluated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pydicom
import pytest
from conftest import CONFIGS, tiny_options

from ulga_d2.cli.main import main as ulga
from ulga_d2.data.builtin import LOADERS
from ulga_d2.engine.launch import run

STEPS = {"SOLVER.MAX_ITER": "20", "SOLVER.CHECKPOINT_PERIOD": "20"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root with a small sample of every data set, in its official layout."""
    root = tmp_path_factory.mktemp("roots")
    for name in LOADERS:
        counts = ["--num-train", "12", "--num-val", "6"]
        assert ulga(["sample", name, str(root / name), *counts, "--size", "64"]) == 0
    return root


def train(leaf: str, folder: Path, **changes: str) -> dict:
    """Train a leaf with the tiny overrides; return what evaluation wrote."""
    options = {**dict(zip(*[iter(tiny_options(folder))] * 2, strict=True)), **STEPS, **changes}
    words = [word for pair in options.items() for word in pair]
    assert run(["--config-file", str(CONFIGS / f"{leaf}.yaml"), *words]) == 0
    assert (folder / "predictions.png").is_file()
    return json.loads((folder / "inference/metrics.json").read_text())


@pytest.mark.parametrize("dataset", LOADERS)
def test_a_data_set_goes_from_its_files_to_figures(dataset, roots, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(roots))
    leaf = f"{dataset}_swin_ulga_nano"
    report = tmp_path / "report.json"
    assert ulga(["data", "check", str(CONFIGS / f"{leaf}.yaml"), "--json", str(report)]) == 0
    splits = json.loads(report.read_text())["splits"]
    assert {name: split["images"]["found"] for name, split in splits.items()} == {
        name: split["images"]["kept"] for name, split in splits.items()
    }
    assert train(leaf, tmp_path / "run")["bbox/AP"] is not None


@pytest.mark.parametrize("backbone", ["vit", "swin", "dat"])
def test_mask_rcnn_trains_on_cod10ks_instance_masks(backbone, roots, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(roots))
    figures = train(
        f"cod10k_mask_{backbone}_ulga_nano",
        tmp_path / "run",
        **{"MODEL.ROI_MASK_HEAD.NUM_CONV": "1"},
    )
    assert figures["segm/AP"] is not None
    losses = [json.loads(line) for line in (tmp_path / "run/metrics.json").read_text().splitlines()]
    assert all("loss_mask" in line for line in losses if "total_loss" in line)


@pytest.mark.parametrize("backbone", ["vit", "dat"])
def test_the_other_backbones_train_on_dicom_too(backbone, roots, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(roots))
    node = f"MODEL.ULGA.{backbone.upper()}"
    leaf = f"brain_tumor_{backbone}_ulga_nano"
    sets = {
        "DATASETS.TRAIN": "['rsna_pneumonia_train']",
        "DATASETS.TEST": "['rsna_pneumonia_val']",
        f"{node}.DROP_PATH_RATE": "0.0",
    }
    assert train(leaf, tmp_path / "run", **sets)["bbox/AP"] is not None


def test_what_a_dicom_header_tells_of_a_patient_appears_nowhere(
    roots, tmp_path, monkeypatch, capfd
):
    root = tmp_path / "data"
    shutil.copytree(roots / "rsna_pneumonia", root / "rsna_pneumonia")
    for number, path in enumerate(sorted(root.rglob("*.dcm"))):
        header = pydicom.dcmread(path)
        header.PatientName, header.PatientID = f"CANARY^NAME{number}", f"CANARYID{number}"
        header.PatientBirthDate, header.StudyDate = "19010203", "19040506"
        header.InstitutionName = "CANARY HOSPITAL"
        header.save_as(path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    out = tmp_path / "out"
    leaf = str(CONFIGS / "rsna_pneumonia_swin_ulga_nano.yaml")
    assert ulga(["data", "check", leaf, "--out", str(out / "check")]) == 0
    assert ulga(["data", "show", "rsna_pneumonia", "--out", str(out / "show")]) == 0
    train("rsna_pneumonia_swin_ulga_nano", out / "run")
    said = "".join(capfd.readouterr())
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    names = " ".join(map(str, out.rglob("*")))
    for secret in ("CANARY", "19010203", "19040506"):
        assert secret not in said and secret not in names
        assert secret.encode() not in written
