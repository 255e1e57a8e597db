"""The data sets of a run: loaded once, their class lists compared and resolved."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from ..config import default_category_ids
from ..data.builtin import NAMES, DefaultRecords, describe, load_described, load_split
from ..data.fingerprint import fingerprint
from ..data.folds import TRAIN, VAL, divided_splits
from ..data.image import choose_frames
from ..data.intensity import Intensity
from ..data.options import DatasetOptions
from ..data.record import LoadedSplit
from ..data.report import shortened
from ..data.root import data_root
from ..data.tiles import TrainingTiles, cut_into_tiles
from ..data.used_range import check_window, choose_intensity, measure_used_range
from ..errors import UserError, did_you_mean
from ..inference.model import check_per_class
from ..inference.preprocess import AUTO, build_intensity, write_intensity
from .repeats import Repeats, build_repeats

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
        tiles: the training's tiles, with INPUT.TILE; else None.
        repeats: how often an epoch shows each training image; None for once.
    """

    train: list[dict]
    test: dict[str, list[dict]]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    tiles: TrainingTiles | None = None
    repeats: Repeats | None = None

    @property
    def epoch_length(self) -> int:
        """Number of training images, or of tiles, in an epoch; rounded where it varies by one."""
        if self.tiles:
            return self.tiles.epoch_length
        return self.repeats.epoch_length if self.repeats else len(self.train)

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells whether a resumed run trains on the same records."""
        return fingerprint(self.train, exact=True)


def load_run_data(cfg: CfgNode, *, with_training: bool) -> RunData:
    """Load the data sets that DATASETS.TRAIN (if `with_training`) and DATASETS.TEST name.

    Raises:
        UserError: an unknown dataset (with the known ones), no image, class lists or category ids
            that differ, or no tile with a target.
    """
    names = (list(cfg.DATASETS.TRAIN) if with_training else []) + list(cfg.DATASETS.TEST)
    if not cfg.DATASETS.TEST or (with_training and not cfg.DATASETS.TRAIN):
        raise UserError(
            "DATASETS.TRAIN and DATASETS.TEST must each name a dataset; for images of your own "
            "give --data PATH, or DATASETS.CUSTOM with the YAML file of a dataset"
        )
    for name in names:
        _check_name(cfg, name)
    loaded = {
        name: choose_frames(_load(cfg, name), cfg.INPUT.FRAME) for name in dict.fromkeys(names)
    }
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
    train = _without_groups(train, list(cfg.DATASETS.TRAIN))
    if with_training and not any(record["annotations"] for record in train):
        raise UserError(
            f"DATASETS.TRAIN {list(cfg.DATASETS.TRAIN)}: no box in {len(train)} images, so there "
            "is nothing to learn; check the label files"
        )
    test = {name: loaded[name] for name in cfg.DATASETS.TEST}
    names_of_classes = next(iter(classes.values()))
    check_per_class(cfg, "TEST.CLASS_SCORE_THRESH", names_of_classes)
    tiles = repeats = None
    if with_training:
        check_per_class(cfg, "MODEL.RETINANET.CLASS_WEIGHTS", names_of_classes)
        if cfg.INPUT.TILE.SIDE:
            tiles = _cut(cfg, train)
        else:
            repeats = build_repeats(cfg, train, names_of_classes)
    return RunData(train, test, names_of_classes, next(iter(ids.values())), tiles, repeats)


def _without_groups(records: list[dict], names: list[str]) -> list[dict]:
    """Leave out images whose boxes are all around groups (iscrowd): they would train as background.

    Raises:
        UserError: all boxes of the training set are around groups.
    """
    kept = [
        record
        for record in records
        if not record["annotations"] or not all(item["iscrowd"] for item in record["annotations"])
    ]
    left_out = len(records) - len(kept)
    if left_out and not any(record["annotations"] for record in kept):
        raise UserError(
            f"DATASETS.TRAIN {names}: all boxes are marked as groups (iscrowd 1), which are never "
            "targets, so there is nothing to learn; correct `iscrowd` in the annotations"
        )
    if left_out:
        logger.warning(
            "%d training images have no box but those around groups (iscrowd 1) and are left out",
            left_out,
        )
    return kept


def _cut(cfg: CfgNode, records: list[dict]) -> TrainingTiles:
    keys = cfg.INPUT.TILE
    tiles = cut_into_tiles(
        records,
        side=keys.SIDE,
        overlap=keys.OVERLAP,
        min_visible=keys.MIN_VISIBLE,
        empty_share=keys.EMPTY_SHARE,
    )
    logger.info(
        "%d training images give %d tiles of up to %d px: %d with targets, all in every epoch, and "
        "%d empty, of which an epoch draws %d",
        len(records),
        len(tiles.owners),
        keys.SIDE,
        len(tiles.with_targets),
        len(tiles.empty),
        tiles.empty_per_epoch,
    )
    if tiles.never_visible:
        logger.warning(
            "no tile shows INPUT.TILE.MIN_VISIBLE %g of the area of %d boxes, so they are never a "
            "target; raise INPUT.TILE.OVERLAP or INPUT.TILE.SIDE",
            keys.MIN_VISIBLE,
            tiles.never_visible,
        )
    return tiles


def resolve_intensity(cfg: CfgNode, records: Sequence[dict]) -> None:
    """Replace INPUT.INTENSITY "auto" by what the training images need, in place, and log it.

    The main process measures them, so that all have the same numbers; every rank must call it.

    Args:
        cfg: of the run.
        records: of the training.

    Raises:
        UserError: an image that is measured cannot be read.
    """
    if cfg.INPUT.INTENSITY != AUTO:
        return
    chosen = comm.all_gather(_measured_intensity(records) if comm.is_main_process() else None)[0]
    if isinstance(chosen, UserError):
        raise chosen
    intensity, summary = chosen
    write_intensity(cfg, intensity)
    numbers = cfg.INPUT.INTENSITY_RANGE
    limits = f" with INPUT.INTENSITY_RANGE {numbers}" if numbers else ""
    logger.info("INPUT.INTENSITY auto becomes %s%s: %s", cfg.INPUT.INTENSITY, limits, summary)


def check_intensity(cfg: CfgNode, records: Sequence[dict]) -> None:
    """Refuse images outside an INPUT.INTENSITY window before any work; every rank must call it.

    Raises:
        UserError: naming one of them, and their number.
    """
    fault = None
    if comm.is_main_process():
        try:
            check_window(records, build_intensity(cfg))
        except UserError as error:
            fault = error
    if fault := comm.all_gather(fault)[0]:
        raise fault


def _measured_intensity(records: Sequence[dict]) -> tuple[Intensity, str] | UserError:
    """Return the intensity that suits the images and why, or a fault that all ranks must know."""
    try:
        used = measure_used_range(records)
    except UserError as error:
        return UserError(*error.args)
    if used.beside_windows:
        logger.warning(
            "%s of the %s sampled images have more than 8 bits and no window of their own, so full "
            "gives them their whole declared range, maybe with little contrast (first: %s)",
            f"{len(used.beside_windows):,}",
            f"{used.sampled:,}",
            shortened(", ".join(used.beside_windows[:5])),
        )
    return choose_intensity(used), used.summary()


def build_options(cfg: CfgNode) -> DatasetOptions:
    """Build the choices that the DATASETS keys describe."""
    return DatasetOptions(
        nih_negatives=cfg.DATASETS.NIH_NEGATIVES,
        cod10k_classes=cfg.DATASETS.COD10K_CLASSES,
        cod10k_noncam=cfg.DATASETS.COD10K_NONCAM,
        folds_file=cfg.DATASETS.FOLDS_FILE,
        fold=cfg.DATASETS.FOLD,
    )


def register_datasets(cfg: CfgNode) -> None:
    """Register a config's datasets in detectron2's catalogs, for code that reads these.

    Registered are all splits of DATASETS.CUSTOM, as NAME_SPLIT, and the built-in datasets that
    DATASETS.TRAIN and DATASETS.TEST name. DatasetCatalog gets loaders that heed the DATASETS keys;
    images are read when a loader is called. MetadataCatalog gets `thing_classes`:
    DATASETS.CLASS_NAMES where that is set, else a custom dataset's own names from its YAML file or
    annotations. A built-in dataset without CLASS_NAMES has them once it is loaded. A second call
    changes nothing; a call with other DATASETS keys replaces what the first has registered.

    Args:
        cfg: with the keys of `ulga_d2.add_ulga_config`.

    Raises:
        UserError: other code has registered one of the names, or DATASETS.CUSTOM or its annotations
            cannot be read. A loader raises it where the data have other classes than CLASS_NAMES.
    """
    built_in = [name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if name in NAMES]
    loaders = [
        _records_of(cfg, name).for_catalog(
            tuple(cfg.DATASETS.CLASS_NAMES), tuple(cfg.DATASETS.CATEGORY_IDS)
        )
        for name in dict.fromkeys([*_own_splits(cfg), *built_in])
    ]
    for loader in loaders:
        loader.check_name()
    for loader in loaders:
        DatasetCatalog[loader.name] = loader
        loader.describe()


@dataclass(frozen=True)
class _Records:
    """What detectron2's catalog calls: the records of a dataset of ours, as a config describes it.

    Attributes:
        name: as DATASETS.TRAIN names it.
        custom: the YAML file of a custom dataset; None for a built-in one.
        dataset: name of the dataset.
        split: of the dataset.
        options: what the DATASETS keys choose.
        class_names: refuse data that have others; empty for any.
        category_ids: of these classes, where they are known.
    """

    name: str
    custom: Path | None
    dataset: str
    split: str
    options: DatasetOptions
    class_names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()

    def __call__(self) -> list[dict]:
        loaded = self._load()
        if self.class_names:
            ours = {"DATASETS.CLASS_NAMES": self.class_names}
            check_same_classes({self.name: loaded.class_names, **ours})
        return loaded.records

    def _load(self) -> LoadedSplit:
        if self.custom is None:
            return load_split(self.name, self.options)
        from ..data.custom import load_custom

        load = partial(load_custom, self.custom)
        return load_described(self.name, self.custom, self.dataset, self.split, load, self.options)

    def for_catalog(self, class_names: tuple[str, ...], category_ids: tuple[int, ...]) -> _Records:
        """Return a loader that is independent of the working directory and checks the classes."""
        custom = None if self.custom is None else self.custom.absolute()
        return replace(self, custom=custom, class_names=class_names, category_ids=category_ids)

    def check_name(self) -> None:
        """Refuse a name that other code has registered, or another custom dataset."""
        known = DatasetCatalog.data.get(self.name)
        is_default = self.custom is None and isinstance(known, DefaultRecords)
        is_same = isinstance(known, _Records) and known.custom == self.custom
        if known is None or is_default or is_same:
            return
        whose = known.custom if isinstance(known, _Records) else "other code"
        change = f"change `name` in {self.custom}" if self.custom else "use another name there"
        raise UserError(
            f"DATASETS: {self.name} is already registered in detectron2's DatasetCatalog, by "
            f"{whose}; {change}"
        )

    def describe(self) -> None:
        """Set in MetadataCatalog what is known without reading images."""
        names = self.class_names
        if self.custom is not None and not names:
            from ..data.custom import custom_class_names, custom_splits

            own = custom_splits(self.custom)[1]
            names = custom_class_names(self.custom, self.split if self.split in own else own[0])
        place = data_root() / self.dataset if self.custom is None else self.custom
        facts = {"thing_classes": list(names)} if names else {}
        if len(self.category_ids) == len(names):
            numbers = {key: number for number, key in enumerate(self.category_ids)}
            facts["thing_dataset_id_to_contiguous_id"] = numbers
        describe(self.name, place, self.options, **facts)


def _check_name(cfg: CfgNode, name: str) -> None:
    own = _own_splits(cfg)
    if name in NAMES or name in own:
        return
    if name not in DatasetCatalog.list():
        known = [*own, *NAMES]
        hint = did_you_mean(name, known, f"there are {', '.join(known)}")
        raise UserError(f"DATASETS: unknown data set {name}; {hint}")
    if cfg.DATASETS.FOLDS_FILE:
        raise UserError(
            f"DATASETS.FOLDS_FILE divides data sets that this project reads, not {name}, which "
            "other code registered; leave the key out"
        )


def _load(cfg: CfgNode, name: str) -> list[dict]:
    if name in NAMES or name in _own_splits(cfg):
        return _records_of(cfg, name)()
    records = DatasetCatalog.get(name)
    if not records:
        raise UserError(f"data set {name} has no image")
    return records


def _records_of(cfg: CfgNode, name: str) -> _Records:
    if name in NAMES:
        return _Records(name, None, *NAMES[name], build_options(cfg))
    return _Records(name, _custom_file(cfg), *_own_splits(cfg)[name], build_options(cfg))


def resolve_custom(cfg: CfgNode, *, with_training: bool) -> None:
    """Resolve what a config says about a custom dataset, in place.

    DATASETS.CUSTOM and FOLDS_FILE become absolute. Where neither DATASETS.TRAIN nor TEST names a
    split of DATASETS.CUSTOM, they become its train and val; where one is empty, only that one. In
    OUTPUT_DIR, "{dataset}" becomes the dataset's name, or "custom" without DATASETS.CUSTOM.

    Args:
        cfg: merged.
        with_training: whether a train split is needed.

    Raises:
        UserError: the file cannot be read, or has no such split.
    """
    keys = cfg.DATASETS
    for key in ("CUSTOM", "FOLDS_FILE"):
        if keys[key]:
            keys[key] = str(Path(keys[key]).expanduser().absolute())
    own = _own_splits(cfg)
    name = next((dataset for dataset, _ in own.values()), "custom")
    cfg.OUTPUT_DIR = cfg.OUTPUT_DIR.replace("{dataset}", name)
    if not own:
        return
    is_unused = not own.keys() & {*keys.TRAIN, *keys.TEST}
    for key, split, is_needed in (("TRAIN", TRAIN, with_training), ("TEST", VAL, True)):
        if keys[key] and not is_unused:
            continue
        if f"{name}_{split}" in own:
            keys[key] = (f"{name}_{split}",)
        elif is_needed:
            raise UserError(
                f"{keys.CUSTOM} has no split {split}; it has "
                f"{', '.join(of for _, of in own.values())}. Name one of {', '.join(own)} in "
                f"DATASETS.{key}, or give --data {keys.CUSTOM}, which makes a validation split"
            )


def _own_splits(cfg: CfgNode) -> dict[str, tuple[str, str]]:
    """Return dataset and split by name, for what DATASETS.CUSTOM and FOLDS_FILE describe."""
    if not cfg.DATASETS.CUSTOM:
        return {}
    from ..data.custom import custom_splits

    dataset, splits = custom_splits(_custom_file(cfg))
    splits = divided_splits(splits, build_options(cfg))
    own = {f"{dataset}_{split}": (dataset, split) for split in splits}
    for name in own:
        if name in NAMES:
            raise UserError(
                f"{cfg.DATASETS.CUSTOM}: {name} is the name of a built-in dataset; change `name`"
            )
    return own


def _custom_file(cfg: CfgNode) -> Path:
    return Path(cfg.DATASETS.CUSTOM).expanduser()


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
                "predictions.json would not mean the same in both:",
                f"  {first_place}: {list(first)}",
                f"  {place}: {list(found)}",
                " Use the same ids in both files.",
            )


def check_same_classes(classes: dict[str, tuple[str, ...]]) -> None:
    """Compare the class lists of datasets.

    Raises:
        UserError: two lists differ in names or order; the message shows both.
    """
    (first_place, first), *others = classes.items()
    for place, names in others:
        if names != first:
            raise UserError(
                *_difference(first_place, first, place, names),
                " Use the same names in the same order in both.",
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
        *_difference("the data", data, place, checkpoint),
        f" {what} a model with its own classes: name data that have these. To train on the "
        "classes of the data, start a new run: "
        f"leave --resume and --eval-only out, and give MODEL.WEIGHTS {place} and another "
        "OUTPUT_DIR. It keeps the weights of classes with equal names.",
    )


def _difference(
    first_place: str, first: Sequence[str], place: str, names: Sequence[str]
) -> list[str]:
    return [
        f"class names differ between {first_place} and {place}, so a class number would not mean "
        "the same in both:",
        f"  {first_place}: {list(first)}",
        f"  {place}: {list(names)}",
    ]
