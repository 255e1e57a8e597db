"""AP against the measured ambiguity of a study's samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from ulga_d2.data.sample import write_sample
from ulga_d2.errors import UserError
from ulga_d2.evaluation.runs import Run
from ulga_d2.study.ambiguity import ambiguity_curve, ambiguity_table
from ulga_d2.study.execute import Execution
from ulga_d2.study.plan import Cell, Study
from ulga_d2.study.samples import measure_samples
from ulga_d2.study.table import Row

LEVELS = ("similarity_0", "similarity_40", "similarity_80")
SAMPLE = {"dataset": "cod10k", "num_train": 4, "num_val": 24, "size": 96}
SAMPLE |= {"difficulty": "medium", "seed": 0}


def row(data: str, variant: str, figures: list[float]) -> Row:
    runs = [Run(Path(), {}, (), {"bbox/AP": figure}, {}) for figure in figures]
    cells = [Cell(data, variant, seed, "c.yaml", data, ()) for seed in range(len(figures))]
    return Row(cells[0].row, tuple(cells), tuple(runs))


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[str, list[float]]:
    samples = {level: {**SAMPLE, "task": level} for level in LEVELS}
    out = tmp_path_factory.mktemp("study")
    for name, arguments in samples.items():
        rest = {key: value for key, value in arguments.items() if key != "dataset"}
        write_sample("cod10k", out / "data" / name / "cod10k", **rest)
    return measure_samples(out, samples)


def test_the_more_alike_the_textures_the_smaller_the_measured_d_prime(measured):
    means = [sum(values) / len(values) for values in measured.values()]
    assert list(measured) == list(LEVELS)
    assert means == sorted(means, reverse=True) and means[0] > 2 * means[-1]


def test_objects_that_were_trained_on_are_not_measured(tmp_path):
    (tmp_path / "data/low/cod10k").mkdir(parents=True)
    table = tmp_path / "data/low/cod10k/difficulty.csv"
    table.write_text("split,image,d_prime\ntrain,a,9.00\ntest,b,0.25\ntest,b,0.50\n")
    assert measure_samples(tmp_path, {"low": SAMPLE}) == {"low": [0.25, 0.5]}


def test_the_table_and_the_curve_set_the_mean_over_seeds_against_d_prime():
    rows = [row("low", "plain", [10.0, 20.0]), row("high", "plain", [40.0, 50.0])]
    rows += [row("low", "both", [30.0, 30.0])]
    found = {"low": [0.1, 0.3], "high": [1.0]}
    table = ambiguity_table(rows, found).splitlines()
    assert [word.strip() for word in table[0].split("|")][-3:-1] == ["AP plain", "AP both"]
    assert "15.0 ± 7.1" in table[2] and "30.0 ± 0.0" in table[2] and "0.20" in table[2]
    assert "45.0 ± 7.1" in table[3] and "–" in table[3]
    assert "plain" in ambiguity_curve(rows, found)


def test_a_sample_without_the_measure_is_refused_before_the_first_cell(tmp_path):
    samples = {"heads": {**SAMPLE, "dataset": "brain_tumor", "size": 64}}
    config = "configs/brain_tumor_swin_baseline_nano.yaml"
    cells = (Cell("", "plain", 0, config, "heads", ()),)
    execution = Execution(Study("s", "", cells, samples, ("plain",), True), tmp_path)
    with pytest.raises(UserError, match="difficulty.csv has no d_prime.*take cod10k"):
        execution.run()
    assert not execution.folder(cells[0]).exists()
