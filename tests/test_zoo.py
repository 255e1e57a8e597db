"""The model zoo: published from a run, listed, and had again by name."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from conftest import CONFIGS, REPOSITORY, tiny_args

from ulga_d2 import model_zoo
from ulga_d2.cli.main import main as ulga
from ulga_d2.data.fingerprint import fingerprint
from ulga_d2.engine.launch import main
from ulga_d2.errors import UserError
from ulga_d2.model_zoo.publish import publish
from ulga_d2.weights.checkpoint import load_checkpoint
from ulga_d2.weights.digest import file_sha256
from ulga_d2.weights.zoo import fetch

NAME = "brain_tumor_swin_ulga_nano"
WORDS = {"data": "a sample, CC0", "licence": "CC0"}


@pytest.fixture(scope="module")
def run(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished tiny run with a running mean of its weights."""
    folder = tmp_path_factory.mktemp("run") / NAME
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(sample_root))
        main(tiny_args(folder, SOLVER__EMA__ENABLED=True, SOLVER__EMA__DECAY=0.5))
    return folder


@pytest.fixture
def zoo(run: Path, sample_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a zoo of one entry, to which ULGA_ZOO points."""
    root = tmp_path / "zoo"
    words = ["--data", WORDS["data"], "--licence", WORDS["licence"]]
    assert ulga(["zoo", "publish", str(run), str(root), *words]) == 0
    assert ulga(["zoo", "index", str(root)]) == 0
    monkeypatch.setenv("ULGA_ZOO", str(root))
    return root


def test_an_entry_holds_weights_config_figures_and_a_card(zoo, run):
    (weights,) = (zoo / NAME).glob("*.safetensors")
    sha256 = file_sha256(weights)
    assert weights.name == f"{NAME}-{sha256[:8]}.safetensors"
    figures = json.loads((run / "inference" / "metrics.json").read_text())
    assert json.loads((zoo / NAME / "metrics.json").read_text()) == figures
    config = yaml.safe_load((zoo / NAME / "config.yaml").read_text())
    assert config["OUTPUT_DIR"] == NAME
    card = (zoo / NAME / "README.md").read_text()
    for words in (sha256, "a sample, CC0", "Not a medical device", "solid, ring, mottled", "| AP "):
        assert words in card
    assert not list(zoo.glob(".publish_*"))


def test_the_index_and_the_list_name_every_entry(zoo):
    index = json.loads((zoo / "index.json").read_text())
    entry = index["entries"][NAME]
    assert entry["bytes"] == (zoo / entry["file"]).stat().st_size
    assert entry["sha256"] == file_sha256(zoo / entry["file"])
    assert f"[{NAME}]({NAME}/README.md)" in (zoo / "MODEL_ZOO.md").read_text()


def test_the_published_weights_are_those_that_the_run_evaluated(zoo, run, tmp_path):
    state = load_checkpoint(run / "model_final.pth")
    model = model_zoo.get(NAME, trained=True, device="cpu")
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, state["ema"][name])
    main(tiny_args(tmp_path / "again", eval_only=True, MODEL__WEIGHTS=f"zoo://{NAME}"))
    again = (tmp_path / "again" / "inference" / "metrics.json").read_bytes()
    assert again == (run / "inference" / "metrics.json").read_bytes()


def test_a_training_starts_from_a_name_of_the_zoo(zoo, tmp_path):
    main(tiny_args(tmp_path / "start", MODEL__WEIGHTS=f"zoo://{NAME}", SOLVER__MAX_ITER=1))
    assert f"read zoo://{NAME} (iteration 4)" in (tmp_path / "start" / "log.txt").read_text()


def test_configs_are_had_by_name_with_and_without_weights(zoo, monkeypatch):
    for name in (NAME, f"{NAME}.yaml", f"configs/{NAME}.yaml"):
        assert Path(model_zoo.get_config_file(name)).samefile(CONFIGS / f"{NAME}.yaml")
    plain, trained = model_zoo.get_config(NAME), model_zoo.get_config(NAME, trained=True)
    assert plain.MODEL.WEIGHTS == ""
    assert plain.INPUT.SQUARE_SIZE == 256
    assert trained.INPUT.SQUARE_SIZE == 64
    assert trained.MODEL.WEIGHTS == model_zoo.get_checkpoint_url(NAME)
    assert trained.DATASETS.CLASS_NAMES == ["solid", "ring", "mottled"]
    model = model_zoo.get(NAME, device="cpu")
    assert model.training


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: model_zoo.get_config_file("no_such"), "no config is called 'no_such'; there are"),
        (lambda: fetch("no_such"), f"has no trained no_such; there is {NAME}"),
    ],
)
def test_an_unknown_name_is_told_with_the_known_ones(zoo, call, told):
    with pytest.raises(UserError, match=told):
        call()


def test_without_a_zoo_the_variable_is_named(monkeypatch):
    monkeypatch.delenv("ULGA_ZOO", raising=False)
    with pytest.raises(UserError, match="ULGA_ZOO is not set"):
        fetch(NAME)


@pytest.mark.parametrize("content", ["", "[]", '{"entries": {"a": {}}}', '{"entries": []}'])
def test_an_index_that_is_none_is_named(zoo, content):
    (zoo / "index.json").write_text(content)
    with pytest.raises(UserError, match=r"index\.json is no index of a zoo"):
        fetch(NAME)


@pytest.mark.parametrize("file", ["../x.safetensors", "/etc/passwd", "a/../../b", ""])
def test_an_index_cannot_name_a_file_outside_the_zoo(zoo, file):
    index = json.loads((zoo / "index.json").read_text())
    index["entries"][NAME]["file"] = file
    (zoo / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="is not inside the zoo"):
        fetch(NAME)


def test_a_changed_file_is_refused_before_it_is_opened_and_left_where_it_is(zoo, monkeypatch):
    (weights,) = (zoo / NAME).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(UserError, match="is not the file of the zoo's index.*Nothing of it was"):
        fetch(NAME)
    assert weights.exists()


def test_nothing_is_published_over_or_from_half_a_run(zoo, run, tmp_path, sample_data):
    with pytest.raises(UserError, match="exists; remove it or give another --name"):
        publish(run, zoo, NAME, **WORDS)
    with pytest.raises(UserError, match="small letters"):
        publish(run, zoo, "../x", **WORDS)
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "model_final.pth").write_bytes((run / "model_final.pth").read_bytes())
    with pytest.raises(UserError, match="holds no finished run"):
        publish(cut, zoo, "cut", **WORDS)
    (cut / "inference").mkdir()
    (cut / "inference" / "metrics.json").write_text("{}")
    (cut / "metrics.json").write_text('{"iteration": 3}\n')
    with pytest.raises(UserError, match="weights are of iteration 4, and its last figures of 3"):
        publish(cut, zoo, "cut", **WORDS)
    assert sorted(path.name for path in zoo.iterdir()) == ["MODEL_ZOO.md", NAME, "index.json"]


def test_intervals_are_shown_and_must_be_of_the_same_detections(run, sample_data, tmp_path):
    predictions = str(run / "inference" / "predictions.json")
    file = tmp_path / "estimate.json"
    command = ["evaluate", predictions, "--dataset", "brain_tumor_val", "--json", str(file)]
    assert ulga([*command, "--bootstrap", "100"]) == 0
    entry = publish(run, tmp_path / "zoo", "with_intervals", **WORDS, intervals=file)
    figures = json.loads(file.read_text())
    low, high = figures["figures"]["bbox/AP"]["interval"]
    assert f"{low:.1f} to {high:.1f}" in (entry / "README.md").read_text()
    figures["figures"]["bbox/AP"]["value"] += 1
    file.write_text(json.dumps(figures))
    with pytest.raises(UserError, match="the intervals are of other detections"):
        publish(run, tmp_path / "zoo", "others", **WORDS, intervals=file)


def test_a_fingerprint_tells_boxes_and_images_apart_but_not_their_order_or_folder():
    def record(name: str, left: float) -> dict:
        box = {"category_id": 0, "bbox": [left, 2.0, 3.0, 4.0]}
        return {"file_name": name, "height": 8, "width": 9, "annotations": [box]}

    one, two = record("x/a.png", 1.0), record("x/b.png", 1.0)
    base = fingerprint([one, two])
    assert base == fingerprint([two, record("y/a.png", 1.0)])
    assert base["sha256"] != fingerprint([one, record("x/b.png", 1.5)])["sha256"]
    assert base["sha256"] != fingerprint([one])["sha256"]
    assert (base["images"], base["boxes"], base["without_boxes"]) == (2, 2, 0)


@pytest.mark.slow
def test_the_wheel_alone_has_the_configs(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path), "."]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = f"from ulga_d2 import model_zoo; print(model_zoo.get_config({NAME!r}).INPUT.SQUARE_SIZE)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "site", capture_output=True, text=True
    )
    assert done.stdout.strip() == "256", done.stderr
