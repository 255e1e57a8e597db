"""The index of a zoo, for programs, and its list, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tabulate import tabulate

from ..errors import UserError
from ..evaluation.atomic import write_atomically
from ..weights.digest import file_sha256
from ..weights.share import SUFFIX, read_safetensors
from ..weights.zoo import INDEX
from .card import escape, limit_of, shown_metrics

LIST = "MODEL_ZOO.md"
WORDS = """# Model zoo

Made by `ulga zoo index` from what `ulga zoo publish` has written; every folder has a model card.
In percent, on the set that the card names. No entry is a medical device.

{table}
"""


def write_index(root: str | Path) -> Sequence[str]:
    """Write `index.json` and `MODEL_ZOO.md` for the entries in a folder; return their names.

    Every file is read and checked, and gets the sha256 by which it will be known.

    Raises:
        UserError: no entry, or one whose weights are damaged, missing or not alone.
    """
    root = Path(root)
    entries: dict[str, dict[str, Any]] = {}
    for folder in sorted(path.parent for path in root.glob("*/config.yaml")):
        weights = list(folder.glob(f"*{SUFFIX}"))
        if len(weights) != 1:
            raise UserError(f"{folder} holds {len(weights)} files of weights; one is wanted")
        _, info = read_safetensors(weights[0])
        if info is None:
            raise UserError(f"{weights[0]} was not written by `ulga zoo publish`")
        entries[folder.name] = {
            "file": weights[0].relative_to(root).as_posix(),
            "sha256": file_sha256(weights[0]),
            "bytes": weights[0].stat().st_size,
            "metrics": dict(info.metrics),
        }
    if not entries:
        raise UserError(f"{root} holds no entry; `ulga zoo publish` makes one")
    table = _table(entries)
    index = json.dumps({"version": 1, "entries": entries}, indent=1) + "\n"
    write_atomically(str(root / INDEX), index.encode())
    write_atomically(str(root / LIST), WORDS.format(table=table).encode())
    return list(entries)


def _table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out the metrics; where entries differ in the limit of detections, each has columns."""
    limits = sorted({limit_of(entry["metrics"]) for entry in entries.values()})
    columns = [(limit, *pair) for limit in limits for pair in shown_metrics(limit).items()]
    rows = []
    for name, entry in entries.items():
        metrics = entry["metrics"]
        values = [
            metrics.get(metric) if limit_of(metrics) == limit else None
            for limit, metric, _ in columns
        ]
        shown = ["–" if value is None else f"{value:.1f}" for value in values]
        rows.append(
            [f"[{escape(name)}]({quote(name)}/README.md)", *shown, f"{entry['bytes'] / 1e6:.1f}"]
        )
    headers = ["model", *(title for *_, title in columns), "MB"]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)
