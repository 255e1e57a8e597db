"""The demo folder: detectron2's demo flags, and the notebook, on a tiny run."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from conftest import CONFIGS, REPOSITORY, tiny_args
from nbclient import NotebookClient
from PIL import Image

from ulga_d2 import Predictor
from ulga_d2.engine.launch import main

DEMO = REPOSITORY / "demo"


@pytest.fixture(scope="module")
def run_folder(sample_root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(sample_root))
        torch.set_num_threads(1)
        main(tiny_args(folder, MODEL__RETINANET__SCORE_THRESH_TEST="0.005"))
    return folder


def images_of(sample_root: Path) -> Path:
    return sample_root / "brain_tumor" / "images" / "val"


def run_demo(monkeypatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(DEMO / "demo.py"), run_name="__main__")
    return end.value.code


def test_demo_takes_detectron2s_flags_and_draws_each_image(
    run_folder, sample_root, tmp_path, monkeypatch, capsys
):
    image = sorted(images_of(sample_root).iterdir())[0]
    config = run_folder / "inference" / "config.yaml"
    words = ("--config-file", config, "--input", image, image, "--output", tmp_path)
    assert run_demo(monkeypatch, *words, "--confidence-threshold", "0.01") == 0
    lines = capsys.readouterr().out.splitlines()
    count = len(Predictor(run_folder, score=0.01)(image))
    assert count and all(f"{count} detections" in line for line in lines)
    drawn = [np.asarray(Image.open(path)) for path in sorted(tmp_path.iterdir())]
    assert len(drawn) == 2 and drawn[0].shape == (64, 64, 3)
    assert (drawn[0] != np.asarray(Image.open(image).convert("RGB"))).any()


def test_demo_takes_weights_and_other_keys_behind_opts(
    run_folder, sample_root, tmp_path, monkeypatch, capsys
):
    image = sorted(images_of(sample_root).iterdir())[0]
    words = ("--config-file", run_folder / "config.yaml", "--input", image, "--output", tmp_path)
    opts = ("--opts", "MODEL.WEIGHTS", run_folder / "model_final.pth")
    limit = ("TEST.DETECTIONS_PER_IMAGE", "2")
    assert run_demo(monkeypatch, *words, "--confidence-threshold", "0.01", *opts, *limit) == 0
    assert "2 detections" in capsys.readouterr().out
    words = ("--config-file", CONFIGS / "demo.yaml", *words[2:])
    assert run_demo(monkeypatch, *words) == 2
    assert "names no MODEL.WEIGHTS" in capsys.readouterr().err


def test_the_notebook_runs_from_the_first_cell_to_the_last(run_folder, sample_root, monkeypatch):
    monkeypatch.setenv("ULGA_MODEL", str(run_folder))
    monkeypatch.setenv("ULGA_IMAGES", str(images_of(sample_root)))
    notebook = nbformat.read(DEMO / "predict.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(DEMO)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_supervision_gets_the_same_boxes(run_folder, sample_root):
    image = sorted(images_of(sample_root).iterdir())[0]
    found = Predictor(run_folder, score=0.01)(image)
    theirs = found.to_supervision()
    assert len(theirs) == len(found) > 0
    assert np.array_equal(theirs.xyxy, found.boxes)
    assert list(theirs.data["class_name"]) == list(found.class_names)
