"""A run made into a folder that can be shared: weights, config, figures, model card."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from .. import get_cfg
from ..config import merge_config, parse_config, value_of
from ..data.fingerprint import fingerprint
from ..engine.datasets import load_run_data
from ..errors import UserError
from ..io import parse_json
from ..weights.checkpoint import evaluated_weights, load_checkpoint
from ..weights.share import SUFFIX, SharedInfo, write_shared
from .card import model_card, read_intervals

NAME = re.compile(r"[a-z0-9_]+")
# Settings that name places of the machine that trained: their last part stays.
PLACES = ("OUTPUT_DIR", "MODEL.WEIGHTS", "DATASETS.FOLDS_FILE", "DATASETS.CUSTOM")
HASH_DIGITS = 8


def publish(
    run: str | Path,
    out: str | Path,
    name: str,
    *,
    data: str,
    licence: str,
    intervals: str | Path | None = None,
) -> Path:
    """Write `out/name/` with the final weights of a run; return that folder.

    Args:
        run: folder of a run that has come to its end; its data must be at hand.
        out: folder of the zoo; made if missing.
        name: of the entry, as a rule that of its config.
        data: what the run was trained on, and under which licence, in words.
        licence: of the weights, in words.
        intervals: what `ulga evaluate RUN --json` has written, if the card is to show it.

    Raises:
        UserError: a run without its end, a name that is none, or an entry that exists. Nothing is
            left half-written.
    """
    run, out = Path(run), Path(out)
    if not NAME.fullmatch(name):
        raise UserError(f"the name {name!r}: give small letters, digits and _")
    if (out / name).exists():
        raise UserError(f"{out / name} exists; remove it or give another --name")
    words = {"data": data, "licence": licence}
    words["intervals"] = read_intervals(intervals) if intervals else {}
    state = load_checkpoint(run / "model_final.pth")
    info = _info(run, state)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".publish_") as folder:
        entry = Path(folder) / name
        entry.mkdir()
        _write_entry(entry, evaluated_weights(state), info, words)
        os.replace(entry, out / name)
    return out / name


def _info(run: Path, state: Mapping[str, Any]) -> SharedInfo:
    """Gather what is told of the final weights of a run."""
    return SharedInfo(
        _without_places(state["config"]),
        tuple(state["class_names"]),
        state["iteration"],
        _metrics(run, state["iteration"]),
        _fingerprints(state["config"]),
    )


def _write_entry(
    entry: Path, weights: Mapping[str, torch.Tensor], info: SharedInfo, words: Mapping[str, Any]
) -> None:
    """Write the files of an entry, which is called by its folder's name."""
    unnamed = entry / f"{entry.name}{SUFFIX}"
    sha256 = write_shared(unnamed, weights, info)
    file = unnamed.rename(entry / f"{entry.name}-{sha256[:HASH_DIGITS]}{SUFFIX}")
    (entry / "config.yaml").write_text(info.config, encoding="utf-8")
    (entry / "metrics.json").write_text(json.dumps(info.metrics, indent=1), encoding="utf-8")
    card = model_card(entry.name, info, file.name, sha256, **words)
    (entry / "README.md").write_text(card, encoding="utf-8")


def _metrics(run: Path, iteration: int) -> dict[str, float | None]:
    """Read the figures of the last evaluation, which must be that of the final weights."""
    try:
        log, final = run / "metrics.json", run / "inference" / "metrics.json"
        last = parse_json(log.read_bytes().splitlines()[-1], log)
        figures = parse_json(final.read_bytes(), final)
    except (OSError, IndexError) as error:
        raise UserError(f"{run} holds no finished run: {error}") from None
    if not isinstance(last, dict) or not isinstance(figures, dict):
        raise UserError(f"{run} holds no figures in metrics.json; evaluate the run again")
    if last.get("iteration") != iteration:
        raise UserError(
            f"{run}: its weights are of iteration {iteration}, and its last figures of "
            f"{last.get('iteration')}; let the run come to its end with --resume"
        )
    return figures


def _without_places(config: str) -> str:
    """Return a config without the folders of the machine that it names."""
    tree = parse_config(config, "the run's checkpoint")
    for key in PLACES:
        *nodes, leaf = key.split(".")
        node = value_of(tree, ".".join(nodes)) if nodes else tree
        if not isinstance(node.get(leaf), str):
            raise UserError(f"the run's config has no text under {key}: it is no resolved config")
        node[leaf] = Path(node[leaf]).name
    return yaml.safe_dump(tree)


def _fingerprints(config: str) -> dict[str, Any]:
    """Load the run's data and return what tells whether others are the same."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(config, encoding="utf-8")
        cfg = get_cfg()
        merge_config(cfg, str(file), [])
    data = load_run_data(cfg, with_training=True)
    sets = {" + ".join(cfg.DATASETS.TRAIN): data.train, **data.test}
    return {name: fingerprint(records) for name, records in sets.items()}
