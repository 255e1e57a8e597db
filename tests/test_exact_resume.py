"""Kill -9 at random moments: the resumed run ends as the uninterrupted one, in every part."""

from __future__ import annotations

import random

import pytest

from benchmarks import kill_resume


@pytest.mark.parametrize(("workers", "kills"), [(2, 2)])
def test_a_run_killed_at_random_moments_ends_as_the_uninterrupted_one(
    tmp_path, monkeypatch, workers, kills
):
    monkeypatch.setitem(kill_resume.OPTIONS, "SOLVER.MAX_ITER", 30)
    data = kill_resume.write_data(tmp_path / "data")
    kill_resume.run_whole(data, tmp_path / "whole", ranks=1)
    hits = kill_resume.run_killed(
        data, tmp_path / "cut", workers=workers, ranks=1, kills=kills, generator=random.Random(0)
    )
    assert hits
    end, whole = (kill_resume.end_of(tmp_path / run) for run in ("cut", "whole"))
    assert {"model", "ema", "moments", "loss_normalizer", "recent", "metrics.json"} <= whole.keys()
    assert [part for part in whole if end[part] != whole[part]] == []


@pytest.mark.slow
def test_forty_kills_change_nothing_with_workers_and_ranks(tmp_path):
    rows, is_equal = kill_resume.compare(tmp_path, kills=40, seed=1)
    assert is_equal, rows
    assert sum(row[2] for row in rows) == 40
