"""Make records of the images that annotation files name: open each header, count what is amiss."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import UserError
from ...evaluation.coco_masks import compress_mask, mask_box
from ..image_header import stored_size
from ..progress import with_progress
from ..record import Box, make_record
from ..report import DataReport, Faults
from ..size_cache import cached_sizes
from .files import ImageFolder
from .policy import check_missing
from .units import XYXY, doubtful_unit, starts_at_one, wrong_unit

logger = logging.getLogger(__name__)

# So many missing images come with the name of a file that may be meant.
_SUGGESTIONS = 3
# A box and the box around its mask that overlap less (intersection over union) contradict.
_LEAST_OVERLAP = 0.5
AROUND_MASK = "objects without a box given the box around their mask"
UNLIKE_MASK = "boxes that do not fit their mask; both are kept"
USELESS_MASK = "objects without a box whose mask cannot be used dropped"
STARTS_AT_ONE = "boxes that end one pixel past the edge; pixels may be counted from 1, not from 0"


@dataclass(frozen=True)
class OutlinedBox(Box):
    """A box with its mask as the file gives it.

    Attributes:
        xyxy: as in `Box`; None where the box is to be drawn around the mask.
        outline: polygons or run lengths in COCO's form; None where the object has no mask.
    """

    xyxy: XYXY | None
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
        is_relative: coordinates are fractions of the image, not pixels.
        lost_boxes: how many boxes of the image the reader has dropped and counted.
    """

    image_id: int | str
    path: Path
    place: str
    boxes: list[OutlinedBox] = field(default_factory=list)
    stated_size: tuple[int, int] | None = None
    is_relative: bool = False
    lost_boxes: int = 0


def make_records(
    entries: Sequence[ImageEntry],
    *,
    source: Path,
    image_dir: Path,
    class_names: tuple[str, ...],
    report: DataReport,
    gives_sides: bool = False,
) -> list[dict]:
    """Return the records of one split.

    Left out, and counted, are images that are missing, unreadable or lost all their boxes.

    Args:
        entries: the images of the split.
        source: the file or folder of annotations, for messages.
        image_dir: the folder of the images, which names the cache of their sizes.
        class_names: names by class number.
        report: takes the counts, in place.
        gives_sides: the file gives boxes as x, y, width, height, not as two corners.

    Raises:
        UserError: more than 1 % of the images are missing or unreadable, two entries name one file,
            an image has another size than the annotations say, or the boxes prove to be no pixels.
    """
    report.found_images += len(entries)
    report.named_files.update(os.path.abspath(entry.path) for entry in entries)
    report.found_boxes += sum(len(entry.boxes) for entry in entries)
    faults = Faults()
    _check_unique(entries, faults)
    folder = ImageFolder(image_dir, report, faults)
    missing: list[str] = []
    usable: list[_Usable] = []
    with cached_sizes(image_dir, report) as size_of:
        for entry in with_progress(entries, f"reading {source}", logger):
            try:
                size = _size(entry, size_of)
            except _Unusable as error:
                hint = ""
                if len(missing) < _SUGGESTIONS and not os.path.exists(entry.path):
                    hint = folder.suggestion(os.path.relpath(entry.path, image_dir))
                report.drop_image(error.reason, error.place + hint, len(entry.boxes))
                missing.append(error.place + hint)
                continue
            _check_size(entry, size, report, faults)
            entry = _in_pixels(entry, size)
            boxes = [with_mask(box, size, report) for box in entry.boxes]
            usable.append(_Usable(entry, size, [box for box in boxes if box]))
    faults.stop_if_any()
    check_missing(missing, len(entries), f"images that {source} names are missing or unreadable")
    _check_unit(usable, source, gives_sides, report)
    records = [_record(image, class_names, report) for image in usable]
    return [record for record in records if record]


@dataclass(frozen=True)
class _Usable:
    """An image that can be read: its entry, its size (height, width), its boxes with masks."""

    entry: ImageEntry
    size: tuple[int, int]
    boxes: list[Box]


def _check_unit(
    images: Sequence[_Usable], source: Path, gives_sides: bool, report: DataReport
) -> None:
    """Refuse boxes whose numbers prove to be something else than pixels from the top left."""
    images = [image for image in images if not image.entry.is_relative]
    boxes = [box for image in images for box in image.boxes]
    sizes = [image.size for image in images for _ in image.boxes]
    corners = [box.xyxy for box in boxes]
    wrong = wrong_unit(corners, sizes, gives_sides=gives_sides)
    if wrong:
        number, fault = wrong
        raise UserError(f"{source}: {fault} (first: {boxes[number].place})")
    doubt, numbers = doubtful_unit(corners, sizes, gives_sides=gives_sides)
    for number in numbers:
        report.note(doubt, boxes[number].place)
    for number in starts_at_one(corners, sizes):
        report.note(STARTS_AT_ONE, boxes[number].place)


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
            fault = (
                f"names {entry.path}, as {places[entry.path]} does; merge the two, or restore the "
                "file of the one whose name is not quite the file's"
            )
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


def _record(image: _Usable, class_names: tuple[str, ...], report: DataReport) -> dict | None:
    entry = image.entry
    return make_record(
        file_name=str(entry.path),
        image_id=entry.image_id,
        size=image.size,
        boxes=image.boxes,
        class_names=class_names,
        report=report,
        lost_boxes=entry.lost_boxes + len(entry.boxes) - len(image.boxes),
    )


def _in_pixels(entry: ImageEntry, size: tuple[int, int]) -> ImageEntry:
    """Return the entry with its boxes and outlines in pixels."""
    if not entry.is_relative:
        return entry
    height, width = size
    boxes = [
        replace(
            box,
            xyxy=_scaled(box.xyxy, width, height),
            outline=box.outline and [list(_scaled(part, width, height)) for part in box.outline],
        )
        for box in entry.boxes
    ]
    return replace(entry, boxes=boxes)


def _scaled(numbers: Sequence[float], width: int, height: int) -> tuple[float, ...]:
    """Return x, y, x, y, ... in pixels."""
    return tuple(value * (height if number % 2 else width) for number, value in enumerate(numbers))


def with_mask(box: OutlinedBox, size: tuple[int, int], report: DataReport) -> Box | None:
    """Return a box with its mask as run lengths; a mask that is none is left out, and counted.

    Args:
        box: as read; without numbers of its own it becomes the box around its mask.
        size: (height, width) of the image.
        report: takes the counts, in place.

    Returns:
        None where neither box nor mask can be used, which is counted.
    """
    mask, xyxy = box.segmentation, box.xyxy
    if box.outline:
        try:
            mask = compress_mask(box.outline, size)
        except ValueError as error:
            if xyxy is None:
                report.drop_box(USELESS_MASK, f"{box.place}: {error}")
                return None
            report.note("masks that cannot be used left out", f"{box.place}: {error}")
    around = mask_box(box.outline, mask) if mask and box.outline else None
    if xyxy is None:
        report.note(AROUND_MASK, box.place)
        xyxy = around
    elif around and _area(xyxy) and _overlap(xyxy, around) < _LEAST_OVERLAP:
        report.note(UNLIKE_MASK, box.place)
    return Box(xyxy, box.category_id, box.place, box.iscrowd, mask, box.area)


def _overlap(first: XYXY, second: XYXY) -> float:
    """Return the intersection of two boxes, of which one has an area, over their union."""
    shared = _area(
        (
            max(first[0], second[0]),
            max(first[1], second[1]),
            min(first[2], second[2]),
            min(first[3], second[3]),
        )
    )
    return shared / (_area(first) + _area(second) - shared)


def _area(box: XYXY) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
