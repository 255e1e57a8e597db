"""`ulga evaluate`: the metrics of saved detections, with intervals, in words and as JSON."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest
from test_average_precision import CLASSES, random_set

from ulga_d2.cli.main import main
from ulga_d2.data.builtin import load_split
from ulga_d2.data.sample import write_sample
from ulga_d2.evaluation.estimate import estimate, estimate_as_dict, estimate_table
from ulga_d2.evaluation.resample import Draws, Scorer, cluster_draws
from ulga_d2.evaluation.summary import all_metrics

NAME = "brain_tumor_val"


def no_watch(items, what):
    return items


def near_the_objects(records):
    """A detection beside each object, some under another class, and one in each corner."""
    rng = np.random.default_rng(0)
    found = []
    for record in records:
        boxes = [(box["category_id"], box["bbox"]) for box in record["annotations"]]
        for category, (x0, y0, x1, y1) in boxes:
            shift = rng.integers(-4, 5)
            shifted = [float(x0 + shift), float(y0), float(x1 - x0), float(y1 - y0)]
            found.append((record["image_id"], int(category), shifted))
        found.append((record["image_id"], 0, [0.0, 0.0, 9.0, 9.0]))
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": float(rng.random())}
        for image, category, box in found
    ]


@pytest.fixture
def saved(sample_data, tmp_path):
    """Return a file of detections on the sample's validation images."""
    path = tmp_path / "found.json.gz"
    found = near_the_objects(load_split(NAME).records)
    path.write_bytes(gzip.compress(json.dumps(found).encode()))
    return path


def ulga_evaluate(*words):
    return main(["evaluate", *map(str, words)])


def test_all_metrics_are_printed_and_written_with_intervals_that_hold_them(saved, tmp_path, capsys):
    out = tmp_path / "new" / "figures.json"
    options = ("--bootstrap", 200, "--cluster", "run:3", "--json", out)
    assert ulga_evaluate(saved, "--dataset", NAME, *options) == 0
    text, written = capsys.readouterr().out, json.loads(out.read_text())
    loaded = load_split(NAME)
    found = json.loads(gzip.decompress(saved.read_bytes()))
    expected = all_metrics(loaded.records, found, loaded.class_names, froc_hit="iou").values
    assert {name: figure["value"] for name, figure in written["figures"].items()} == expected
    with_intervals = {name for name, one in written["figures"].items() if "interval" in one}
    assert {
        "bbox/AP",
        "bbox/AP50",
        "bbox/AP75",
        "bbox/AR100",
        "agnostic/AP",
        "froc/mean",
    } <= with_intervals
    for name in with_intervals:
        low, high = written["figures"][name]["interval"]
        assert 0 <= low <= high <= 100
        assert f"[{low:.2f}, {high:.2f}]" in text
    assert "runs of 3 consecutive numbers" in text
    assert (written["cluster"], written["resamples"], written["seed"]) == ("run:3", 200, 0)
    assert written["images"] == len(loaded.records) >= written["clusters"]


def test_a_run_folder_is_read_and_the_seed_decides_the_draws(saved, tmp_path, capsys):
    run = tmp_path / "run" / "inference"
    run.mkdir(parents=True)
    (run / "predictions.json.gz").write_bytes(saved.read_bytes())
    texts = []
    for what, seed in ((saved, 1), (run.parent, 1), (saved, 2)):
        assert ulga_evaluate(what, "--dataset", NAME, "--bootstrap", 100, "--seed", seed) == 0
        texts.append(capsys.readouterr().out.split("figure")[1])
    assert texts[0] == texts[1] != texts[2]


def test_where_the_data_know_patients_these_are_drawn(tmp_path, monkeypatch, capsys):
    sizes = {"num_train": 2, "num_val": 12, "size": 64}
    out = tmp_path / "nih_chest_xray"
    write_sample("nih_chest_xray", out, difficulty="easy", seed=0, **sizes)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    records = load_split("nih_chest_xray_val").records
    patients = len({record["patient_id"] for record in records})
    assert patients < len(records)
    (tmp_path / "found.json").write_text(json.dumps(near_the_objects(records)))
    options = ("--dataset", "nih_chest_xray_val", "--bootstrap", 100)
    assert ulga_evaluate(tmp_path / "found.json", *options) == 0
    assert f"drawn by patient ({patients} of them)" in capsys.readouterr().out


def test_without_resamples_there_are_no_intervals(saved, capsys):
    assert ulga_evaluate(saved, "--dataset", NAME, "--bootstrap", 0) == 0
    text = capsys.readouterr().out
    assert "bbox/AP50" in text
    assert "interval" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", NAME, "--bootstrap", 99], "--bootstrap is 99; give 100 or more, or 0"),
        (["--dataset", NAME, "--seed", -1], "--seed is -1"),
        (["--dataset", NAME, "--cluster", "patient"], "nothing tells whose image"),
        (["--dataset", NAME, "--cluster", "slice"], "there are patient, image and run:K"),
        (["--dataset", "brain_tumour_val"], "unknown data set brain_tumour_val"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(saved, capsys, options, message):
    assert ulga_evaluate(saved, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


# the estimate behind it


def test_an_interval_is_the_middle_of_the_resampled_metrics():
    records, predictions = random_set(1)
    clusters = np.arange(len(records)) // 2
    found = estimate(
        records,
        predictions,
        CLASSES,
        Draws(clusters, 100, 7),
        froc_hit="iou",
        watch=no_watch,
    )
    drawn = Scorer.of(records, predictions, CLASSES).scores(cluster_draws(clusters, 100, 7))
    interval = found.intervals["bbox/AP50"]
    ends = np.nanquantile(drawn[:, 1], [0.025, 0.975]).tolist()
    assert [interval.low, interval.high] == pytest.approx(ends)
    assert found.clusters == 4
    assert "With 4 clusters" in estimate_table(found)


def test_what_is_undefined_has_a_reason_and_no_interval():
    records = [{"image_id": 1, "annotations": []}, {"image_id": 2, "annotations": []}]
    found = estimate(records, [], ["a"], Draws(np.arange(2), 100), froc_hit="iou", watch=no_watch)
    assert found.intervals == {}
    figures = estimate_as_dict(found)["figures"]
    assert figures["bbox/AP"] == {"value": None, "reason": "no ground-truth boxes at all"}
    assert "bbox/AP is undefined: no ground-truth boxes at all" in estimate_table(found)


def test_resamples_that_leave_a_figure_undefined_are_told():
    box = {"bbox": [0, 0, 50, 50], "bbox_mode": 1, "category_id": 0}
    records = [{"image_id": 1, "annotations": [box]}, {"image_id": 2, "annotations": []}]
    found = estimate(records, [], ["a"], Draws(np.arange(2), 400), froc_hit="iou", watch=no_watch)
    undefined = found.intervals["bbox/AP"].undefined
    assert math.isclose(undefined / 400, 1 / 4, abs_tol=0.08)  # the empty image drawn twice
    assert f"bbox/AP: {undefined} of 400 resamples leave it undefined" in estimate_table(found)
