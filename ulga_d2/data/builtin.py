"""Register the data sets with detectron2; nothing is read until a set is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import UserError
from .brain_tumor import SPLITS, load_brain_tumor
from .ccellbio import load_ccellbio
from .cod10k import load_cod10k
from .folds import load_fold
from .nih_chest_xray import load_nih_chest_xray
from .options import DEFAULT_OPTIONS, DatasetOptions
from .record import LoadedSplit
from .root import data_root
from .rsna_pneumonia import load_rsna_pneumonia

logger = logging.getLogger(__name__)


def _load_brain_tumor(
    root: Path, split: str, options: DatasetOptions = DEFAULT_OPTIONS
) -> LoadedSplit:
    return load_brain_tumor(root, split)


LOADERS: dict[str, Callable[..., LoadedSplit]] = {
    "brain_tumor": _load_brain_tumor,
    "nih_chest_xray": load_nih_chest_xray,
    "rsna_pneumonia": load_rsna_pneumonia,
    "cod10k": load_cod10k,
    "ccellbio": load_ccellbio,
}
NAMES = {f"{dataset}_{split}": (dataset, split) for dataset in LOADERS for split in SPLITS}


def register_all() -> None:
    """Register every split of every data set as `{name}_{split}`; a second call changes nothing."""
    for name in NAMES:
        if name not in DatasetCatalog.list():
            DatasetCatalog.register(name, DefaultRecords(name))


def load_split(name: str, options: DatasetOptions = DEFAULT_OPTIONS) -> LoadedSplit:
    """Read one split from the data root of this moment and describe it in MetadataCatalog.

    Args:
        name: one of `NAMES`, such as "cod10k_train".
        options: the choices of the run.

    Raises:
        UserError: the data are missing or faulty, or have no image or no box.
    """
    dataset, split = NAMES[name]
    root = data_root() / dataset

    def load(part: str) -> LoadedSplit:
        return LOADERS[dataset](root, part, options)

    return load_described(name, root, dataset, split, load, options)


def load_described(
    name: str,
    place: Path,
    dataset: str,
    split: str,
    load: Callable[[str], LoadedSplit],
    options: DatasetOptions,
) -> LoadedSplit:
    """Read one split of any data set, divided by the fold file if `options` name one.

    What was read is logged and stands in MetadataCatalog under `name`.

    Args:
        name: of the split in the config.
        place: the data's folder or file, for messages.
        dataset: name of the data set.
        split: the wanted split.
        load: loads one of the data set's own splits.
        options: the choices of the run.

    Raises:
        UserError: see `load_split`.
    """
    loaded = load_fold(dataset, split, load, options) if options.folds_file else load(split)
    report = loaded.report
    _refuse_empty(name, loaded)
    logger.info("%s from %s: %s", name, place, report.summary())
    if report.reasons:
        logger.warning("%s: %s", name, report.oddities())
    facts = {"thing_classes": list(loaded.class_names), "data_report": report.as_dict()}
    numbers = {key: number for number, key in enumerate(loaded.category_ids)}
    describe(name, place, options, thing_dataset_id_to_contiguous_id=numbers, **facts)
    return loaded


def describe(name: str, place: Path, options: DatasetOptions, **facts: object) -> None:
    """Set facts about a split in MetadataCatalog, such as its `thing_classes`.

    What stands there about other data (another folder, options or facts) is removed: detectron2
    refuses to change metadata. Otherwise it is kept, and objects that hold it see the new facts.

    Args:
        name: of the split in the config.
        place: the data's folder or file.
        options: the choices with which it is read.
        facts: attributes of the metadata.
    """
    facts = {
        "evaluator_type": "coco",
        "source": str(place),
        "dataset_options": asdict(options),
        **facts,
    }
    metadata = MetadataCatalog.get(name)
    if any(metadata.get(key, value) != value for key, value in facts.items()):
        MetadataCatalog.pop(name)
    MetadataCatalog.get(name).set(**facts)


class DefaultRecords:
    """What detectron2's catalog calls: the records of a built-in split, with default options."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> list[dict]:
        """Read the records; see `load_split`."""
        return load_split(self.name).records


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
