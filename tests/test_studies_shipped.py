"""The studies that the project ships: each can be run, and each cell of it has a sound config."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.conftest import TINY
from ulga_d2.cli.main import main
from ulga_d2.study.execute import Execution, check_configs
from ulga_d2.study.plan import Cell, Study, read_study

SHIPPED = sorted(Path("configs/studies").glob("*.yaml"))
ASKED_FOR = {"modules", "modules_vit", "modules_dat", "acp_layers", "concepts", "dat_offsets"}
ASKED_FOR |= {"context", "context_channel_norms", "ambiguity", "object_size", "equal_parameters"}
# What makes a cell small, whatever its backbone.
SMALL = {key: value for key, value in TINY.items() if "ULGA" not in key and "FPN" not in key}
SMALL |= {"SOLVER.MAX_ITER": "2", "TEST.EVAL_PERIOD": "0"}


def test_every_question_that_is_asked_has_its_study():
    assert {path.stem for path in SHIPPED} == ASKED_FOR


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_study_can_be_listed_and_every_cell_has_a_sound_config(path, tmp_path, capsys):
    study = read_study(path)
    assert study.references and study.about and "{" not in study.about
    check_configs(study.cells)
    assert main(["study", str(path), "--list", "--out", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(study.cells)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_variants_of_a_study_differ_in_more_than_their_names(path):
    study = read_study(path)
    cells = [cell for cell in study.cells if cell.seed == study.cells[0].seed]
    assert len({(cell.config, cell.data, cell.options) for cell in cells}) == len(cells) > 1


def small(study: Study) -> tuple[Study, Cell]:
    """Return a study with tiny samples, and its last cell with a tiny run."""
    cell = study.cells[-1]
    options = (*cell.options, *(word for pair in SMALL.items() for word in pair))
    cell = dataclasses.replace(cell, options=options)
    samples = {
        name: {**arguments, "num_train": 4, "num_val": 2, "size": 64}
        for name, arguments in study.samples.items()
    }
    return dataclasses.replace(study, cells=(cell,), samples=samples), cell


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_cell_of_a_shipped_study_trains(path, tmp_path):
    study, cell = small(read_study(path))
    execution = Execution(study, tmp_path)
    assert execution.run() == []
    assert (execution.folder(cell) / "model_final.pth").is_file()
