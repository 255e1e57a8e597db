"""Faults that are put into a sample come out in the reader's and the doctor's reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ulga_d2.data.builtin import LOADERS
from ulga_d2.data.check.doctor import Settings, check_splits
from ulga_d2.data.record import LoadedSplit
from ulga_d2.data.sample import write_sample
from ulga_d2.data.sample.defects import DEFECTS, REPORT, defects_of
from ulga_d2.data.sample.outcome import TURNED
from ulga_d2.data.sample.write import WRITERS
from ulga_d2.errors import UserError

LAYOUTS = [(dataset, layout) for dataset, forms in WRITERS.items() for layout in forms]
CASES = [(*pair, name) for pair in LAYOUTS for name in defects_of(pair[1])]

# What a reader refuses: faults of structure, and losses of more than 1 % of so few images.
STOPPING = {
    *("unknown_class", "unknown_label", "decimal_comma", "empty_number", "swapped_size"),
    *("repeated_id", "wrong_header", "broken_json", "second_copy", "missing_image"),
    *("missing_mask", "empty_mask", "other_mask_size", "box_not_finite"),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(root: Path, dataset: str, layout: str, defects: list[str], num_train: int = 8) -> dict:
    write_sample(
        dataset,
        root,
        num_train=num_train,
        num_val=5,
        size=96 if dataset == "cod10k" else 48,  # creatures of a few pixels have no clear mask
        difficulty="easy",
        seed=2,
        layout=layout,
        defects=defects,
    )
    return json.loads((root / REPORT).read_text())


def check_stops(root: Path, dataset: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        LOADERS[dataset](root, "train")
    assert message in str(caught.value)


def check_report(loaded: LoadedSplit, expected: dict) -> None:
    report = loaded.report
    assert report.reasons == expected["reasons"]
    assert report.dropped_images == expected["dropped"]["images"]
    assert report.dropped_boxes == expected["dropped"]["boxes"]


def findings_of(root: Path, dataset: str) -> list[str]:
    splits = {split: LOADERS[dataset](root, split) for split in ("train", "val")}
    return [item.what for item in check_splits(splits, Settings()).findings]


@pytest.mark.parametrize(("dataset", "layout", "defect"), CASES)
def test_a_defect_is_reported_as_expected(tmp_path, dataset, layout, defect):
    root = tmp_path / dataset
    expected = write(root, dataset, layout, [defect])
    if expected["stops"]:
        check_stops(root, dataset, expected["stops"][defect])
    else:
        check_report(LOADERS[dataset](root, "train"), expected)
        found = findings_of(root, dataset) if expected["findings"] else []
        assert set(expected["findings"]) <= set(found)


@pytest.mark.parametrize("layout", [layout for _, layout in LAYOUTS])
def test_every_layout_has_defects(layout):
    assert len(defects_of(layout)) >= 2


def test_every_defect_suits_a_layout():
    assert {name for _, layout in LAYOUTS for name in defects_of(layout)} == set(DEFECTS)
    assert set(DEFECTS) >= STOPPING


@pytest.mark.parametrize(("dataset", "layout"), [p for p in LAYOUTS if p[1] != "cheng"])
def test_all_defects_that_do_not_stop_are_counted_together(tmp_path, dataset, layout):
    stopping = STOPPING | ({"orphan_image"} if dataset == "cod10k" else set())  # lost, there
    harmless = [name for name in defects_of(layout) if name not in stopping]
    root = tmp_path / dataset
    expected = write(root, dataset, layout, harmless, num_train=85 if layout == "rsna" else 25)
    assert not expected["stops"]
    check_report(LOADERS[dataset](root, "train"), expected)
    assert set(expected["findings"]) <= set(findings_of(root, dataset))


def test_the_annotations_of_the_other_images_stay_as_they_are(tmp_path):
    write(tmp_path / "bad", "brain_tumor", "yolo", ["box_outside"])
    write_sample(
        "brain_tumor", tmp_path / "good", num_train=8, num_val=5, size=48, difficulty="easy", seed=2
    )
    good, bad = (sorted((tmp_path / name / "labels").rglob("*.txt")) for name in ("good", "bad"))
    different = [a for a, b in zip(good, bad, strict=True) if a.read_bytes() != b.read_bytes()]
    assert len(different) == 1


def test_equal_parameters_give_equal_faults(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, "ccellbio", "ours", ["truncated_image", "turned", "box_outside"])
    first, second = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*")}
        for name in ("a", "b")
    )
    assert first == second


def test_a_loss_under_one_percent_is_dropped_and_above_it_stops(tmp_path):
    root = tmp_path / "nih_chest_xray"
    expected = write(root, "nih_chest_xray", "nih", ["missing_image"], num_train=110)
    assert not expected["stops"] and expected["dropped"]["images"] == 1
    check_report(LOADERS["nih_chest_xray"](root, "train"), expected)


@pytest.mark.parametrize(
    ("layout", "defects", "message"),
    [
        ("yolo", ["turned"], r"defect 'turned' cannot be put into this layout; take any of box_pa"),
        ("yolo", defects_of("yolo"), r"\d+ defects need as many training images"),
    ],
)
def test_defects_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path, layout, defects, message
):
    with pytest.raises(UserError, match=message):
        write(tmp_path / "s", "brain_tumor", layout, defects)
    assert not (tmp_path / "s").exists()


def test_a_turned_image_of_another_shape_is_told_from_a_square_one(tmp_path):
    turned = {
        layout: write(tmp_path / layout, dataset, layout, ["turned"])
        for dataset, layout in (("brain_tumor", "roboflow"), ("ccellbio", "ours"))
    }
    assert not turned["roboflow"]["reasons"] and turned["ours"]["reasons"]
    assert all(TURNED in expected["findings"] for expected in turned.values())
