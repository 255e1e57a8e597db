"""Intervals hold the truth and the test is not deceived, as often as they say: by simulation.

The slow tests take about twenty minutes on one core and print the table of docs/certainty.md:
pytest -m slow tests/test_certainty_simulation.py -s
"""

from __future__ import annotations

import numpy as np
import pytest
from studies import coverage, detect, draw_patients, interval_study, null_study, truth

from ulga_d2.evaluation.resample import Scorer, cluster_draws

FIGURES = ["AP", "AP50", "AP75", "AR100"]
STUDIES = 1000


def told(what: str, values: np.ndarray) -> dict[str, float]:
    row = dict(zip(FIGURES, values.tolist(), strict=True))
    print(what, ", ".join(f"{name} {value:.1f}" for name, value in row.items()))
    return row


def estimates(patients: int, studies: int) -> np.ndarray:
    rows = []
    for seed in range(studies):
        rng = np.random.default_rng([seed, patients])
        rows.append(Scorer.of_matches([detect(rng, draw_patients(rng, patients))]).score())
    return np.array(rows)


def spread(clusters: np.ndarray, scorer: Scorer) -> np.ndarray:
    return scorer.scores(cluster_draws(clusters, 60, 0)).std(axis=0)


def test_resampled_patients_spread_as_studies_do_and_resampled_images_too_little():
    real = estimates(60, 300).std(axis=0)
    by_patient, by_image = [], []
    for seed in range(20):
        rng = np.random.default_rng([seed, 60])
        study = draw_patients(rng, 60)
        scorer = Scorer.of_matches([detect(rng, study)])
        by_patient.append(spread(study.clusters, scorer))
        by_image.append(spread(np.arange(len(study.clusters)), scorer))
    np.testing.assert_allclose(np.mean(by_patient, axis=0) / real, 1, atol=0.15)
    assert (np.mean(by_image, axis=0)[[0, 1, 3]] < 0.85 * real[[0, 1, 3]]).all()


def test_p_values_of_equal_detectors_are_spread_evenly():
    p_values = np.array([null_study(seed, 20, 60) for seed in range(60)])
    np.testing.assert_allclose(p_values.mean(axis=0), 0.5, atol=0.15)
    assert (np.mean(p_values <= 0.05, axis=0) <= 0.15).all()


@pytest.mark.slow
@pytest.mark.parametrize("patients", [60, 20])
def test_the_intervals_of_a_thousand_studies_hold_the_truth(patients):
    studies = [interval_study(seed, patients, 400) for seed in range(STUDIES)]
    held = {
        how: told(f"{patients} patients, {how}: held, %:", values)
        for how, values in coverage(studies, truth()).items()
    }
    if patients >= 60:
        for name in ("AP50", "AR100"):
            assert 93 <= held["percentile"][name] <= 97


@pytest.mark.slow
@pytest.mark.parametrize("patients", [60, 20])
def test_a_thousand_comparisons_of_equal_detectors_seldom_find_a_better_one(patients):
    p_values = np.array([null_study(seed, patients, 200) for seed in range(STUDIES)])
    alarms = told(f"{patients} patients, false alarms, %:", 100 * np.mean(p_values <= 0.05, axis=0))
    assert max(alarms.values()) <= 6.5
