"""What `ulga data` is pointed at: a config, a data set of ours, or a YAML of the user's own set."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.brain_tumor import SPLITS
from ..data.builtin import LOADERS, NAMES, load_described, load_split
from ..data.check.boxes import Anchors
from ..data.check.doctor import Settings, auto_intensity
from ..data.folds import divided_splits, read_folds
from ..data.image import choose_frames
from ..data.intensity import Intensity
from ..data.options import DatasetOptions
from ..data.record import LoadedSplit
from ..errors import UserError, did_you_mean

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

_Loader = Callable[[], LoadedSplit]
# A data set may well have none of these.
OPTIONAL = frozenset(["test"])


@dataclass(frozen=True)
class DataSet:
    """A data set that the user has named.

    Attributes:
        name: as the user knows it.
        dataset: name of the dataset, which the names of its splits begin with in a config; "" for
            several.
        loaders: what reads each of its splits, by the split's name.
        optional: splits that need not be there.
        settings: what a config says about its use.
    """

    name: str
    dataset: str
    loaders: Mapping[str, Callable[[], LoadedSplit]]
    optional: frozenset[str] = frozenset()
    settings: Settings = Settings()

    def full(self, split: str) -> str:
        """Return the name of a split as a config has it: "cells_val" for "val" of "cells"."""
        has_prefix = not self.dataset or split.startswith(f"{self.dataset}_")
        return split if has_prefix else f"{self.dataset}_{split}"

    def split(self, name: str) -> str:
        """Return the key in `loaders` of a split, by its name in a config or by its own.

        Raises:
            UserError: there is no such split.
        """
        for split in self.loaders:
            full = self.full(split)
            if name in (split, full, full.removeprefix(f"{self.dataset}_")):
                return split
        known = ", ".join(map(self.full, self.loaders))
        raise UserError(f"{self.name} has no split {name}; there are {known}")

    def load(self) -> dict[str, LoadedSplit | UserError]:
        """Read every split; the reason stands in place of one that cannot be read."""
        splits: dict[str, LoadedSplit | UserError] = {}
        for name, loader in self.loaders.items():
            try:
                splits[name] = loader()
            except UserError as error:
                if name in self.optional:
                    logger.warning("split %s left out: %s", name, error)
                else:
                    splits[name] = error
        return splits

    def intensity(self, loaded: Mapping[str, LoadedSplit]) -> Intensity:
        """Return how stored values become the network's: the config's, or what auto decides.

        Args:
            loaded: splits that were read already; those that are trained on are read if missing,
                and left out if they cannot be read.
        """
        if self.settings.intensity is not None:
            return self.settings.intensity
        splits = dict(loaded)
        for name in self.settings.training:
            if name in self.loaders and name not in splits:
                with contextlib.suppress(UserError):
                    splits[name] = self.loaders[name]()
        return auto_intensity(splits, self.settings)

    def load_all(self) -> dict[str, LoadedSplit]:
        """Read every split.

        Raises:
            UserError: one of them cannot be read.
        """
        loaded = {}
        for name, split in self.load().items():
            if isinstance(split, UserError):
                raise split
            loaded[name] = split
        return loaded


def find_data_set(what: str, opts: Sequence[str] = ()) -> DataSet:
    """Find out what the user means.

    Args:
        what: a config or the YAML of an own data set, a data set's name ("brain_tumor"), or one of
            its splits ("brain_tumor_val").
        opts: KEY VALUE words that change the config, or the defaults where none is named.

    Raises:
        UserError: it is none of these, or an option is wrong.
    """
    from ..engine.datasets import build_options

    is_described = Path(what).suffix in (".yaml", ".yml", ".data")
    if is_described and not _is_own(Path(what)):
        return _of_config(what, opts)
    cfg = changed_defaults(opts)
    settings = _settings(cfg)
    options = build_options(cfg)
    if is_described:
        own = _own(Path(what))
        if options.folds_file:
            divided = _own_of_config(Path(what), options)
            splits = divided_splits(own.loaders, options)
            own = replace(own, loaders=dict(zip(splits, divided.values(), strict=True)))
        return replace(own, loaders=_with_frame(own.loaders, cfg), settings=settings)
    if what in LOADERS:
        loaders = {split: partial(load_split, f"{what}_{split}", options) for split in SPLITS}
        return DataSet(what, what, loaders, OPTIONAL, settings)
    if what in NAMES:
        loaders = {what: partial(load_split, what, options)}
        return DataSet(what, NAMES[what][0], loaders, settings=settings)
    raise _unknown(what, [*LOADERS, *NAMES])


def load_one_split(what: str, opts: Sequence[str] = ()) -> LoadedSplit:
    """Read the one split that the user means.

    Args:
        what: a split's name ("brain_tumor_val"), or one of a YAML's ("config.yaml:mine_val").
        opts: see `find_data_set`.

    Raises:
        UserError: it is none of these, or cannot be read.
    """
    file, colon, split = what.rpartition(":")
    data_set = find_data_set(file if colon else what, opts)
    if colon:
        return data_set.loaders[data_set.split(split)]()
    if len(data_set.loaders) == 1:
        return next(iter(data_set.loaders.values()))()
    names = [
        name if what in LOADERS else f"{what}:{name}"
        for name in map(data_set.full, data_set.loaders)
    ]
    raise UserError(f"{what} is not one split; name one of {', '.join(names)}")


def _unknown(name: str, known: Iterable[str]) -> UserError:
    near = did_you_mean(name, known, f"ours are {', '.join(LOADERS)}.")
    return UserError(f"unknown data set {name}; {near} Or name a config or a YAML of your own set.")


def _is_own(path: Path) -> bool:
    from ..data.custom import is_custom_file

    return is_custom_file(path)


def _own(path: Path) -> DataSet:
    from ..data.custom import custom_splits, load_custom

    name, splits = custom_splits(path)
    return DataSet(name, name, {split: partial(load_custom, path, split) for split in splits})


def changed_defaults(opts: Sequence[str]) -> CfgNode:
    """Return what all configs begin with, changed by KEY VALUE words.

    Raises:
        UserError: an unknown key, or an impossible value.
    """
    from .. import get_cfg
    from ..config import merge_config
    from ..values import check_values

    cfg = get_cfg()
    merge_config(cfg, "configs/_base_/retinanet.yaml", list(opts))
    check_values(cfg)
    return cfg


def _settings(cfg: CfgNode) -> Settings:
    from ..inference.preprocess import AUTO, build_intensity

    return Settings(
        intensity=None if cfg.INPUT.INTENSITY == AUTO else build_intensity(cfg),
        max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
        square_size=cfg.INPUT.SQUARE_SIZE,
        folds=read_folds(cfg.DATASETS.FOLDS_FILE) if cfg.DATASETS.FOLDS_FILE else None,
    )


def _of_config(file: str, opts: Sequence[str]) -> DataSet:
    from ..engine.datasets import build_options
    from ..engine.launch import read_config

    cfg = read_config(argparse.Namespace(config_file=file, opts=list(opts), eval_only=True))
    settings = replace(
        _settings(cfg),
        anchors=_anchors(cfg),
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        training=tuple(cfg.DATASETS.TRAIN),
    )
    options = build_options(cfg)
    known = {name: partial(load_split, name, options) for name in NAMES}
    if cfg.DATASETS.CUSTOM:
        known |= _own_of_config(Path(cfg.DATASETS.CUSTOM).expanduser(), options)
    names = dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    for name in names:
        if name not in known:
            raise _unknown(name, known)
    own = _own(Path(cfg.DATASETS.CUSTOM).expanduser()).dataset if cfg.DATASETS.CUSTOM else ""
    loaders = _with_frame({name: known[name] for name in names}, cfg)
    return DataSet(file, own, loaders, settings=settings)


def _with_frame(loaders: Mapping[str, _Loader], cfg: CfgNode) -> dict[str, _Loader]:
    return {name: partial(_load_frame, load, cfg.INPUT.FRAME) for name, load in loaders.items()}


def _load_frame(load: _Loader, frame: int | None) -> LoadedSplit:
    """Return a split whose records name the frame to read; without one they stay as they are."""
    loaded = load()
    if frame is None:
        return loaded
    return replace(loaded, records=choose_frames(loaded.records, frame))


def _own_of_config(path: Path, options: DatasetOptions) -> dict[str, Callable[[], LoadedSplit]]:
    """Return what reads each split that DATASETS.CUSTOM describes, by its name in a config."""
    own = _own(path)
    return {
        f"{own.name}_{split}": partial(
            load_described,
            f"{own.name}_{split}",
            path,
            own.name,
            split,
            partial(_load_part, own),
            options,
        )
        for split in divided_splits(own.loaders, options)
    }


def _load_part(data_set: DataSet, split: str) -> LoadedSplit:
    return data_set.loaders[split]()


def _anchors(cfg: CfgNode) -> Anchors:
    """Return the detector's anchors; level "p3" has stride 8."""
    is_retinanet = cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
    levels = (cfg.MODEL.RETINANET if is_retinanet else cfg.MODEL.RPN).IN_FEATURES
    generator = cfg.MODEL.ANCHOR_GENERATOR
    sizes, ratios = (
        tuple(map(tuple, rows if len(rows) > 1 else rows * len(levels)))
        for rows in (list(generator.SIZES), list(generator.ASPECT_RATIOS))
    )
    return Anchors(
        sizes=sizes,
        aspect_ratios=ratios,
        strides=tuple(2 ** int(level.removeprefix("p")) for level in levels),
        offset=generator.OFFSET,
        square_size=cfg.INPUT.SQUARE_SIZE,
        tiles=(cfg.INPUT.TILE.SIDE, cfg.INPUT.TILE.OVERLAP) if cfg.INPUT.TILE.SIDE else None,
    )
