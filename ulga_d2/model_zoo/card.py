"""The words beside shared weights: what they are, what they are for, how good they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..config import parse_config
from ..errors import UserError
from ..evaluation.average_precision import headline
from ..evaluation.boxes import COCO_LIMIT
from ..io import parse_json
from ..weights.share import SharedInfo

CARD = """# {name}

{classes} on {train}. Weights of iteration {iteration}, in `{file}`.

| | |
|---|---|
| backbone | {backbone}, interactions: {interactions} |
| input | {side} x {side} px |
| training | {iterations} iterations of {batch} images, rate {rate}, from {start}, seed {seed} |
| sha256 of the file | `{sha256}` |
| licence of the weights | {licence} |

## Use

```bash
python train_net.py --config-file {folder}/config.yaml --eval-only MODEL.WEIGHTS {folder}/{file}
```

In Python, with `ULGA_ZOO` naming the folder or URL above this one:
`ulga_d2.model_zoo.get("{name}", trained=True)`.

## Figures

In percent, on {test}.

{figures}

## Data

{data}

{sets}

A set is the same if its sha256 is: of the images' names and sizes, the boxes and the classes.

## Intended use and limits

For research on detectors. Not a medical device: not for diagnosis, nor for any decision about a
person. The figures hold for the data above; other scanners, sites, patients and species were not
tried, and a model that finds nothing does not say that there is nothing.
"""


def model_card(
    name: str,
    info: SharedInfo,
    file: str,
    sha256: str,
    *,
    data: str,
    licence: str,
    intervals: Mapping[str, Any],
) -> str:
    """Return the card of an entry as Markdown.

    Args:
        name: of the entry.
        info: what the weights are.
        file: name of the weights' file.
        sha256: of that file.
        data: what the run was trained on, and its licence, in words.
        licence: of the weights, in words.
        intervals: see `read_intervals`.

    Raises:
        UserError: intervals of other figures.
    """
    about = {"name": name, "folder": name, "file": file, "sha256": sha256, "licence": licence}
    return CARD.format(
        **about,
        **_of_config(parse_config(info.config, "the weights")),
        data=data,
        classes=f"A detector of {', '.join(info.class_names)}",
        iteration=f"{info.iteration:,}",
        figures=_figures(info.metrics, intervals),
        sets=_sets(info.data),
    )


def _of_config(cfg: Mapping[str, Any]) -> dict[str, Any]:
    solver, model = cfg["SOLVER"], cfg["MODEL"]
    return {
        "train": " + ".join(cfg["DATASETS"]["TRAIN"]),
        "test": ", ".join(cfg["DATASETS"]["TEST"]),
        "backbone": model["BACKBONE"]["NAME"],
        "interactions": ", ".join(model["ULGA"]["INTERACTIONS"]) or "none",
        "side": cfg["INPUT"]["SQUARE_SIZE"],
        "iterations": f"{solver['MAX_ITER']:,}",
        "batch": solver["IMS_PER_BATCH"],
        "rate": solver["BASE_LR"],
        "start": model["WEIGHTS"] or "random weights",
        "seed": cfg["SEED"],
    }


def _sets(data: Mapping[str, Any]) -> str:
    columns = ("images", "without_boxes", "boxes", "sha256")
    rows = [[name, *(one[column] for column in columns)] for name, one in data.items()]
    headers = ["set", "images", "without boxes", "boxes", "sha256"]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def read_intervals(path: str | Path) -> dict[str, Any]:
    """Read what `ulga evaluate --json` has written.

    Raises:
        UserError: the file is none.
    """
    try:
        found = parse_json(Path(path).read_bytes(), path)
        for figure in found["figures"].values():
            numbers = (figure["value"], *(figure.get("interval") or ()))
            known = [number for number in numbers if number is not None]
            if len(numbers) not in (1, 3) or not all(map(math.isfinite, known)):
                raise ValueError("a figure without numbers")
        return {"clusters": found["cluster"], "figures": found["figures"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is not what `ulga evaluate --json` writes: {error!r}") from None


def limit_of(metrics: Mapping[str, float | None]) -> int:
    """Return the limit of detections an image under which a run was evaluated."""
    return int(metrics.get("max_detections") or COCO_LIMIT)


def shown_metrics(max_detections: int) -> dict[str, str]:
    """Return the metrics that cards and the list of a zoo show: the title of each, by its name."""
    return headline(max_detections) | {"froc/mean": "FROC, mean sensitivity"}


def _figures(metrics: Mapping[str, float | None], intervals: Mapping[str, Any]) -> str:
    rows = []
    for name, title in shown_metrics(limit_of(metrics)).items():
        value = metrics.get(name)
        if value is None:
            continue
        known = intervals.get("figures", {}).get(name, {})
        if known and abs(known["value"] - value) > 0.01:  # scores are rounded when they are saved
            raise UserError(
                f"the intervals are of other detections: {name} is {known['value']:.2f} there and "
                f"{value:.2f} in the run; run `ulga evaluate` on this run"
            )
        low, high = known.get("interval") or (None, None)
        rows.append([title, f"{value:.1f}", "" if low is None else f"{low:.1f} to {high:.1f}"])
    return tabulate(
        rows, ["figure", "value", "95 % interval"], tablefmt="pipe", disable_numparse=True
    )
