"""`ulga compare`: what a user reads, the file, and what is refused with a cure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_compare import perfect

from ulga_d2.cli.main import main
from ulga_d2.data.builtin import load_split

FEW = ["--bootstrap", "100", "--permutations", "100"]


@pytest.fixture
def files(sample_data: Path, tmp_path: Path) -> dict[str, Path]:
    """Write a perfect detector's detections, and two seeds of one that misses objects."""
    records = load_split("brain_tumor_val").records
    whole = perfect(records)
    found = {"good": whole, "bad": whole[1:], "worse": whole[2:]}
    for name, predictions in found.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(predictions))
    return {name: tmp_path / f"{name}.json" for name in found}


def ulga_compare(*words: object) -> int:
    return main(["compare", *map(str, words)])


def test_two_checkpoints_are_compared_in_words_and_in_a_file(files, tmp_path, capsys):
    out = tmp_path / "compared.json"
    sides = (files["bad"], "--", files["good"])
    assert ulga_compare(*sides, "--dataset", "brain_tumor_val", *FEW, "--json", out) == 0
    text = capsys.readouterr().out
    assert "6 images, each drawn by itself" in text
    assert "for these two checkpoints" in text and "p (seeds)" not in text
    told = json.loads(out.read_text())
    assert (told["images"], told["cluster"], told["clusters"]) == (6, "image", 6)
    ap = told["figures"]["bbox/AP"]
    assert ap["difference"] == pytest.approx(ap["b"] - ap["a"]) and ap["difference"] > 0
    assert ap["conclusion"] in text
    assert ap["p_value_seeds"] is None and ap["smallest_detectable"] is None


def test_options_may_stand_before_the_sides_and_draws_follow_the_seed(files, tmp_path):
    results = []
    for seed in (1, 1, 2):
        out = tmp_path / f"{len(results)}.json"
        words = ["--dataset", "brain_tumor_val", "--seed", seed, *FEW, "--json", out]
        assert ulga_compare(*words, files["bad"], "--", files["good"]) == 0
        results.append(json.loads(out.read_text())["figures"])
    assert results[0] == results[1] != results[2]


def test_several_seeds_are_paired_and_say_what_they_could_have_found(files, tmp_path, capsys):
    out = tmp_path / "seeds.json"
    sides = (files["bad"], files["worse"], "--", files["good"], files["good"])
    assert ulga_compare(*sides, "--dataset", "brain_tumor_val", *FEW, "--json", out) == 0
    text = capsys.readouterr().out
    assert "over 2 pairs of seeds" in text and "checkpoints" not in text and "p (seeds)" in text
    assert "Smallest difference that so many pairs of seeds find" in text
    ap = json.loads(out.read_text())["figures"]["bbox/AP"]
    gaps = ap["difference_by_seed"]
    assert len(gaps) == 2 and ap["difference"] == pytest.approx(np.mean(gaps))
    assert gaps[1] > gaps[0] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["good"], "side B is missing: put -- between the two sides"),
        (["good", "bad", "--", "good"], "2 file(s) before -- and 1 after it"),
        (["good", "--", "bad", "--bootstrap", "9"], "--bootstrap is 9; give 100 or more"),
        (["good", "--", "bad", "--seed", "-1"], "--seed is -1; give 0 or more"),
        (["good", "--", "bad", "--cluster", "run:0"], "--cluster run:0"),
        (["good", "--", "bad", "--cluster", "patient"], "nothing tells whose image"),
        (["good", "--", "none.json"], "none.json cannot be read"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_a_cure(files, words, message, capsys):
    words = [files.get(word, word) for word in words]
    assert ulga_compare("--dataset", "brain_tumor_val", *words) == 2
    assert message in capsys.readouterr().err


def test_a_dataset_with_several_splits_is_refused_with_their_names(files, capsys):
    assert ulga_compare(files["bad"], "--", files["good"], "--dataset", "brain_tumor") == 2
    assert "name one of brain_tumor_train, brain_tumor_val" in capsys.readouterr().err
