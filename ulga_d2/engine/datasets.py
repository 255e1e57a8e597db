"""The data sets of a run: loaded once, their class lists compared and resolved."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data.builtin import NAMES, load_described, load_split
from ..data.options import DatasetOptions
from ..errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunData:
    """What a run reads: the training records, each test set's records, and their common classes."""

    train: list[dict]
    test: dict[str, list[dict]]
    class_names: tuple[str, ...]


def load_run_data(cfg: CfgNode, *, with_training: bool) -> RunData:
    """Load the data sets that DATASETS.TRAIN (if `with_training`) and DATASETS.TEST name.

    Raises:
        UserError: an unknown data set (with the known ones), no image, or class lists that differ.
    """
    names = (list(cfg.DATASETS.TRAIN) if with_training else []) + list(cfg.DATASETS.TEST)
    if not cfg.DATASETS.TEST or (with_training and not cfg.DATASETS.TRAIN):
        raise UserError("DATASETS.TRAIN and DATASETS.TEST must each name a data set")
    for name in names:
        _check_name(cfg, name)
    loaded = {name: _load(cfg, name) for name in dict.fromkeys(names)}
    classes = {name: tuple(MetadataCatalog.get(name).thing_classes) for name in loaded}
    check_same_classes(classes)
    train = (
        [record for name in cfg.DATASETS.TRAIN for record in loaded[name]] if with_training else []
    )
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS and train:
        kept = [record for record in train if record["annotations"]]
        logger.info(
            "FILTER_EMPTY_ANNOTATIONS drops %d images without boxes", len(train) - len(kept)
        )
        train = kept
    if with_training and not any(record["annotations"] for record in train):
        raise UserError(
            f"DATASETS.TRAIN {list(cfg.DATASETS.TRAIN)}: no box in {len(train)} images, so there "
            "is nothing to learn; check the label files"
        )
    test = {name: loaded[name] for name in cfg.DATASETS.TEST}
    return RunData(train, test, next(iter(classes.values())))


def build_options(cfg: CfgNode) -> DatasetOptions:
    """Build the choices that the DATASETS keys describe."""
    return DatasetOptions(
        nih_negatives=cfg.DATASETS.NIH_NEGATIVES,
        cod10k_classes=cfg.DATASETS.COD10K_CLASSES,
        cod10k_noncam=cfg.DATASETS.COD10K_NONCAM,
        folds_file=cfg.DATASETS.FOLDS_FILE,
        fold=cfg.DATASETS.FOLD,
    )


def _check_name(cfg: CfgNode, name: str) -> None:
    own = _own_splits(cfg)
    if name in NAMES or name in own:
        return
    if name not in DatasetCatalog.list():
        known = [*own, *NAMES]
        near = difflib.get_close_matches(name, known, n=1)
        cure = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise UserError(f"DATASETS: unknown data set {name}; {cure}")
    if cfg.DATASETS.FOLDS_FILE:
        raise UserError(
            f"DATASETS.FOLDS_FILE divides data sets that this project reads, not {name}, which "
            "other code registered; leave the key out"
        )


def _load(cfg: CfgNode, name: str) -> list[dict]:
    if name in NAMES:
        return load_split(name, build_options(cfg)).records
    own = _own_splits(cfg)
    if name in own:
        return _load_own(cfg, name, own[name])
    records = DatasetCatalog.get(name)
    if not records:
        raise UserError(f"data set {name} has no image")
    return records


def _own_splits(cfg: CfgNode) -> dict[str, tuple[str, str]]:
    """Return data set and split by name, for what DATASETS.CUSTOM describes."""
    if not cfg.DATASETS.CUSTOM:
        return {}
    from ..data.custom import custom_splits

    dataset, splits = custom_splits(Path(cfg.DATASETS.CUSTOM).expanduser())
    return {f"{dataset}_{split}": (dataset, split) for split in splits}


def _load_own(cfg: CfgNode, name: str, own: tuple[str, str]) -> list[dict]:
    from ..data.custom import load_custom

    path = Path(cfg.DATASETS.CUSTOM).expanduser()
    loaded = load_described(
        name, path, *own, lambda split: load_custom(path, split), build_options(cfg)
    )
    return loaded.records


def check_same_classes(classes: dict[str, tuple[str, ...]]) -> None:
    """Compare the class lists of datasets.

    Raises:
        UserError: two lists differ in names or order; the message shows both.
    """
    (first_place, first), *others = classes.items()
    for place, names in others:
        if names != first:
            raise UserError(
                f"{_difference(first_place, first, place, names)}\n Use the same names in the "
                "same order in both."
            )


def check_checkpoint_classes(
    data: Sequence[str], checkpoint: Sequence[str], place: str, *, resume: bool
) -> None:
    """Compare the classes of the data with those of a checkpoint to evaluate or to resume.

    Args:
        data: class names of the data.
        checkpoint: class names of the checkpoint.
        place: the checkpoint.
        resume: whether its run is resumed or evaluated as a resumed run.

    Raises:
        UserError: they differ in names or order; the message shows both.
    """
    if list(data) == list(checkpoint):
        return
    what = "--resume continues" if resume else "--eval-only evaluates"
    raise UserError(
        f"{_difference('the data', data, place, checkpoint)}\n {what} a model with its own "
        "classes: name data that have these. To train on the classes of the data, start a new run: "
        f"leave --resume and --eval-only out, and give MODEL.WEIGHTS {place} and another "
        "OUTPUT_DIR. It keeps the weights of classes with equal names."
    )


def _difference(first_place: str, first: Sequence[str], place: str, names: Sequence[str]) -> str:
    return (
        f"class names differ between {first_place} and {place}, so a class number would not mean "
        f"the same in both:\n  {first_place}: {list(first)}\n  {place}: {list(names)}"
    )
