"""A study: its grid, what is skipped, resumed or refused, and the tables at its end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import TINY
from ulga_d2.cli.main import main
from ulga_d2.errors import UserError
from ulga_d2.study import table
from ulga_d2.study.execute import Execution
from ulga_d2.study.plan import Cell, Study, read_study
from ulga_d2.study.table import finished_rows

SAMPLE = {"dataset": "brain_tumor", "num_train": 8, "num_val": 5, "size": 64}
SAMPLE |= {"difficulty": "easy", "seed": 0}
PLAIN = {"MODEL.ULGA.INTERACTIONS": []}


def written(folder: Path, **changes: object) -> Path:
    """Return the YAML of a small study."""
    content: dict[str, object] = {
        "configs": {"swin": "configs/brain_tumor_swin_ulga_nano.yaml"},
        "data": {"easy": SAMPLE},
        "options": {key: yaml.safe_load(value) for key, value in TINY.items()},
        "variants": {"plain": PLAIN, "both": {}},
        "seeds": [0, 1],
        "references": ["plain"],
    }
    content.update(changes)
    path = folder / "small.yaml"
    path.write_text(
        yaml.safe_dump({k: v for k, v in content.items() if v is not None}, sort_keys=False)
    )
    return path


def test_the_grid_has_a_cell_for_each_combination_seed_by_seed(tmp_path):
    configs = {"swin": "a.yaml", "vit": "b.yaml"}
    data = {"easy": SAMPLE, "hard": {**SAMPLE, "difficulty": "hard"}}
    study = read_study(written(tmp_path, configs=configs, data=data))
    names = [cell.name for cell in study.cells]
    assert len(names) == len(set(names)) == 2 * 2 * 2 * 2
    assert names[:3] == ["swin_easy_plain_seed0", "swin_easy_both_seed0", "swin_hard_plain_seed0"]
    assert [cell.seed for cell in study.cells] == [0] * 8 + [1] * 8
    first = study.cells[0]
    assert (first.config, first.data, first.group) == ("a.yaml", "easy", "swin_easy")
    assert first.options[-2:] == ("MODEL.ULGA.INTERACTIONS", "[]")


def test_a_shipped_study_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(read_study("configs/studies/equal_parameters.yaml").cells) == 10


def test_what_a_study_has_one_of_is_not_in_its_names(tmp_path):
    assert [c.name for c in read_study(written(tmp_path)).cells[:2]] == [
        "plain_seed0",
        "both_seed0",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": None}, "seeds is missing"),
        ({"seeds": [1, 1]}, "whole numbers, each once"),
        ({"seeds": [1.5]}, "whole numbers, each once"),
        ({"variant": {}}, "unknown key variant"),
        ({"variants": ["plain"]}, "variants is"),
        ({"variants": {"a/b": {}}}, "letters, digits"),
        ({"variants": {"plain": 3}}, "variant plain is 3"),
        ({"references": ["plain", "plane"]}, "the variants are plain, both"),
        ({"options": {"SEED": 3}}, "SEED is the study's own"),
        ({"data": {"easy": {"dataset": "brain_tumor"}}}, "data easy is"),
    ],
)
def test_a_wrong_study_is_refused_with_the_key_and_the_cure(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        read_study(written(tmp_path, **changes))


def test_a_study_never_runs_code(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("seeds: !!python/object/apply:os.system ['touch canary']")
    with pytest.raises(UserError, match="is not valid YAML"):
        read_study(path)
    assert not Path("canary").exists()


class Pretended(Execution):
    """Cells that leave a note of being run instead of training; "both" fails while it is told."""

    fails = False

    def _command(self, cell):
        code = f"import sys; print('ran'); sys.exit({int(self.fails and cell.variant == 'both')})"
        return [sys.executable, "-c", code]


def test_finished_cells_are_skipped_and_failed_ones_run_again(tmp_path, caplog):
    study = read_study(written(tmp_path, data=None))
    first = Pretended(study, tmp_path / "out")
    first.fails = True
    assert [cell.name for cell in first.run()] == ["both_seed0", "both_seed1"]
    assert "ended with code 1" in caplog.text
    second = Pretended(study, tmp_path / "out")
    assert [second.is_done(cell) for cell in study.cells] == [True, False, True, False]
    before = (tmp_path / "out/cells/plain_seed0.txt").stat().st_mtime_ns
    assert second.run() == []
    assert (tmp_path / "out/cells/plain_seed0.txt").stat().st_mtime_ns == before
    assert all(second.is_done(cell) for cell in study.cells)


def test_a_cell_that_was_run_with_other_settings_is_not_taken_for_this_one(tmp_path):
    Pretended(read_study(written(tmp_path, data=None)), tmp_path / "out").run()
    changed = written(tmp_path, data=None, variants={"plain": {**PLAIN, "SOLVER.BASE_LR": 0.1}},
                      references=None)  # fmt: skip
    with pytest.raises(UserError, match="run with other settings"):
        Pretended(read_study(changed), tmp_path / "out").run()


def test_a_variant_that_cannot_work_is_refused_before_any_cell_is_run(tmp_path):
    variants = {"plain": PLAIN, "wrong": {"MODEL.ULGA.ACP.NUM_LAYERS": 9}}
    study = read_study(written(tmp_path, data=None, variants=variants))
    with pytest.raises(UserError, match="variant wrong: MODEL.ULGA.ACP.NUM_LAYERS is 9; give 1 to"):
        Pretended(study, tmp_path / "out").run()
    assert not (tmp_path / "out/cells").exists()


def test_every_reference_is_compared_with_the_variants_that_it_has_not_met(tmp_path, monkeypatch):
    def row(group: str, variant: str) -> table.Row:
        cell = Cell(group, variant, 0, "c.yaml", group, ())
        return table.Row(cell.row, (cell,), ())

    variants = ("plain", "control", "both")
    rows = [row(group, variant) for group in ("a", "b") for variant in variants]
    study = Study("s", "", (), references=("plain", "control"))
    told = "{0.name} less {1.name}".format
    names = lambda _, pairs, *__: ", ".join(told(one, base) for base, one in pairs)  # noqa: E731
    monkeypatch.setattr(table, "_comparison", names)
    assert table.comparisons(Execution(study, tmp_path), rows, None, None).splitlines() == [
        "a_control less a_plain, a_both less a_plain, b_control less b_plain, b_both less b_plain",
        "",
        "a_both less a_control, b_both less b_control",
    ]


def test_cells_take_turns_on_the_gpus_that_are_given(tmp_path):
    class Told(Execution):
        def _command(self, cell):
            return [sys.executable, "-c", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"]

    study = read_study(written(tmp_path, data=None, seeds=[0, 1, 2]))
    Told(study, tmp_path / "out", [2, 5]).run()
    seen = {path.read_text().strip() for path in (tmp_path / "out/cells").glob("*.txt")}
    assert seen == {"2", "5"}


def test_the_cores_are_divided_among_jobs_and_a_number_of_threads_that_is_set_stays(
    tmp_path, monkeypatch
):
    class Told(Execution):
        def _command(self, cell):
            return [sys.executable, "-c", "import os; print(os.environ.get('OMP_NUM_THREADS'))"]

    def seen(name: str, jobs: int) -> set[str]:
        out = tmp_path / name
        Told(read_study(written(tmp_path, data=None)), out, jobs=jobs).run()
        return {path.read_text().strip() for path in (out / "cells").glob("*.txt")}

    monkeypatch.setattr("ulga_d2.study.execute.available_cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [seen("one", 1), seen("two", 2), seen("many", 9)] == [{"None"}, {"3"}, {"1"}]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert seen("set", 2) == {"5"}


def test_a_study_trains_goes_on_after_a_cut_and_compares(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["study", str(written(tmp_path, seeds=[0])), "--out", str(out), "--draws", "100"]
    assert main(words) == 0
    text = (out / "study.md").read_text()
    assert "2 of 2 cells" in text and "| both" in text and "less plain" in text
    assert (out / "study.csv").read_text().count("\n") == 3
    weights = (out / "cells/both_seed0/model_final.pth").read_bytes()

    # As after a kill in the middle of the second cell.
    folder = out / "cells/both_seed0"
    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text("model_0000002.pth")
    note = json.loads((out / "cells/both_seed0.json").read_text())
    (out / "cells/both_seed0.json").write_text(json.dumps({"asked": note["asked"]}))
    execution = Execution(read_study(tmp_path / "small.yaml"), out)
    assert [row.name for row in finished_rows(execution)] == ["plain"]
    capsys.readouterr()
    assert main(words) == 0
    assert "goes on" not in capsys.readouterr().err
    assert (folder / "model_final.pth").read_bytes() == weights
    assert "read" in (out / "cells/both_seed0.txt").read_text()
