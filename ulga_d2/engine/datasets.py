"""The data sets of a run: loaded once, their class lists compared and resolved."""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..config import default_category_ids
from ..data.builtin import NAMES, load_described, load_split
from ..data.options import DatasetOptions
from ..errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunData:
    """What a run reads.

    Attributes:
        train: the training records.
        test: each test set's records, by its name.
        class_names: of all of them, by `category_id`.
        category_ids: the datasets' own category ids, in the same order.
    """

    train: list[dict]
    test: dict[str, list[dict]]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]


def load_run_data(cfg: CfgNode, *, with_training: bool) -> RunData:
    """Load the data sets that DATASETS.TRAIN (if `with_training`) and DATASETS.TEST name.

    Raises:
        UserError: an unknown data set (with the known ones), no image, or class lists or category
            ids that differ.
    """
    names = (list(cfg.DATASETS.TRAIN) if with_training else []) + list(cfg.DATASETS.TEST)
    if not cfg.DATASETS.TEST or (with_training and not cfg.DATASETS.TRAIN):
        raise UserError("DATASETS.TRAIN and DATASETS.TEST must each name a data set")
    for name in names:
        _check_name(cfg, name)
    loaded = {name: _load(cfg, name) for name in dict.fromkeys(names)}
    classes = {name: tuple(MetadataCatalog.get(name).thing_classes) for name in loaded}
    check_same_classes(classes)
    ids = {name: _category_ids(name) for name in loaded}
    _check_same_ids(ids)
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
    return RunData(train, test, next(iter(classes.values())), next(iter(ids.values())))


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


def _category_ids(name: str) -> tuple[int, ...]:
    """Return a loaded dataset's own category ids, by class number; 1..K where it has none."""
    metadata = MetadataCatalog.get(name)
    numbers = metadata.get("thing_dataset_id_to_contiguous_id")
    if not numbers:  # a dataset that other code registered
        return default_category_ids(len(metadata.thing_classes))
    return tuple(sorted(numbers, key=numbers.get))


def _check_same_ids(ids: dict[str, tuple[int, ...]]) -> None:
    (first_place, first), *others = ids.items()
    for place, found in others:
        if found != first:
            raise UserError(
                f"category ids differ between {first_place} and {place}, so an id in "
                f"predictions.json would not mean the same in both:\n  {first_place}: "
                f"{list(first)}\n  {place}: {list(found)}\n Use the same ids in both files."
            )


def check_same_classes(classes: dict[str, tuple[str, ...]]) -> None:
    """Compare class lists by place (data set or checkpoint).

    Raises:
        UserError: two lists differ in names or order; the message shows both.
    """
    (first_place, first), *others = classes.items()
    for place, names in others:
        if names != first:
            raise UserError(
                f"class names differ between {first_place} and {place}, so a class number would "
                f"not mean the same in both:\n  {first_place}: {list(first)}\n  {place}: "
                f"{list(names)}\n Use the same names in the same order in both."
            )
