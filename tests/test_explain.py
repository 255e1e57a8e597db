"""`ulga explain` on tiny detectors with random weights: its files, its numbers, its refusals."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import CONFIGS
from tests.dicom_files import write_dicom
from tests.tiny_detectors import CLASSES, options
from ulga_d2.cli.main import main
from ulga_d2.config import default_category_ids, resolve_classes
from ulga_d2.engine.checkpoint import save_checkpoint
from ulga_d2.engine.launch import read_config
from ulga_d2.inference.model import build_seeded_model


def leaf(kind: str) -> str:
    return str(CONFIGS / f"brain_tumor_{kind}_nano.yaml")


def trained(folder: Path, kind: str) -> list[str]:
    """Save a detector's first weights as a checkpoint; return its config and the file."""
    args = argparse.Namespace(config_file=leaf(kind), opts=options(), eval_only=True)
    cfg = read_config(args)
    resolve_classes(cfg, CLASSES, default_category_ids(len(CLASSES)))
    state = {
        "model": build_seeded_model(cfg).state_dict(),
        "iteration": 0,
        "class_names": list(CLASSES),
        "config": cfg.dump(),
    }
    return [leaf(kind), str(save_checkpoint(folder, f"{kind}.pth", state))]


def image_at(path: Path, height: int = 48, width: int = 64) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def explain(out: Path, *words: str) -> int:
    pairs = zip(options()[::2], options()[1::2], strict=True)
    settings = [word for pair in pairs for word in ("--set", *pair)]
    return main(["explain", *words, "--out", str(out), *settings])


def numbers_of(out: Path) -> dict:
    return json.loads((out / "explain.json").read_text())


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_two_swins_side_by_side_on_two_images_of_one_name(tmp_path, capsys):
    (tmp_path / "other").mkdir()
    images = [image_at(tmp_path / "a.png"), image_at(tmp_path / "other" / "a.png", 64, 64)]
    plain, both = trained(tmp_path, "swin_baseline"), trained(tmp_path, "swin_ulga")
    out = tmp_path / "out"
    unsure = ("--score", "0", "--set", "MODEL.RETINANET.SCORE_THRESH_TEST", "0.0")
    assert explain(out, *plain, *images, "--beside", *both, *unsure) == 0
    pictures = [out / "a.png", out / "a_2.png", out / "depths.png"]
    assert capsys.readouterr().out.split() == [*map(str, pictures), str(out / "explain.json")]
    assert {*out.iterdir()} == {*pictures, out / "explain.json"}
    assert all(min(size_of(path)) > 800 for path in pictures)
    found = numbers_of(out)
    assert [image["image"] for image in found["images"]] == images
    left, right = found["images"][0]["detectors"]
    assert (left["height"], left["width"]) == (64, 64)  # 48 x 64, padded
    assert all("concepts" not in block for block in left["blocks"])
    assert all("concepts" in block for block in right["blocks"])
    assert all(len(block["attention"]) == len(right["queries"]) for block in right["blocks"])
    assert left["detections"] and set(left["receptive_fields"]) == {"p3", "p4", "p5"}


@pytest.mark.parametrize("kind", ["vit_ulga", "dat_ulga"])
def test_vit_and_dat_are_drawn_alone(kind, tmp_path):
    out = tmp_path / "out"
    assert explain(out, *trained(tmp_path, kind), image_at(tmp_path / "a.png")) == 0
    (detector,) = numbers_of(out)["images"][0]["detectors"]
    has_points = ["points" in block for block in detector["blocks"]]
    assert any(has_points) == (kind == "dat_ulga")
    assert all("similarity" in block for block in detector["blocks"])


def test_a_dicom_file_is_read_and_no_detection_is_no_fault(tmp_path, caplog):
    caplog.set_level("INFO")
    pixels = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    film = write_dicom(tmp_path / "film.dcm", pixels)
    detector = trained(tmp_path, "swin_baseline")
    assert explain(tmp_path, *detector, str(film), "--score", "1") == 0
    assert "brain_tumor_swin_baseline_nano finds nothing" in caplog.text
    (detector,) = numbers_of(tmp_path)["images"][0]["detectors"]
    assert not detector["detections"] and len(detector["queries"]) >= 1


@pytest.fixture(scope="module")
def swin(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return trained(tmp_path_factory.mktemp("weights"), "swin_baseline")


def refusal(capsys: pytest.CaptureFixture, out: Path, *words: str) -> str:
    assert explain(out, *words) == 2
    assert not out.exists()
    return capsys.readouterr().err


def test_a_missing_image_is_named(swin, tmp_path, capsys):
    image = str(tmp_path / "none.png")
    assert f"{image} does not exist" in refusal(capsys, tmp_path / "out", *swin, image)


def test_a_text_file_is_no_image(swin, tmp_path, capsys):
    text = tmp_path / "notes.png"
    text.write_text("not an image\n" * 9)
    assert str(text) in refusal(capsys, tmp_path / "out", *swin, str(text))


def test_weights_of_another_config_are_refused(swin, tmp_path, capsys):
    image = image_at(tmp_path / "a.png")
    said = refusal(capsys, tmp_path / "out", leaf("vit_baseline"), swin[1], image)
    assert swin[1] in said and "do not fit the model" in said and "config.yaml" in said


def test_an_image_in_the_place_of_weights_is_refused(swin, tmp_path, capsys):
    image = image_at(tmp_path / "a.png")
    assert image in refusal(capsys, tmp_path / "out", swin[0], image, image)


def test_a_score_beyond_one_is_refused(swin, tmp_path, capsys):
    said = refusal(capsys, tmp_path / "out", *swin, image_at(tmp_path / "a.png"), "--score", "30")
    assert "--score is 30.0; give 0 to 1" in said


def test_a_folder_that_cannot_be_made_is_refused(swin, tmp_path, capsys):
    image = image_at(tmp_path / "a.png")
    assert explain(Path(image), *swin, image) == 2
    assert "cannot be made" in capsys.readouterr().err
