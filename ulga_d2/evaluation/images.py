"""The images of predictions_meta.json: how they are listed, and which of a dataset's they are.

`ulga predict` numbers its images from 1, so ids say nothing about another dataset; names do.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ulga_d2.errors import UserError

from .boxes import Record

logger = logging.getLogger(__name__)

Parts = tuple[str, ...]
KEYS = ("id", "file_name", "height", "width")


def image_entries(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the images of a dataset as predictions_meta.json lists them.

    File names are relative to the folder that holds all of the images.
    """
    files = [os.path.abspath(record["file_name"]) for record in records]
    folder = os.path.commonpath([os.path.dirname(file) for file in files]) if files else ""
    return [
        {
            "id": record["image_id"],
            "file_name": Path(os.path.relpath(file, folder)).as_posix(),
            "height": record["height"],
            "width": record["width"],
        }
        for file, record in zip(files, records, strict=True)
    ]


def is_image_id(value: object) -> bool:
    """Tell whether a value can be the id of an image: a whole number or text."""
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def check_images(images: object) -> None:
    """Raise ValueError unless `images` is a list as predictions_meta.json has it."""
    if not isinstance(images, list) or not all(
        isinstance(image, dict)
        and is_image_id(image.get("id"))
        and isinstance(image.get("file_name"), str)
        and image["file_name"].strip("/")
        and all(isinstance(image.get(side), int) for side in ("height", "width"))
        for image in images
    ):
        raise ValueError("'images' must be a list of dicts with id, file_name, height and width")
    if len({image["id"] for image in images}) < len(images):
        raise ValueError("ids of 'images' must be unique")


def match_images(
    images: Sequence[Mapping[str, Any]], records: Sequence[Record], file: Path
) -> dict[int | str, int | str]:
    """Return the dataset's id of each image of a result list, by the id that the list has.

    An image is that of a record if the path of one ends with the path of the other and the sizes
    agree. Where a name fits several records, the one folder under which all names are found
    decides. If no name fits at all, ids decide, provided that all ids and sizes are the dataset's.

    Args:
        images: of predictions_meta.json, as `check_images` wants them.
        records: of the dataset; those without an image of the list are counted in a warning.
        file: predictions_meta.json, for messages.

    Raises:
        UserError: an image that is not in the dataset, has another size there, or could be several
            of its images.
    """
    if _facts(images) == _facts(image_entries(records)):
        return {image["id"]: image["id"] for image in images}
    matched = _by_name(images, records, file)
    if matched is None:
        matched = _by_id(images, records, file)
    listed = set(matched.values())
    missing = [record for record in records if record["image_id"] not in listed]
    if missing:
        logger.warning(
            "warning: %s lists %s of the dataset's %s images; the other %s (such as %s) count as "
            "images without detections, which lowers the metrics",
            file,
            f"{len(images):,}",
            f"{len(records):,}",
            f"{len(missing):,}",
            missing[0]["file_name"],
        )
    return matched


def _facts(images: Sequence[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
    return {tuple(image[key] for key in KEYS) for image in images}


def _by_name(
    images: Sequence[Mapping[str, Any]], records: Sequence[Record], file: Path
) -> dict[int | str, int | str] | None:
    """Match by file name; None if no name is the dataset's."""
    names = [_parts(image["file_name"]) for image in images]
    paths = [_parts(Path(os.path.abspath(record["file_name"])).as_posix()) for record in records]
    named = _records_of_names(names, paths)
    if not any(named):
        return None
    strangers = [image for image, numbers in zip(images, named, strict=True) if not numbers]
    if strangers:
        raise _not_in_dataset(strangers, len(images), records, file)
    fitting = [
        [number for number in numbers if _size(records[number]) == _size(image)]
        for image, numbers in zip(images, named, strict=True)
    ]
    for image, numbers, of_name in zip(images, fitting, named, strict=True):
        if not numbers:
            raise UserError(
                f"{file}: image {image['file_name']!r} has {_size(image)} pixels (height, width), "
                f"but {records[of_name[0]]['file_name']} of the dataset has "
                f"{_size(records[of_name[0]])}; predict again on the dataset's own images"
            )
    if any(len(numbers) > 1 for numbers in fitting):
        fitting = _under_one_folder(fitting, names, paths)
    _check_one_to_one(images, fitting, records, file)
    logger.info("%s: images are matched with the dataset's by file name", file)
    return {
        image["id"]: records[number]["image_id"]
        for image, (number,) in zip(images, fitting, strict=True)
    }


def _by_id(
    images: Sequence[Mapping[str, Any]], records: Sequence[Record], file: Path
) -> dict[int | str, int | str]:
    """Take the ids as the dataset's, where all ids and sizes agree."""
    sizes = {record["image_id"]: _size(record) for record in records}
    strangers = [image for image in images if sizes.get(image["id"]) != _size(image)]
    if strangers:
        raise _not_in_dataset(images, len(images), records, file)
    if images:
        logger.warning(
            "warning: %s: no file name is the dataset's (%s, for example); images are matched by "
            "id, since all ids and sizes agree. Check that these are the same images",
            file,
            images[0]["file_name"],
        )
    return {image["id"]: image["id"] for image in images}


def _parts(path: str) -> Parts:
    return PurePosixPath(path.strip("/")).parts


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    return image["height"], image["width"]


def _records_of_names(names: Sequence[Parts], paths: Sequence[Parts]) -> list[list[int]]:
    """Return for each name the numbers of the records whose path ends with it, or it with theirs.

    Where the whole paths of several records are the end of a name, the longest path counts.
    """
    lengths = {len(name) for name in names}
    by_end, by_path = defaultdict(list), defaultdict(list)
    for number, path in enumerate(paths):
        by_path[path].append(number)
        for length in lengths:
            if length <= len(path):
                by_end[path[-length:]].append(number)
    found = []
    for name in names:
        ends = (name[start:] for start in range(1, len(name)))
        whole = next((by_path[end] for end in ends if end in by_path), [])
        found.append(by_end.get(name, whole))
    return found


def _under_one_folder(
    fitting: Sequence[list[int]], names: Sequence[Parts], paths: Sequence[Parts]
) -> list[list[int]]:
    """Keep the records in the one folder that all names are relative to, if there is just one."""

    def folder(number: int, name: Parts) -> Parts:
        return paths[number][: max(0, len(paths[number]) - len(name))]

    pairs = list(zip(fitting, names, strict=True))
    common = set.intersection(*({folder(n, name) for n in numbers} for numbers, name in pairs))
    if len(common) != 1:
        return list(fitting)
    return [[n for n in numbers if folder(n, name) in common] for numbers, name in pairs]


def _check_one_to_one(
    images: Sequence[Mapping[str, Any]],
    fitting: Sequence[list[int]],
    records: Sequence[Record],
    file: Path,
) -> None:
    owners: dict[int, Mapping[str, Any]] = {}
    for image, numbers in zip(images, fitting, strict=True):
        if len(numbers) > 1:
            some = " or ".join(records[number]["file_name"] for number in numbers[:2])
            raise UserError(
                f"{file}: image {image['file_name']!r} could be {some} of the dataset; predict on "
                "the folder that holds all of the dataset's images, with --recursive, so that "
                "names state the folders"
            )
        owner = owners.setdefault(numbers[0], image)
        if owner is not image:
            raise UserError(
                f"{file}: images {owner['file_name']!r} and {image['file_name']!r} both fit "
                f"{records[numbers[0]]['file_name']} of the dataset; predict on the dataset's "
                "images alone"
            )


def _not_in_dataset(
    strangers: Sequence[Mapping[str, Any]], count: int, records: Sequence[Record], file: Path
) -> UserError:
    some = ", ".join(repr(image["file_name"]) for image in strangers[:3])
    example = f" (which has {records[0]['file_name']}, for example)" if records else ""
    return UserError(
        f"{file}: {len(strangers):,} of {count:,} images are not in the dataset{example}: {some}; "
        "score the file on the dataset whose images these are, or predict on this dataset's "
        "images alone"
    )
