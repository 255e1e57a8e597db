"""With --anonymize no output names a file, a folder or a patient; numbers are the same in all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import CONFIGS, tiny_args

from ulga_d2.cli.main import main as ulga
from ulga_d2.config import LEFT_OUT, without_paths
from ulga_d2.data import sheet
from ulga_d2.engine.launch import main

SECRETS = ("SecretClinic", "SMITH", "JONES", "WardRun", "hospital", "cohort", "annotated_by")


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the YAML of a dataset with faults of every kind that names a file."""
    root = tmp_path_factory.mktemp("data") / "SecretClinic"
    root.mkdir()
    rng = np.random.default_rng(0)
    for split, patients in (("train", ("SMITH", "JONES")), ("val", ("SMITH", "MILLER"))):
        images, boxes = [], []
        for number in range(4):
            name = f"{patients[number % 2]}_{split}{number}.png"
            pixels = rng.integers(0, 255, (64, 64, 3), np.uint8)
            if number == 3:
                pixels = cv2.imread(str(root / f"{patients[0]}_{split}0.png"))
            cv2.imwrite(str(root / name), pixels)
            images.append({"id": number, "file_name": name, "width": 64, "height": 64})
            for box in ([4, 4, 30, 30], [9, 9, 90, 40], [5, 5, 1, 1], [5, 5, 0, 3]):
                one = {"id": len(boxes), "image_id": number, "bbox": box, "category_id": 1}
                boxes.append({**one, "area": box[2] * box[3], "iscrowd": int(number == 2)})
        content = {
            "images": images,
            "annotations": boxes,
            "categories": [{"id": 1, "name": "cell"}],
        }
        (root / f"annotated_by_{split}.json").write_text(json.dumps(content))
    damaged = root / "MILLER_val1.png"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    splits = "".join(
        f"  {s}: {{images: ., annotations: annotated_by_{s}.json}}\n" for s in ("train", "val")
    )
    text = f"name: study\nformat: coco\nroot: .\npatient: '^([A-Z]+)_'\nsplits:\n{splits}"
    (root / "hospital.yaml").write_text(text)
    return root / "hospital.yaml"


@pytest.fixture(scope="module")
def config(description: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configs") / "cohort.yaml"
    base = CONFIGS / "brain_tumor_swin_ulga_nano.yaml"
    path.write_text(
        f"_BASE_: {base}\nDATASETS:\n  CUSTOM: {description}\n"
        "  TRAIN: [study_train]\n  TEST: [study_val]\n"
    )
    return path


def secrets_in(text: str, *folders: Path) -> list[str]:
    found = [word for word in SECRETS if word in text]
    return found + [str(folder) for folder in folders if str(folder) in text]


@pytest.mark.parametrize("what", ["description", "config"])
def test_data_check_names_nothing(what, request, description, tmp_path, capsys, monkeypatch):
    written = []
    put_text = sheet.put_text

    def record_text(canvas, text, *place):
        written.append(text)
        put_text(canvas, text, *place)

    monkeypatch.setattr(sheet, "put_text", record_text)
    what = request.getfixturevalue(what)
    words = ["data", "check", str(what), "--out", str(tmp_path)]
    assert ulga(words) == 1
    plain = capsys.readouterr().out
    assert {"SecretClinic", "SMITH"} <= set(secrets_in(plain))
    written.clear()
    assert ulga([*words, "--anonymize"]) == 1
    shown = capsys.readouterr().out.split("\nwrote ")[0]
    report = (tmp_path / "data_report.json").read_text()
    texts = " ".join(written)
    assert not secrets_in(shown + report + texts, description.parent, what.parent)
    for words in ("patients in more than one split", "cannot be decoded", "with the same pixels"):
        assert words in plain and words in shown
    counts = [re.findall(r"(?m)^(?:ERROR|PROBLEM|NOTE) [^\n]*", text) for text in (plain, shown)]
    assert counts[0] == counts[1]
    assert "train/1.png = train/4.png" in shown.replace("study_", "") and "1.png" in texts


def test_a_report_and_a_comparison_name_nothing(description, tmp_path, capsys):
    good = json.loads((description.parent / "annotated_by_val.json").read_text())
    good["images"].pop(1)
    good["annotations"] = [box for box in good["annotations"] if box["image_id"] != 1]
    (description.parent / "annotated_by_val.json").write_text(json.dumps(good))
    folder = tmp_path / "WardRun"
    changes = {"TRAIN": "('study_train',)", "TEST": "('study_val',)", "CUSTOM": description}
    main(tiny_args(folder, **{f"DATASETS__{key}": value for key, value in changes.items()}))
    capsys.readouterr()
    page = tmp_path / "page.html"
    words = ["report", str(folder), "--bootstrap", "0", "--out", str(page)]
    assert ulga(words) == 0
    assert len(secrets_in(page.read_text())) >= 4
    assert ulga([*words, "--anonymize"]) == 0
    text = page.read_bytes().decode()
    assert not secrets_in(text, tmp_path, description.parent)
    shown = set(re.findall(r'class="name">([^<]*)<', text))
    assert shown and shown <= {"1.png", "2.png", "3.png"}
    assert LEFT_OUT in text and "study_val" in text
    capsys.readouterr()
    saved = tmp_path / "compared.json"
    words = ["compare", str(folder), "--", str(folder), "--dataset", f"{description}:val"]
    words += ["--bootstrap", "100", "--permutations", "100", "--json", str(saved)]
    assert ulga(words) == 0
    assert secrets_in(capsys.readouterr().out) and secrets_in(saved.read_text())
    assert ulga([*words, "--anonymize"]) == 0
    out = capsys.readouterr().out
    assert not secrets_in(out + saved.read_text(), tmp_path, description.parent)
    assert "A: A1\nB: B1\n" in out and json.loads(saved.read_text())["dataset"] == "val"


def test_a_config_without_paths_keeps_all_else():
    config = {
        "OUTPUT_DIR": "out",
        "SEED": 3,
        "MODEL": {"WEIGHTS": "", "NAME": "a"},
        "DATASETS": {"CUSTOM": "x.yaml", "TRAIN": ["a_train"], "LIST": ["/data/a", "b"]},
        "TEST": {"METRIC": "bbox/AP"},
    }
    assert without_paths(config) == {
        "OUTPUT_DIR": LEFT_OUT,
        "SEED": 3,
        "MODEL": {"WEIGHTS": "", "NAME": "a"},
        "DATASETS": {"CUSTOM": LEFT_OUT, "TRAIN": ["a_train"], "LIST": [LEFT_OUT, "b"]},
        "TEST": {"METRIC": "bbox/AP"},
    }
