"""Difficulty is real: one fixed tiny detector finds less from easy to hard, and something there."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import tiny_args

from ulga_d2.data.sample import write_sample
from ulga_d2.data.sample.difficulty import DIFFICULTIES
from ulga_d2.data.sample.write import WRITERS
from ulga_d2.engine.launch import main

SIZE = 96
# The same for all data sets and difficulties.
DETECTOR = {
    "MODEL__ULGA__SWIN__EMBED_DIM": 32,
    "MODEL__ANCHOR_GENERATOR__SIZES": [[12, 16], [22, 30], [42, 56]],
    "INPUT__SQUARE_SIZE": SIZE,
    "SOLVER__MAX_ITER": 500,
    "SOLVER__IMS_PER_BATCH": 8,
    "SOLVER__BASE_LR": 0.001,
    "SOLVER__WARMUP_ITERS": 50,
    "SOLVER__CHECKPOINT_PERIOD": 500,
}


def average_precision(folder: Path, dataset: str, difficulty: str) -> float:
    """Train on a sample from scratch and return AP at IoU 0.5."""
    root = folder / difficulty
    # Most films of RSNA's kind show nothing, so it takes more of them to learn from.
    count = 900 if dataset == "rsna_pneumonia" else 300
    write_sample(dataset, root / dataset, count, count // 3, SIZE, difficulty, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        patch.setenv("XDG_CACHE_HOME", str(folder))
        leaf = f"{dataset}_swin_ulga_nano"
        results = main(tiny_args(folder / f"run_{difficulty}", leaf=leaf, **DETECTOR))
    return results["bbox"]["AP50"]


@pytest.mark.slow
@pytest.mark.parametrize("dataset", list(WRITERS))
def test_average_precision_falls_from_easy_to_hard_and_stays_above_0(tmp_path, dataset):
    found = [average_precision(tmp_path, dataset, difficulty) for difficulty in DIFFICULTIES]
    easy, medium, hard = found
    print(dataset, [f"{value:.1f}" for value in found])
    assert easy > medium > hard > 0
