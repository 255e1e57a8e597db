"""The samples of a study: how ambiguous their objects are, as measured when they were written."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError


def measure_samples(out: Path, samples: Mapping[str, Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return the d' of the objects that are not trained on, by the name of the sample.

    It is that of the sample's `difficulty.csv`: how far the local gradients inside an object lie
    from those around it, in their deviations. The less, the more ambiguous the object.

    Args:
        out: folder of a study, which holds the samples.
        samples: their arguments by their names.

    Raises:
        UserError: a sample has no such measure.
    """
    measured = {}
    for data, arguments in samples.items():
        path = out / "data" / data / arguments["dataset"] / "difficulty.csv"
        with open(path, encoding="utf-8", newline="") as file:
            objects = [row for row in csv.DictReader(file) if row["split"] != "train"]
        if not objects or "d_prime" not in objects[0]:
            raise UserError(
                f"{path} has no d_prime: samples of {arguments['dataset']} are not measured so; "
                "take cod10k, or leave the study's ambiguity out"
            )
        measured[data] = [float(row["d_prime"]) for row in objects]
    return measured
