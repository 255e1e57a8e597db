"""Splits by hash, fold files, and the memory for sizes."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from data_files import GOOD, write_yolo

from ulga_d2.data.folds import load_fold, read_folds, to_json
from ulga_d2.data.make_folds import EMPTY, balance, make_folds, uneven
from ulga_d2.data.options import DatasetOptions
from ulga_d2.data.record import Box, LoadedSplit, make_record
from ulga_d2.data.report import DataReport
from ulga_d2.data.size_cache import cached, cached_sizes
from ulga_d2.data.split import fold_of, hash_fraction, split_of
from ulga_d2.errors import UserError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
KEYS = [f"{number:08d}" for number in range(4000)]
CLASSES = ("solid", "ring")


def test_a_hash_is_the_same_on_every_machine_and_in_every_version():
    number = int(hashlib.sha256(b"7/00000042").hexdigest()[:16], 16)
    assert hash_fraction(7, "00000042") == pytest.approx(number / 2**64, abs=1e-15)
    assert fold_of(7, "00000042", 5) == number % 5


def test_a_split_gets_its_share_and_another_seed_another_part():
    counts = Counter(split_of(key, SHARES) for key in KEYS)
    for name, share in SHARES.items():
        assert counts[name] / len(KEYS) == pytest.approx(share, abs=0.02)
    moved = sum(split_of(key, SHARES) != split_of(key, SHARES, seed=1) for key in KEYS)
    assert moved > 0.3 * len(KEYS)


def test_folds_are_even_and_independent_of_other_keys():
    counts = Counter(fold_of(0, key, 5) for key in KEYS)
    assert set(counts) == {0, 1, 2, 3, 4}
    assert max(counts.values()) < 1.1 * len(KEYS) / 5


def load(patients: dict[str, list[int]], split: str) -> LoadedSplit:
    """Return a split with an image for each class list of each patient, and one file dropped."""
    report = DataReport.for_classes(CLASSES)
    report.found_images += 1
    report.drop_image("images that do not exist", "gone.png", boxes=0)
    records = []
    for number, (patient, category_ids) in enumerate(patients.items()):
        boxes = [Box((i, 0, i + 5, 9), c, "here") for i, c in enumerate(category_ids)]
        report.found_images += 1
        report.found_boxes += len(boxes)
        records.append(
            make_record(
                file_name=f"{split}{number}.png",
                image_id=number,
                size=(50, 50),
                boxes=boxes,
                class_names=CLASSES,
                report=report,
                patient_id=patient,
            )
        )
    return LoadedSplit(records, CLASSES, report)


@pytest.fixture
def pooled() -> dict[str, LoadedSplit]:
    train = {f"p{n}": [n % 2] * (n % 3) for n in range(40)}
    return {"train": load(train, "train"), "val": load({"p0": [1], "q": [0, 1]}, "val")}


def fold_file(path: Path, folds) -> DatasetOptions:
    path.write_text(to_json(folds))
    return DatasetOptions(folds_file=str(path))


def test_the_folds_of_a_file_part_the_pool_by_patient(tmp_path, pooled):
    folds = make_folds("set", pooled, k=3, group="patient", stratify=False, seed=5)
    options = fold_file(tmp_path / "folds.json", folds)
    assert read_folds(options.folds_file) == folds
    everything = []
    for fold in range(3):
        at = replace(options, fold=fold)
        train, val = (load_fold("set", s, pooled.__getitem__, at) for s in ("train", "val"))
        patients = [{r["patient_id"] for r in part.records} for part in (train, val)]
        assert not patients[0] & patients[1]
        assert len(train.records) + len(val.records) == 42
        assert train.report.found_images == len(train.records) + 2  # a dropped one a split
        assert all(folds.fold_of[patient] == fold for patient in patients[1])
        everything += [record["image_id"] for record in val.records]
    assert len(set(everything)) == len(everything) == 42
    assert {"train/0", "val/0"} <= set(everything)


def test_a_new_patient_moves_no_other(pooled):
    before = make_folds("set", pooled, k=4, group="patient", stratify=False, seed=0)
    pooled["train"].records.append({**pooled["train"].records[0], "patient_id": "new"})
    after = make_folds("set", pooled, k=4, group="patient", stratify=False, seed=0)
    assert before.fold_of.items() < after.fold_of.items()


def test_a_split_outside_the_pool_stays_as_it_is(tmp_path, pooled):
    folds = make_folds("set", pooled, k=2, group="image", stratify=False, seed=0)
    options = fold_file(tmp_path / "folds.json", folds)
    test = load({"z": [0]}, "test")
    assert load_fold("set", "test", lambda split: test, options) is test


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "other"}, r"FOLDS_FILE .* divides other, but set is loaded"),
        ({"k": 1}, r"no fold file \(k is 1, not 2 or more\); write one with `ulga data split`"),
        ({"k": "3"}, r"no fold file \(k is '3'"),
        ({"group": "eye"}, r"group is 'eye', not patient or image"),
        ({"fold_of": {"p0": 3}}, r"fold_of p0 is 3, not 0 to 2"),
        ({"fold_of": {"p0": 0.0}}, r"fold_of p0 is 0\.0"),
        ({"fold_of": {}}, r"fold_of is empty"),
        ({"fold_of": {"p0": 0}}, r"names no fold for patient p1 \(image train1\.png\)"),
        ({"splits": None}, r"no fold file"),
        ({"extra": 1}, r"no fold file"),
        (None, r"no fold file"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, pooled, change, message):
    folds = make_folds("set", pooled, k=3, group="patient", stratify=False, seed=0)
    options = fold_file(tmp_path / "folds.json", folds)
    content = json.loads(to_json(folds))
    content = "[]" if change is None else json.dumps(content | change)
    (tmp_path / "folds.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_fold("set", "train", pooled.__getitem__, options)


def test_a_fold_that_is_not_there_is_refused(tmp_path, pooled):
    folds = make_folds("set", pooled, k=3, group="patient", stratify=False, seed=0)
    options = replace(fold_file(tmp_path / "folds.json", folds), fold=3)
    with pytest.raises(UserError, match=r"DATASETS\.FOLD is 3, but .* has the folds 0 to 2"):
        load_fold("set", "train", pooled.__getitem__, options)


@pytest.mark.parametrize(("k", "seed"), [(1, 0), (99, 0), (2, -1)])
def test_impossible_folds_are_refused(pooled, k, seed):
    with pytest.raises(UserError, match=rf"{k} folds of 41 groups \(patient\) with seed {seed}"):
        make_folds("set", pooled, k=k, group="patient", stratify=False, seed=seed)


def test_folds_by_patient_need_patients(pooled):
    del pooled["train"].records[3]["patient_id"]
    with pytest.raises(UserError, match=r"nothing tells whose image train3\.png is"):
        make_folds("set", pooled, k=2, group="patient", stratify=False, seed=0)


def test_the_balance_counts_every_box_once_and_names_uneven_classes(pooled):
    folds = make_folds("set", pooled, k=2, group="patient", stratify=False, seed=0)
    counts = balance(pooled, folds)
    boxes = sum((loaded.report.boxes for loaded in pooled.values()), Counter())
    empty = sum(loaded.report.empty_images for loaded in pooled.values())
    assert sum(counts, Counter()) == boxes + Counter({EMPTY: empty})
    lines = uneven([Counter(solid=13, ring=5), Counter(solid=7, ring=5)])
    assert lines == [
        "fold 0 has 13 of solid, +30% off an even share of 10.0",
        "fold 1 has 7 of solid, -30% off an even share of 10.0",
    ]


def test_stratified_folds_balance_the_classes_and_keep_patients_whole(pooled):
    pytest.importorskip("sklearn")
    folds = make_folds("set", pooled, k=3, group="patient", stratify=True, seed=0)
    assert folds == make_folds("set", pooled, k=3, group="patient", stratify=True, seed=0)
    assert set(folds.fold_of) == {r["patient_id"] for s in pooled.values() for r in s.records}
    for label in (*CLASSES, EMPTY):
        counts = [count[label] for count in balance(pooled, folds)]
        assert max(counts) - min(counts) <= 2


def test_without_scikit_learn_stratified_folds_say_what_to_install(pooled, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)
    with pytest.raises(UserError, match=r"pip install .ulga_d2\[split\]"):
        make_folds("set", pooled, k=3, group="patient", stratify=True, seed=0)


def test_sizes_are_read_once_until_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image = next((write_yolo(tmp_path / "data", {"a": GOOD}) / "images").rglob("*.png"))
    calls = []

    def measure(path: str) -> int:
        calls.append(path)
        return len(calls)

    def look() -> int:
        with cached(tmp_path / "data", "test", measure, int) as value_of:
            return value_of(str(image))

    assert [look(), look()] == [1, 1]
    os.utime(image, ns=(1, 1))
    assert [look(), look()] == [2, 2]
    cache = next((tmp_path / "cache" / "ulga_d2").iterdir())
    for broken in ("{", "[]", json.dumps({str(image): [0]}), '{"a": 1}'):
        cache.write_text(broken)
        assert look() == len(calls)
    entry = json.loads(cache.read_text())[str(image)]
    cache.write_text(json.dumps({str(image): [*entry[:2], None]}))
    assert look() == len(calls)
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        "images",
        "labels",
        "data.yaml",
    }
    assert list((tmp_path / "cache" / "ulga_d2").iterdir()) == [cache]


def test_an_unwritable_cache_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    image = next((write_yolo(tmp_path / "data", {"a": GOOD}) / "images").rglob("*.png"))
    with cached_sizes(tmp_path / "data", DataReport()) as size_of:
        assert size_of(str(image)) == (20, 40)
