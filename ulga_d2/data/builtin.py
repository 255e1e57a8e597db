"""Register the data sets with detectron2; nothing is read until a set is asked for."""

from __future__ import annotations

import logging

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import UserError
from .brain_tumor import SPLITS, load_brain_tumor
from .record import LoadedSplit
from .root import data_root

logger = logging.getLogger(__name__)

LOADERS = {"brain_tumor": load_brain_tumor}


def register_all() -> None:
    """Register every split of every data set as `{name}_{split}`; a second call changes nothing."""
    for dataset in LOADERS:
        for split in SPLITS:
            name = f"{dataset}_{split}"
            if name not in DatasetCatalog.list():
                DatasetCatalog.register(name, _Loader(dataset, split))


class _Loader:
    """Read one split from the data root of this moment and describe it in MetadataCatalog."""

    def __init__(self, dataset: str, split: str) -> None:
        self.dataset = dataset
        self.split = split

    def __call__(self) -> list[dict]:
        name = f"{self.dataset}_{self.split}"
        root = data_root() / self.dataset
        loaded = LOADERS[self.dataset](root, self.split)
        report = loaded.report
        _refuse_empty(name, loaded)
        logger.info("%s from %s: %s", name, root, report.summary())
        if report.reasons:
            logger.warning("%s: %s", name, report.oddities())
        # A set may be read again from another root: detectron2 refuses to change metadata.
        MetadataCatalog.pop(name, None)
        MetadataCatalog.get(name).set(
            thing_classes=list(loaded.class_names),
            evaluator_type="coco",
            data_report=report.as_dict(),
        )
        return loaded.records


def _refuse_empty(name: str, loaded: LoadedSplit) -> None:
    report = loaded.report
    if report.images and report.boxes.total():
        return
    what = f"no box in its {report.images:,} images" if report.images else "no image"
    found = f" ({report.oddities()})" if report.reasons else ""
    raise UserError(
        f"{name} has {what}{found}; check that labels lie where datasets/README.md shows them and "
        "that YOLO numbers are normalised to 0..1, not pixels"
    )
