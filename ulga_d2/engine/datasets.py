"""The data sets of a run: loaded once, their class lists compared and resolved."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detectron2.data import DatasetCatalog, MetadataCatalog

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
    loaded = {name: _load(name) for name in dict.fromkeys(names)}
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


def _load(name: str) -> list[dict]:
    if name not in DatasetCatalog.list():
        known = [n for n in DatasetCatalog.list() if n.startswith("brain_tumor")]
        raise UserError(f"DATASETS: unknown data set {name}; ours are {', '.join(sorted(known))}")
    records = DatasetCatalog.get(name)
    if not records:
        raise UserError(f"data set {name} has no image")
    return records


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


def resolve_classes(cfg: CfgNode, class_names: tuple[str, ...]) -> None:
    """Write the class names and their number into `cfg`, in place, and log them."""
    cfg.DATASETS.CLASS_NAMES = list(class_names)
    cfg.MODEL.RETINANET.NUM_CLASSES = len(class_names)
    logger.info("%d classes, from the data: %s", len(class_names), ", ".join(class_names))
