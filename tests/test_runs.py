"""Several runs side by side: grouping by experiment, mean and spread, Markdown, CSV, curves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from ulga_d2.cli.main import main
from ulga_d2.evaluation.runs import group_runs, read_run, summarise


def write_run(folder: Path, ap: float | None, *, seed: int = 0, rate: float = 0.1) -> Path:
    (folder / "inference").mkdir(parents=True)
    config = {"SEED": seed, "OUTPUT_DIR": str(folder), "SOLVER": {"BASE_LR": rate}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    reasons = {"bbox/AP": "no object"} if ap is None else {}
    figures = {"bbox/AP": ap, "reasons": reasons}
    (folder / "inference" / "metrics.json").write_text(json.dumps(figures))
    lines = [{"iteration": i, "total_loss": 1.0 / (i + 1)} for i in range(5)]
    text = "\n".join(map(json.dumps, lines)) + '\n{"iterat'
    (folder / "metrics.json").write_text(text)
    return folder


@pytest.fixture
def folders(tmp_path):
    return [
        write_run(tmp_path / "plain_seed0", 10.0, seed=0),
        write_run(tmp_path / "plain_seed1", 12.0, seed=1),
        write_run(tmp_path / "other", 30.25, rate=0.2),
    ]


def test_runs_that_differ_in_seed_and_folder_alone_are_one_experiment(folders):
    groups = group_runs(map(read_run, folders))
    sizes = {name: len(members) for name, members in groups.items()}
    assert sizes == {"plain": 2, "other": 1}


def test_a_figure_is_summarised_over_the_runs_that_have_it():
    assert summarise([1.0, None, 3.0]) == summarise([3.0, 1.0])
    summary = summarise([1.0, None, 3.0])
    assert (summary.n, summary.mean, summary.best) == (2, 2.0, 3.0)
    assert summary.deviation == pytest.approx(2**0.5)
    assert summarise([5.0]).deviation is None
    assert summarise([None]).mean is None


def test_the_command_prints_a_table_and_writes_it_with_csv_and_curves(folders, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--figure", "bbox/AP", "--markdown", str(out / "t.md"), "--csv", str(out / "t.csv")]
    assert main(["runs", *map(str, folders), *words, "--curves", str(out / "c.svg")]) == 0
    printed = capsys.readouterr().out
    assert "11.0 ± 1.4 (12.0)" in printed and "30.2" in printed
    assert (out / "t.md").read_text() == printed
    rows = list(csv.DictReader(open(out / "t.csv")))
    assert [float(row["bbox/AP"]) for row in rows] == [10.0, 12.0, 30.25]
    svg = ElementTree.parse(out / "c.svg")
    assert len(svg.findall(".//{http://www.w3.org/2000/svg}path")) == 3


def test_an_undefined_figure_is_a_word_and_never_a_number(tmp_path, capsys):
    folder = write_run(tmp_path / "empty", None)
    assert main(["runs", str(folder), "--figure", "bbox/AP"]) == 0
    assert "undefined" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{0}", "{0}"], "given twice"),
        (["{0}", "--figure", "bbox/mAP"], "no run has a figure bbox/mAP; there are bbox/AP"),
        (["{1}"], "is no run folder: it has no config.yaml"),
    ],
)
def test_what_cannot_be_compared_is_refused(folders, tmp_path, capsys, words, message):
    places = [str(folders[0]), str(tmp_path)]
    assert main(["runs", *(word.format(*places) for word in words)]) == 2
    assert message in capsys.readouterr().err
