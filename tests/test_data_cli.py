"""`ulga data`: what a user reads, the files that are written, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from conftest import CONFIGS
from data_files import write_yolo

from ulga_d2.cli.main import main
from ulga_d2.data.formats.yolo import read_yolo

LEAF = str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml")


def ulga_data(*words: object) -> int:
    return main(["data", *map(str, words)])


# check


def test_a_sound_data_set_is_checked_with_exit_code_0(sample_data, capsys):
    assert ulga_data("check", "brain_tumor", "--strict") in (0, 1)
    out = capsys.readouterr().out
    assert "train" in out and "val" in out
    assert "0 errors" in out


def test_a_config_brings_its_splits_and_its_anchors(sample_data, tmp_path, capsys):
    assert ulga_data("check", LEAF, "--out", tmp_path / "new") == 0
    out = capsys.readouterr().out
    assert "anchors on brain_tumor_train: best IoU" in out
    report = json.loads((tmp_path / "new/data_report.json").read_text())
    assert list(report["splits"]) == ["brain_tumor_train", "brain_tumor_val"]
    train = report["splits"]["brain_tumor_train"]
    assert train["images"]["found"] == train["images"]["kept"] == 10
    assert 0 < train["anchors"]["median_best_iou"] <= 1
    assert cv2.imread(str(tmp_path / "new/data_sheet.png")).shape[1] == 1330


def test_one_split_is_checked_alone(sample_data, tmp_path):
    assert ulga_data("check", "brain_tumor_val", "--json", tmp_path / "r.json", "--headers") == 0
    assert list(json.loads((tmp_path / "r.json").read_text())["splits"]) == ["brain_tumor_val"]


@pytest.fixture
def flawed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data root whose training split has a box without area."""
    good, flat = "0 0.5 0.5 0.2 0.2\n1 0.4 0.4 0.3 0.1\n", "0 0.5 0.5 0 0.2\n"
    root = tmp_path / "root/brain_tumor"
    write_yolo(root, {"a": good, "b": good + flat})
    write_yolo(root, {"c": good}, split="val")
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        image[number : number + 5, 5 : 9 + 7 * number] = 200
        cv2.imwrite(str(path), image)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "root"))
    return root


def test_strict_turns_a_dropped_box_into_exit_code_1(flawed, capsys):
    assert ulga_data("check", "brain_tumor") == 0
    assert "PROBLEM train: 1 boxes without area dropped" in capsys.readouterr().out
    assert ulga_data("check", "brain_tumor", "--strict") == 1


def test_an_unreadable_split_is_exit_code_1_and_none_readable_2(flawed, capsys):
    (flawed / "labels/val/c.txt").write_text("5 0.5 0.5 0.1 0.1\n")
    assert ulga_data("check", "brain_tumor") == 1
    assert "class 5 is not among the 2 names" in capsys.readouterr().out
    (flawed / "labels/train/a.txt").write_text("x\n")
    assert ulga_data("check", "brain_tumor") == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "brain_tumour"], "unknown data set brain_tumour; did you mean brain_tumor?"),
        (["check", "missing.yaml"], "missing.yaml cannot be read"),
        (
            ["show", "brain_tumor", "--split", "dev", "--sheet", "x.png"],
            "there are brain_tumor_train",
        ),
        (["show", "brain_tumor", "--num", "0", "--sheet", "x.png"], "--num is 0; give 1 or more"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(sample_data, capsys, words, message):
    assert ulga_data(*words) == 2
    assert message in capsys.readouterr().err


# show


def test_show_draws_one_sheet_or_one_picture_an_image(sample_data, tmp_path):
    for seed in (0, 0, 1):
        sheet = tmp_path / f"{seed}.png"
        before = sheet.read_bytes() if sheet.exists() else None
        words = ("--split", "val", "--num", 4, "--seed", seed, "--sheet", sheet)
        assert ulga_data("show", "brain_tumor", *words) == 0
        assert before in (None, sheet.read_bytes())
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()
    assert ulga_data("show", "brain_tumor", "--num", 3, "--out", tmp_path / "pictures") == 0
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert len(pictures) == 3
    assert all(cv2.imread(str(path)).shape == (512, 512, 3) for path in pictures)


# convert


def test_convert_writes_what_a_reader_reads(sample_data, tmp_path, capsys):
    out = tmp_path / "out"
    assert ulga_data("convert", "brain_tumor", out, "--to", "yolo") == 0
    again = read_yolo(out / "images/val", out / "labels/val", out / "data.yaml")
    assert f"val: {again.report.summary()}" in capsys.readouterr().out
    assert ulga_data("convert", "brain_tumor", out, "--to", "yolo") == 2
    assert "is not an empty folder" in capsys.readouterr().err


# split


def test_split_writes_folds_once_and_never_overwrites_others(sample_data, tmp_path, capsys):
    words = ("split", "brain_tumor", "--folds", 2, "--group", "image", "--out", tmp_path / "f.json")
    assert ulga_data(*words) == 0
    out = capsys.readouterr().out
    assert "fold" in out and "images without boxes" in out
    folds = json.loads((tmp_path / "f.json").read_text())
    assert len(folds["fold_of"]) == 16 and set(folds["fold_of"].values()) == {0, 1}
    assert ulga_data(*words) == 0
    assert "holds these folds already" in capsys.readouterr().out
    assert ulga_data(*words, "--seed", 1) == 2
    assert "holds other folds" in capsys.readouterr().err
    assert json.loads((tmp_path / "f.json").read_text()) == folds


def test_split_needs_patients_and_a_whole_data_set(sample_data, capsys):
    assert ulga_data("split", "brain_tumor") == 2
    assert "nothing tells whose image" in capsys.readouterr().err
    assert ulga_data("split", "brain_tumor_val") == 2
    assert "name a whole data set" in capsys.readouterr().err


# A data set of the user's own


OWN = """
name: mine
format: yolo
root: {root}
patient: '^([a-z])'
class_names: [solid, ring]
splits:
  train: {{images: images/train, labels: labels/train}}
  val: {{images: images/val, labels: labels/val}}
"""


def test_a_patient_in_two_splits_of_an_own_set_is_exit_code_1(flawed, tmp_path, capsys):
    for folder, suffix in (("images", ".png"), ("labels", ".txt")):
        (flawed / folder / f"val/c{suffix}").rename(flawed / folder / f"val/a2{suffix}")
    (tmp_path / "own.yaml").write_text(OWN.format(root=flawed))
    assert ulga_data("check", tmp_path / "own.yaml") == 1
    out = capsys.readouterr().out
    assert out.startswith("mine\n")
    assert "ERROR train, val: 1 patients in more than one split" in out
    assert ulga_data("split", tmp_path / "own.yaml", "--folds", 2, "--out", tmp_path / "f") == 0
    assert set(json.loads((tmp_path / "f").read_text())["fold_of"]) == {"a", "b"}


def test_a_config_can_name_an_own_set(flawed, tmp_path, capsys):
    (tmp_path / "own.yaml").write_text(OWN.format(root=flawed))
    (tmp_path / "config.yaml").write_text(
        f"_BASE_: {LEAF}\nDATASETS:\n  CUSTOM: {tmp_path / 'own.yaml'}\n"
        "  TRAIN: [mine_train]\n  TEST: [mine_val]\n"
    )
    assert ulga_data("check", tmp_path / "config.yaml") == 0
    assert "anchors on mine_val" in capsys.readouterr().out
    (tmp_path / "config.yaml").write_text(f"_BASE_: {LEAF}\nDATASETS:\n  TRAIN: [mine_train]\n")
    assert ulga_data("check", tmp_path / "config.yaml") == 2
    assert "unknown data set mine_train" in capsys.readouterr().err


def test_a_reader_that_leaves_the_pipe_gets_no_traceback():
    command = [sys.executable, "-m", "ulga_d2.cli.main", "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # before the first line is written
        message = process.stderr.read().decode()
    assert "Traceback" not in message and "BrokenPipe" not in message
    assert process.returncode == 0
