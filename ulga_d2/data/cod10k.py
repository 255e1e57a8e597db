"""COD10K (camouflaged animals), read in place from its second or third release.

Source: Fan et al., "Camouflaged Object Detection", CVPR 2020, and the release's own Readme. The
second release has masks and no boxes: a box here is the smallest around a mask (ours). The part
"Test" is the official test split; "val" is a tenth of the part "Train" by a hash of the name, and
"train" the rest (ours), so that train and val together are the official training part.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import UserError
from .cod10k_names import FOREGROUND, SUB_CLASSES, Name, parse_name
from .cod10k_tree import Part, find_part
from .cod10k_truth import Truth, open_truth
from .formats.images import with_mask
from .formats.policy import check_missing
from .options import DEFAULT_OPTIONS, DatasetOptions
from .progress import with_progress
from .record import Box, LoadedSplit, make_record
from .release import compare_with_release
from .report import DataReport
from .size_cache import cached_sizes
from .split import split_of

logger = logging.getLogger(__name__)

UNREADABLE = "images that cannot be read dropped with their boxes"
# Of the official part "Train".
SHARES = {"train": 0.9, "val": 0.1}
# Images with and without camouflage in each official part.
RELEASE = {
    "Train": {"camouflaged images": 3040, "other images": 2960},
    "Test": {"camouflaged images": 2026, "other images": 1974},
}


def load_cod10k(root: Path, split: str, options: DatasetOptions = DEFAULT_OPTIONS) -> LoadedSplit:
    """Read one split in place, with a mask for every box.

    Args:
        root: the data set's folder, usually `$DETECTRON2_DATASETS/cod10k`.
        split: "train", "val" or "test".
        options: `cod10k_classes` and `cod10k_noncam` count.

    Raises:
        UserError: the data are missing or are not COD10K's; more than 1 % of the images lack a
            mask, or of the masks an image.
    """
    part = find_part(root, "Test" if split == "test" else "Train")
    class_names = FOREGROUND if options.cod10k_classes == 1 else SUB_CLASSES
    report = DataReport.for_classes(class_names)
    with open_truth(part, root) as (truth, ids), cached_sizes(root) as size_of:
        names = _names(part, truth)
        _compare(root, part, names, report)
        reader = _Reader(part, truth, size_of, class_names, report)
        here = sorted(stem for stem in names if _split(stem, part) == split)
        records = reader.camouflaged([stem for stem in here if names[stem].is_camouflaged])
        others = [s for s in here if not names[s].is_camouflaged and s in part.images]
        if options.cod10k_noncam:
            records += reader.backgrounds(others)
        elif others:
            logger.info(
                "%s: %d images without camouflage are left out; DATASETS.COD10K_NONCAM True keeps "
                "them as negatives", split, len(others)
            )  # fmt: skip
        reader.check_usable()
    # The JSON names one category; the sub-classes stand in the names of the images alone.
    own_ids = tuple(ids[name] for name in class_names) if ids.keys() >= {*class_names} else None
    return LoadedSplit(records, class_names, report, own_ids)


def _split(stem: str, part: Part) -> str:
    return split_of(stem, SHARES) if part.name == "Train" else "test"


def _names(part: Part, truth: Mapping[str, Callable[[], Truth]]) -> dict[str, Name]:
    """Return what the names of the images, and of what is annotated, say.

    Raises:
        UserError: a name is none of the release's.
    """
    names = {stem: parse_name(stem) for stem in {*part.images, *truth}}
    strange = sorted(stem for stem, name in names.items() if name is None)
    if strange:
        raise UserError(
            f"{len(strange):,} files of COD10K's {part.name} have no name of the release "
            f"(COD10K-CAM-<number>-<name>-<1 to {len(SUB_CLASSES)}>-<name>-<number>, or "
            f"COD10K-NonCAM-...), such as {strange[0]}; move them away"
        )
    return names


def _compare(root: Path, part: Part, names: Mapping[str, Name], report: DataReport) -> None:
    camouflaged = sum(names[stem].is_camouflaged for stem in part.images)
    others = len(part.images) - camouflaged
    found = {"camouflaged images": camouflaged, "other images": others}
    found = {f"{what} in {part.name}": number for what, number in found.items()}
    official = {f"{what} in {part.name}": n for what, n in RELEASE[part.name].items()}
    if not others:
        # Many copies hold the camouflaged half alone.
        official.pop(f"other images in {part.name}")
    compare_with_release(root, found, official, report)


class _Reader:
    """Make the records of one split."""

    def __init__(
        self,
        part: Part,
        truth: Mapping[str, Callable[[], Truth]],
        size_of: Callable[[str], tuple[int, int]],
        class_names: tuple[str, ...],
        report: DataReport,
    ) -> None:
        self.part = part
        self.truth = truth
        self.size_of = size_of
        self.class_names = class_names
        self.report = report
        self.unusable: list[str] = []

    def camouflaged(self, stems: list[str]) -> list[dict]:
        records = []
        for stem in with_progress(stems, f"reading COD10K's {self.part.name}", logger):
            self.report.found_images += 1
            record = self._camouflaged(stem)
            if record:
                records.append(record)
        return records

    def check_usable(self) -> None:
        check_missing(
            self.unusable,
            self.report.found_images,
            "images and masks of COD10K are damaged or do not belong to each other",
        )

    def backgrounds(self, stems: list[str]) -> list[dict]:
        records = []
        for stem in stems:
            self.report.found_images += 1
            path = str(self.part.images[stem])
            try:
                records.append(self._record(stem, path, self.size_of(path), []))
            except UserError as error:
                self._drop(UNREADABLE, str(error))
        return records

    def _camouflaged(self, stem: str) -> dict | None:
        if stem not in self.truth:
            return self._drop("images without a mask dropped", str(self.part.images[stem]))
        try:
            truth = self.truth[stem]()
        except UserError as error:
            return self._drop("images with a mask that cannot be read dropped", str(error))
        self.report.found_boxes += len(truth.boxes)
        if stem not in self.part.images:
            return self._drop("masks without an image dropped", truth.place, truth)
        path = str(self.part.images[stem])
        try:
            size = self.size_of(path)
        except UserError as error:
            return self._drop(UNREADABLE, str(error), truth)
        if truth.size != size:
            return self._drop("images with a mask of another size dropped", path, truth)
        if not truth.boxes:
            # A negative it is not: something is there that nobody outlined.
            return self._drop("camouflaged images with an empty mask dropped", path, truth)
        if truth.from_parts:
            self.report.note("images with connected parts for want of an instance mask", path)
        boxes = self._boxes(stem, truth, size)
        return self._record(stem, path, size, boxes, lost=len(truth.boxes) - len(boxes))

    def _drop(self, reason: str, place: str, truth: Truth | None = None) -> None:
        self.report.drop_image(reason, place, boxes=len(truth.boxes) if truth else 0)
        self.unusable.append(place)

    def _boxes(self, stem: str, truth: Truth, size: tuple[int, int]) -> list[Box]:
        name = parse_name(stem)
        category_id = 0
        if self.class_names is SUB_CLASSES:
            category_id = name.number - 1
            if not name.fits_its_number():
                reason = "names that differ from their number's sub-class; the number counts"
                self.report.note(reason, truth.place)
        boxes = [
            with_mask(replace(box, category_id=category_id), size, self.report)
            for box in truth.boxes
        ]
        return [box for box in boxes if box]

    def _record(
        self, stem: str, path: str, size: tuple[int, int], boxes: list[Box], lost: int = 0
    ) -> dict | None:
        return make_record(
            file_name=path,
            image_id=stem,
            size=size,
            boxes=boxes,
            class_names=self.class_names,
            report=self.report,
            lost_boxes=lost,
        )
