"""Make records of the images that annotation files name: open each header, count what is amiss."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import UserError
from ...evaluation.coco_masks import compress_mask
from ..image_header import stored_size
from ..progress import with_progress
from ..record import Box, make_record
from ..report import DataReport, Faults
from ..size_cache import cached_sizes
from .policy import check_missing

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutlinedBox(Box):
    """A box with its mask as the file gives it.

    Attributes:
        outline: polygons or run lengths in COCO's form; None where the object has no mask.
    """

    outline: list | dict | None = None


@dataclass(frozen=True)
class ImageEntry:
    """An image that the annotations name.

    Attributes:
        image_id: unique within the split.
        path: the file, or where it should be.
        place: where the annotations name it.
        boxes: of the image, possibly none.
        stated_size: (height, width) that the annotations give; None where they do not.
    """

    image_id: int | str
    path: Path
    place: str
    boxes: list[OutlinedBox] = field(default_factory=list)
    stated_size: tuple[object, object] | None = None


def make_records(
    entries: Sequence[ImageEntry],
    *,
    source: Path,
    image_dir: Path,
    class_names: tuple[str, ...],
    report: DataReport,
) -> list[dict]:
    """Return the records of one split; images that are missing or unreadable are dropped.

    Args:
        entries: the images of the split.
        source: the file or folder of annotations, for messages.
        image_dir: the folder of the images, which names the cache of their sizes.
        class_names: names by class number.
        report: takes the counts, in place.

    Raises:
        UserError: more than 1 % of the images are missing or unreadable, two entries name one file,
            or an image has another size than the annotations say.
    """
    report.found_images += len(entries)
    report.found_boxes += sum(len(entry.boxes) for entry in entries)
    faults = Faults()
    _check_unique(entries, faults)
    unusable: list[str] = []
    records = []
    with cached_sizes(image_dir) as size_of:
        for entry in with_progress(entries, f"reading {source}", logger):
            try:
                size = _size(entry, size_of)
            except _Unusable as error:
                report.drop_image(error.reason, error.place, len(entry.boxes))
                unusable.append(error.place)
                continue
            _check_size(entry, size, report, faults)
            records.append(_record(entry, size, class_names, report))
    faults.stop_if_any()
    check_missing(unusable, len(entries), f"images that {source} names are missing or unreadable")
    return records


class _Unusable(Exception):
    """An image that must be left out: the reason that counts it, and which one it is."""

    def __init__(self, reason: str, place: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place


def _size(entry: ImageEntry, size_of: Callable[[str], tuple[int, int]]) -> tuple[int, int]:
    path = str(entry.path)
    if not os.path.isfile(path):
        raise _Unusable("images that do not exist dropped with their boxes", path)
    try:
        return size_of(path)
    except UserError as error:
        reason = "images that cannot be read dropped with their boxes"
        raise _Unusable(reason, str(error)) from None


def _check_unique(entries: Sequence[ImageEntry], faults: Faults) -> None:
    places: dict[Path, str] = {}
    for entry in entries:
        if entry.path in places:
            fault = f"names {entry.path}, as {places[entry.path]} does; merge the two"
            faults.add(entry.place, fault)
        places[entry.path] = entry.place


def _check_size(
    entry: ImageEntry, size: tuple[int, int], report: DataReport, faults: Faults
) -> None:
    """Compare the stated size with the file's: boxes would be wrong if they differ."""
    stated = entry.stated_size
    if stated is None or stated == size:
        return
    if stated == stored_size(str(entry.path)):
        report.note("images turned by EXIF though their size is given unturned", str(entry.path))
        return
    swapped = " (height and width are swapped)" if stated == size[::-1] else ""
    faults.add(
        entry.place,
        f"says height {str(stated[0])[:20]} and width {str(stated[1])[:20]}, but {entry.path} has "
        f"{size[0]} and {size[1]}{swapped}; correct the entry, or put back the image that was "
        "annotated",
    )


def _record(
    entry: ImageEntry, size: tuple[int, int], class_names: tuple[str, ...], report: DataReport
) -> dict:
    return make_record(
        file_name=str(entry.path),
        image_id=entry.image_id,
        size=size,
        boxes=[_with_mask(box, size, report) for box in entry.boxes],
        class_names=class_names,
        report=report,
    )


def _with_mask(box: OutlinedBox, size: tuple[int, int], report: DataReport) -> Box:
    """Return the box with its mask in pixels; a mask that is none is left out, and counted."""
    mask = None
    if box.outline:
        try:
            mask = compress_mask(box.outline, size)
        except ValueError as error:
            report.note("masks that cannot be used left out", f"{box.place}: {error}")
    return Box(box.xyxy, box.category_id, box.place, box.iscrowd, mask, box.area)
