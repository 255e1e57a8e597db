"""`--data PATH`: from images of the user's own to a config and a dataset YAML in OUTPUT_DIR."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import merge_config
from ..data.custom import custom_splits, load_custom
from ..data.folds import TRAIN, VAL, fold_numbers, read_folds, to_json
from ..data.formats.yaml_file import dump_yaml, read_yaml
from ..data.make_folds import hold_out
from ..data.recognize import Recognized, recognize
from ..errors import UserError, did_you_mean
from ..evaluation.atomic import write_atomically
from ..weights.checkpoint import holds_checkpoint

if TYPE_CHECKING:
    from detectron2.config import CfgNode

MODELS = tuple(
    f"{backbone}_{variant}{size}"
    for backbone, variant, size in itertools.product(
        ("swin", "vit", "dat"), ("baseline", "ulga"), ("", "_nano")
    )
)
DEFAULT_MODEL = "swin_ulga_nano"
# Where OUTPUT_DIR holds what was found out about the data.
FOLDER = "dataset"
FOLDS_FILE = "folds.json"
_MOST_CLASSES = 20


def prepare_data(args: argparse.Namespace) -> None:
    """Turn `--data` and `--model` into a config file and options, in place.

    The dataset YAML, and the folds where the data have no validation split, are written into
    OUTPUT_DIR; what a run has written there before is used again. `args.notes` gets lines to log.

    Raises:
        UserError: the data are not recognized or faulty, the model is unknown, or OUTPUT_DIR holds
            a run on other data.
    """
    if args.config_file and args.model:
        raise UserError("--model and --config-file both choose a model; give one of them")
    model = args.model or DEFAULT_MODEL
    if model not in MODELS:
        hint = did_you_mean(model, MODELS, f"there are {', '.join(MODELS)}")
        raise UserError(f"--model {model} is unknown; {hint}")
    args.config_file = args.config_file or f"configs/custom_{model}.yaml"
    found = recognize(Path(args.data))
    cfg = _merged(args)
    output_dir = Path(cfg.OUTPUT_DIR.replace("{dataset}", found.name)).expanduser().absolute()
    for images in found.image_folders():
        if images.resolve() in output_dir.resolve().parents:
            raise UserError(
                f"OUTPUT_DIR {output_dir} lies in {images}, where its pictures would be read as "
                "images; give an OUTPUT_DIR outside of it"
            )
    folder = _Folder(output_dir, found)
    folder.write_description()
    counts, class_names, folds_file = folder.load_counts(cfg.DATASETS.FOLDS_FILE)
    args.notes = [_summary(args.data, found, counts, class_names)]
    if cfg.DATASETS.FOLDS_FILE:
        args.notes.append(f"DATASETS.FOLDS_FILE {folds_file} divides train and val anew")
    elif folds_file:
        args.notes.append(
            "the data have no validation split, so a part of the training images, chosen by a "
            f"hash of their names, becomes one; {folds_file} lists it"
        )
    args.notes += found.notes
    options = {
        "DATASETS.CUSTOM": str(folder.description),
        "DATASETS.TRAIN": str((f"{found.name}_{TRAIN}",)),
        "DATASETS.TEST": str((f"{found.name}_{VAL}",)),
    }
    if folds_file:
        options["DATASETS.FOLDS_FILE"] = folds_file
    args.opts = [*itertools.chain(*options.items()), *args.opts]


def _merged(args: argparse.Namespace) -> CfgNode:
    from .. import get_cfg

    cfg = get_cfg()
    merge_config(cfg, args.config_file, args.opts)
    return cfg


class _Folder:
    """The files about the data in OUTPUT_DIR.

    All ranks of a run may write them: they have the same content, and appear when complete.

    Args:
        output_dir: of the run.
        found: what the data are.
    """

    def __init__(self, output_dir: Path, found: Recognized) -> None:
        self.output_dir = output_dir
        self.found = found
        self.description = output_dir / FOLDER / f"{found.name}.yaml"
        self.folds = output_dir / FOLDER / FOLDS_FILE
        self.holds_run = holds_checkpoint(output_dir)

    def write_description(self) -> None:
        """Write the dataset YAML, unless a run in the folder has it already.

        Raises:
            UserError: the folder holds a run on other data, or cannot be written.
        """
        content = self.found.content
        if not self.holds_run:
            self._write(self.description, dump_yaml(content))
            return
        known = read_yaml(self.description) if self.description.is_file() else None
        if not isinstance(known, dict) or {**known, "patient": 0} != {**content, "patient": 0}:
            raise UserError(
                f"OUTPUT_DIR {self.output_dir} holds a run on other data than --data; give another "
                "OUTPUT_DIR, with MODEL.WEIGHTS to evaluate that run's model on these data"
            )

    def load_counts(self, folds_file: str) -> tuple[dict[str, int], tuple[str, ...], str]:
        """Read all splits, and make a validation split where there is none.

        Args:
            folds_file: the user's own, or "".

        Returns:
            The number of images of each split, the class names, and the folds file or "".

        Raises:
            UserError: the data are faulty, have no training images, or too few of them.
        """
        own = custom_splits(self.description)[1]
        if TRAIN not in own:
            raise UserError(
                f"--data: no training images, only the split {', '.join(own)}; give the folder or "
                "file of the training images"
            )
        splits = {split: load_custom(self.description, split) for split in own}
        train = splits[TRAIN]
        counts = {split: len(loaded.records) for split, loaded in splits.items()}
        if VAL in splits or folds_file:
            return counts, train.class_names, folds_file
        if not (self.holds_run and self.folds.is_file()):
            group = "patient" if "patient" in self.found.content else "image"
            folds = hold_out(self.found.name, train, group=group)
            self._write(self.folds, to_json(folds))
        numbers = fold_numbers({TRAIN: train}, read_folds(str(self.folds)))
        held_out = numbers.count(0)
        counts = {**counts, TRAIN: len(numbers) - held_out, VAL: held_out}
        return counts, train.class_names, str(self.folds)

    def _write(self, path: Path, text: str) -> None:
        try:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_atomically(str(path), text.encode())
        except OSError as error:
            raise UserError(
                f"OUTPUT_DIR: {path} cannot be written ({error.strerror}); name another folder"
            ) from None


def _summary(
    path: str, found: Recognized, counts: Mapping[str, int], class_names: Sequence[str]
) -> str:
    """Return "cells: YOLO, 320 train and 80 val images, classes a, b, c"."""
    parts = [f"{count:,} {split}" for split, count in counts.items()]
    images = " and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else parts)
    more = len(class_names) - _MOST_CLASSES
    classes = ", ".join(class_names[:_MOST_CLASSES]) + (f" and {more} more" if more > 0 else "")
    return f"{path}: {found.label}, {images} images, classes {classes}"
