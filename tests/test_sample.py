"""Writing a sample: equal parameters, equal files; a user's files are never touched."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from ulga_d2.cli.main import main
from ulga_d2.data.brain_tumor import load_brain_tumor
from ulga_d2.data.image import read_image
from ulga_d2.data.sample import write_sample
from ulga_d2.data.sample.brain import make_brain
from ulga_d2.data.sample.difficulty import DIFFICULTIES
from ulga_d2.data.sample.lesion import CLASS_NAMES
from ulga_d2.data.sample.scene import Scene
from ulga_d2.errors import UserError

PARAMETERS = {
    "dataset": "brain_tumor",
    "num_train": 6,
    "num_val": 3,
    "size": 64,
    "difficulty": "easy",
    "seed": 4,
}


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# Determinism


def test_equal_parameters_give_equal_files(tmp_path):
    for name in ("a", "b"):
        assert write_sample(out=tmp_path / name, **PARAMETERS)
    first, second = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert first == second
    assert len(first) == 2 * (6 + 3) + 3


def test_an_image_depends_on_its_own_number_alone(tmp_path):
    write_sample(out=tmp_path, **PARAMETERS)
    alone = make_brain(seed=4, split_number=0, index=5, size=64, difficulty=DIFFICULTIES["easy"])
    written = read_image(str(tmp_path / "images" / "train" / "train_00005.png"))
    assert np.abs(written[..., 0].astype(int) - alone.image).max() <= 1


def test_difficulty_changes_the_pixels_but_not_the_labels(tmp_path):
    for difficulty in DIFFICULTIES:
        write_sample(out=tmp_path / difficulty, **PARAMETERS | {"difficulty": difficulty})
    easy, medium, hard = (files_of(tmp_path / difficulty) for difficulty in DIFFICULTIES)
    for name in easy:
        if name.startswith("labels"):
            assert easy[name] == medium[name] == hard[name]
        if name.startswith("images"):
            assert easy[name] != medium[name] != hard[name]


# What is written


def test_the_sample_is_read_back_as_the_brain_tumour_data_set(tmp_path):
    write_sample(out=tmp_path, **PARAMETERS)
    with open(tmp_path / "difficulty.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for split, count in (("train", 6), ("val", 3)):
        loaded = load_brain_tumor(tmp_path, split)
        assert loaded.class_names == CLASS_NAMES
        assert len(loaded.records) == count
        assert not loaded.report.reasons
        for record in loaded.records:
            expected = [row for row in rows if row["image"] == record["image_id"]]
            assert len(record["annotations"]) == len(expected)
            for item, row in zip(record["annotations"], expected, strict=True):
                assert CLASS_NAMES[item["category_id"]] == row["class"]
                box = [float(row[key]) for key in ("x0", "y0", "x1", "y1")]
                np.testing.assert_allclose(item["bbox"], box, atol=1e-3)


# The folder


def test_an_equal_sample_is_left_alone(tmp_path):
    assert write_sample(out=tmp_path / "s", **PARAMETERS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not write_sample(out=tmp_path / "s", **PARAMETERS)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_interrupted_sample_is_completed(tmp_path, monkeypatch):
    write_sample(out=tmp_path / "whole", **PARAMETERS)

    def interrupt(**_: object) -> Scene:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ulga_d2.data.sample.brain_tumor.make_brain", interrupt)
        write_sample(out=tmp_path / "half", **PARAMETERS)
    with pytest.raises(UserError, match="num_train 6 there, 7 now"):
        write_sample(out=tmp_path / "half", **PARAMETERS | {"num_train": 7})
    assert write_sample(out=tmp_path / "half", **PARAMETERS)
    assert files_of(tmp_path / "half") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("content", [None, "{}", "[]", "no json"])
def test_a_folder_with_other_files_is_refused_and_stays(tmp_path, content):
    (tmp_path / "mine.txt").write_text("mine")
    if content is not None:
        (tmp_path / "sample.json").write_text(content)
    before = files_of(tmp_path)
    with pytest.raises(
        UserError, match=r"is not empty and holds no sample of ours; nothing was wri"
    ):
        write_sample(out=tmp_path, **PARAMETERS)
    assert files_of(tmp_path) == before


def test_a_sample_of_other_parameters_is_refused_and_stays(tmp_path):
    write_sample(out=tmp_path, **PARAMETERS)
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=r"other parameters \(seed 4 there, 5 now\); nothing was"):
        write_sample(out=tmp_path, **PARAMETERS | {"seed": 5})
    assert files_of(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/sample cannot be written: Not a directory; name a"):
        write_sample(out=tmp_path / "file" / "sample", **PARAMETERS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "brains"}, r"dataset 'brains' is unknown; take brain_tumor or nih"),
        ({"difficulty": "soft"}, r"difficulty 'soft' is unknown; take easy or medium or hard"),
        ({"num_train": 0}, r"num_train is 0, but must be at least 1"),
        ({"num_val": -1}, r"num_val is -1, but must be at least 1"),
        ({"size": 16}, r"size is 16, but must be at least 32"),
        ({"seed": -1}, r"seed is -1, but must be at least 0"),
    ],
)
def test_parameters_out_of_range_are_named_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        write_sample(out=tmp_path / "s", **PARAMETERS | change)
    assert not (tmp_path / "s").exists()


# The command


def test_the_command_writes_once_and_says_so(tmp_path, capsys):
    out = tmp_path / "brain_tumor"
    words = [
        "sample",
        "brain_tumor",
        str(out),
        "--num-train",
        "2",
        "--num-val",
        "1",
        "--size",
        "32",
    ]
    assert main(words) == 0
    assert f"wrote 2 training and 1 validation images to {out}" in capsys.readouterr().out
    assert json.loads((out / "sample.json").read_text())["difficulty"] == "easy"
    assert main(words) == 0
    assert "already holds this sample; nothing to do" in capsys.readouterr().out
    assert main([*words, "--seed", "1"]) == 2
    assert "error: " in capsys.readouterr().err


def test_the_command_takes_a_form_and_faults(tmp_path, capsys):
    out = tmp_path / "rsna_pneumonia"
    words = ["sample", "rsna_pneumonia", str(out), "--num-train", "9", "--num-val", "2"]
    words += ["--size", "32"]
    assert main([*words, "--defects", "box_outside,monochrome1"]) == 0
    report = json.loads((out / "defects.json").read_text())
    assert report["reasons"] == {"boxes outside the image dropped": 1}
    assert main([*words, "--format", "dicom"]) == 2
    assert "format 'dicom' of rsna_pneumonia is unknown; take rsna" in capsys.readouterr().err
    assert main([*words, "--defects", "nonsense"]) == 2
    assert "defect 'nonsense' cannot be put into this layout" in capsys.readouterr().err
    assert main(words) == 2
    assert "(defects ['box_outside', 'monochrome1'] there, None now)" in capsys.readouterr().err
