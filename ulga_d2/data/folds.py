"""Fold files: which images are training and which validation, written once and then the truth.

A fold file lists the fold of every patient (or image) by name, so neither new images nor new
software reshuffle it. It is JSON::

    {"dataset": "nih_chest_xray", "splits": ["train", "val"], "seed": 0, "k": 5,
     "group": "patient", "stratified": false, "fold_of": {"00000001": 3, ...}}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

from ..errors import UserError
from .formats.text import read_text
from .options import DatasetOptions
from .record import LoadedSplit
from .report import DataReport

GROUPS = ("patient", "image")
TRAIN, VAL = "train", "val"


@dataclass(frozen=True)
class Folds:
    """The fold of every group of images that must stay together.

    Attributes:
        dataset: whose images they are.
        splits: the splits that were pooled and are divided anew; others stay as they are.
        seed: of the hash or of the stratification, for the record.
        k: number of folds.
        group: "patient", or "image" where nothing tells whose an image is.
        stratified: whether the classes were balanced.
        fold_of: the fold, 0 to k - 1, by group.
    """

    dataset: str
    splits: tuple[str, ...]
    seed: int
    k: int
    group: str
    stratified: bool
    fold_of: dict[str, int]


def group_of(record: dict, split: str, group: str) -> str:
    """Return the name of the group that a record of `split` belongs to.

    Raises:
        UserError: patients are asked for and the record knows none.
    """
    if group == "image":
        return f"{split}/{record['image_id']}"
    if "patient_id" not in record:
        raise UserError(
            f"nothing tells whose image {record['file_name']} is, so folds cannot be made by "
            "patient; group by image instead, if no patient has two images"
        )
    return record["patient_id"]


def fold_numbers(splits: Mapping[str, LoadedSplit], folds: Folds) -> list[int | None]:
    """Return the fold of every record, split by split; None for one that the file does not name.

    A split may have its own name ("val") or that of a config ("cells_val"), and its records may
    have been divided by the folds already.
    """
    return [
        _known_fold(record, split, folds)
        for split, loaded in splits.items()
        for record in loaded.records
    ]


def _known_fold(record: dict, split: str, folds: Folds) -> int | None:
    if folds.group == "patient":
        return folds.fold_of.get(record.get("patient_id", ""))
    own = split.removeprefix(f"{folds.dataset}_")
    names = (group_of(record, own, folds.group), str(record["image_id"]))
    return next((folds.fold_of[name] for name in names if name in folds.fold_of), None)


def divided_splits(splits: Iterable[str], options: DatasetOptions) -> tuple[str, ...]:
    """Return the names of a dataset's splits: with a fold file also train and val, which it makes.

    Args:
        splits: that the dataset has itself.
        options: with `folds_file`.
    """
    return tuple(dict.fromkeys([*splits, *((TRAIN, VAL) if options.folds_file else ())]))


def to_json(folds: Folds) -> str:
    """Return the content of a fold file."""
    return json.dumps(asdict(folds), indent=1) + "\n"


def read_folds(path: str) -> Folds:
    """Read a fold file.

    Raises:
        UserError: the file is missing, no JSON, or no fold file.
    """
    try:
        content = json.loads(read_text(path))
        folds = Folds(**{**content, "splits": tuple(content["splits"])})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _no_folds(path, str(error)) from None
    fault = _fault(folds)
    if fault:
        raise _no_folds(path, fault)
    return folds


def _no_folds(path: str, fault: str) -> UserError:
    return UserError(f"{path} is no fold file ({fault}); write one with `ulga data split`")


def _fault(folds: Folds) -> str | None:
    if not all(isinstance(name, str) for name in (folds.dataset, *folds.splits)):
        return "dataset and splits must be names"
    if folds.group not in GROUPS:
        return f"group is {folds.group!r}, not {' or '.join(GROUPS)}"
    if not isinstance(folds.k, int) or folds.k < 2:
        return f"k is {folds.k!r}, not 2 or more"
    if not isinstance(folds.fold_of, dict) or not folds.fold_of:
        return "fold_of is empty"
    for name, fold in folds.fold_of.items():
        if type(fold) is not int or not 0 <= fold < folds.k:
            return f"fold_of {name} is {fold!r}, not 0 to {folds.k - 1}"
    return None


def load_fold(
    dataset: str, split: str, load: Callable[[str], LoadedSplit], options: DatasetOptions
) -> LoadedSplit:
    """Load a split as the fold file of `options` makes it.

    "val" is the fold that `options.fold` names, "train" all others; a split that was not pooled is
    loaded as it is. An image's id gets the split in front that it comes from, since ids may repeat
    between splits.

    Args:
        dataset: name of the data set.
        split: the wanted split.
        load: loads one of the data set's own splits.
        options: with `folds_file`.

    Raises:
        UserError: the file does not fit the data set, the fold or the images.
    """
    path = options.folds_file
    folds = read_folds(path)
    if folds.dataset != dataset:
        raise UserError(
            f"DATASETS.FOLDS_FILE {path} divides {folds.dataset}, but {dataset} is loaded; name "
            f"the fold file of {dataset}"
        )
    if not 0 <= options.fold < folds.k:
        raise UserError(
            f"DATASETS.FOLD is {options.fold}, but {path} has the folds 0 to {folds.k - 1}"
        )
    if split in (TRAIN, VAL):
        pooled = {name: load(name) for name in folds.splits}
        return _select(pooled, folds, options.fold, split == VAL, path)
    if split in folds.splits:
        raise UserError(
            f"{dataset}_{split} is divided among the folds of {path}; evaluate on {dataset}_{VAL}"
        )
    return load(split)


def _select(
    pooled: Mapping[str, LoadedSplit], folds: Folds, fold: int, is_val: bool, path: str
) -> LoadedSplit:
    """Return the records of one fold, or of all others.

    What reading the pool dropped has no fold: it stands in the reports of both.
    """
    first = next(iter(pooled.values()))
    class_names, category_ids = first.class_names, first.category_ids
    report = DataReport.for_classes(class_names)
    records = []
    for split, loaded in pooled.items():
        if loaded.class_names != class_names:
            raise UserError(f"class names differ between the splits that {path} pools")
        if loaded.category_ids != category_ids:
            raise UserError(
                f"category ids differ between the splits that {path} pools: {list(category_ids)} "
                f"and, in {split}, {list(loaded.category_ids)}; use the same ids in both"
            )
        _add_reasons(report, loaded.report)
        for record in loaded.records:
            if (_fold(record, split, folds, path) == fold) == is_val:
                records.append({**record, "image_id": f"{split}/{record['image_id']}"})
    for record in records:
        report.images += 1
        report.empty_images += not record["annotations"]
        for annotation in record["annotations"]:
            report.boxes[class_names[annotation["category_id"]]] += 1
    report.found_images = report.images + report.dropped_images
    report.found_boxes = report.boxes.total() + report.dropped_boxes
    return LoadedSplit(records, class_names, report, category_ids)


def _fold(record: dict, split: str, folds: Folds, path: str) -> int:
    name = group_of(record, split, folds.group)
    if name not in folds.fold_of:
        raise UserError(
            f"{path} names no fold for {folds.group} {name} (image {record['file_name']}); images "
            "came after it was written: remove them, or write a new file with `ulga data split`"
        )
    return folds.fold_of[name]


def _add_reasons(report: DataReport, part: DataReport) -> None:
    report.dropped_images += part.dropped_images
    report.dropped_boxes += part.dropped_boxes
    report.drop_reasons |= part.drop_reasons
    report.reasons.update(part.reasons)
    for reason, places in part.places.items():
        report.places.setdefault(reason, []).extend(places)
