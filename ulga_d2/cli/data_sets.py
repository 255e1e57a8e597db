"""What `ulga data` is pointed at: a config, a data set of ours, or a YAML of the user's own set."""

from __future__ import annotations

import argparse
import difflib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.brain_tumor import SPLITS
from ..data.builtin import LOADERS, NAMES, load_described, load_split
from ..data.check.boxes import Anchors
from ..data.check.doctor import Settings
from ..data.options import DatasetOptions
from ..data.record import LoadedSplit
from ..errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

# A data set may well have none of these.
OPTIONAL = frozenset(["test"])


@dataclass(frozen=True)
class DataSet:
    """A data set that the user has named.

    Attributes:
        name: as the user knows it.
        loaders: what reads each of its splits, by the split's name.
        optional: splits that need not be there.
        settings: what a config says about its use.
    """

    name: str
    loaders: Mapping[str, Callable[[], LoadedSplit]]
    optional: frozenset[str] = frozenset()
    settings: Settings = Settings()

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


def find_data_set(what: str) -> DataSet:
    """Find out what the user means.

    Args:
        what: a config or the YAML of an own data set, a data set's name ("brain_tumor"), or one of
            its splits ("brain_tumor_val").

    Raises:
        UserError: it is none of these.
    """
    if Path(what).suffix in (".yaml", ".yml", ".data"):
        return _own(Path(what)) if _is_own(Path(what)) else _of_config(what)
    if what in LOADERS:
        loaders = {split: partial(load_split, f"{what}_{split}") for split in SPLITS}
        return DataSet(what, loaders, OPTIONAL)
    if what in NAMES:
        return DataSet(what, {what: partial(load_split, what)})
    raise _unknown(what, [*LOADERS, *NAMES])


def load_one_split(what: str) -> LoadedSplit:
    """Read the one split that the user means.

    Args:
        what: a split's name ("brain_tumor_val"), or one of a YAML's ("config.yaml:mine_val").

    Raises:
        UserError: it is none of these, or cannot be read.
    """
    file, colon, split = what.rpartition(":")
    data_set = find_data_set(file if colon else what)
    if colon and split in data_set.loaders:
        return data_set.loaders[split]()
    if not colon and len(data_set.loaders) == 1:
        return next(iter(data_set.loaders.values()))()
    known = data_set.loaders
    names = [
        f"{what}_{split}" if what in LOADERS else f"{data_set.name}:{split}" for split in known
    ]
    raise UserError(f"{what} is not one split; name one of {', '.join(names)}")


def _unknown(name: str, known: Iterable[str]) -> UserError:
    near = difflib.get_close_matches(name, known, n=1)
    cure = f"did you mean {near[0]}?" if near else f"ours are {', '.join(LOADERS)}."
    return UserError(f"unknown data set {name}; {cure} Or name a config or a YAML of your own set.")


def _is_own(path: Path) -> bool:
    from ..data.custom import is_custom_file

    return is_custom_file(path)


def _own(path: Path) -> DataSet:
    from ..data.custom import custom_splits, load_custom

    name, splits = custom_splits(path)
    return DataSet(name, {split: partial(load_custom, path, split) for split in splits})


def _of_config(file: str) -> DataSet:
    from ..engine.datasets import build_options
    from ..engine.launch import read_config
    from ..inference.preprocess import build_intensity

    cfg = read_config(argparse.Namespace(config_file=file, opts=[], eval_only=True))
    settings = Settings(
        anchors=_anchors(cfg),
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        intensity=build_intensity(cfg),
        max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
    )
    options = build_options(cfg)
    known = {name: partial(load_split, name, options) for name in NAMES}
    if cfg.DATASETS.CUSTOM:
        known |= _own_of_config(Path(cfg.DATASETS.CUSTOM).expanduser(), options)
    names = dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    for name in names:
        if name not in known:
            raise _unknown(name, known)
    return DataSet(file, {name: known[name] for name in names}, settings=settings)


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
        for split in own.loaders
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
