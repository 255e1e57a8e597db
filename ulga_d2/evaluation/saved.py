"""Result files: COCO's result list as JSON (plain or packed with gzip), and the file beside it.

`predictions.json` has the dataset's own category ids, so it can be scored with any COCO tool.
`predictions_meta.json` says what the ids mean (images, categories) and how the detections were
made. Inside the program category ids are contiguous from 0, and image ids are the dataset's.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from ulga_d2.config import parse_config
from ulga_d2.errors import UserError
from ulga_d2.io import parse_json

from .atomic import unfinished_path
from .boxes import COCO_LIMIT, Prediction, Record, check_predictions
from .coco_masks import check_run_lengths
from .images import check_images, is_image_id, match_images

logger = logging.getLogger(__name__)

RESULTS, META = "predictions.json", "predictions_meta.json"
PLACES = (
    f"inference/{RESULTS}",
    f"inference/{RESULTS}.gz",
    RESULTS,
    "detections.json.gz",
)
FORMAT = "ulga_d2 predictions 1"
MOST_RATIO = 40  # of a list to its gzip file, above MOST_RATIO MiB; ours have 5 to 10
# Folders from a result file up to its run folder, at most: RUN/inference/DATASET/predictions.json.
RUN_DEPTH = 3

# How the category ids of a result list without a file beside it are to be read.
Numbering = Literal["dataset", "contiguous"]


def find_predictions(folder: str | Path) -> Path:
    """Return where a run folder keeps its detections.

    Raises:
        UserError: it keeps none, or one for each of several test sets.
    """
    for place in PLACES:
        path = Path(folder) / place
        if path.is_file():
            return path
    of_sets = [
        str(path)
        for place in (f"inference/*/{RESULTS}", f"*/{RESULTS}")
        for path in sorted(Path(folder).glob(f"{place}*"))
        if path.name in (RESULTS, f"{RESULTS}.gz")
    ]
    if of_sets:
        raise UserError(
            f"{folder} holds no detections of its own but these of several test sets or "
            f"predictions; give one of the files: {_listed(of_sets)}"
        )
    raise UserError(
        f"{folder} holds no detections ({', '.join(PLACES)}); evaluate the run with --eval-only"
    )


def write_results(
    folder: str | Path,
    predictions: Sequence[Prediction],
    *,
    images: Sequence[Mapping[str, Any]],
    categories: Iterable[tuple[int, str]],
    info: Mapping[str, Any],
) -> None:
    """Write predictions.json, with the dataset's own category ids, and predictions_meta.json.

    Args:
        folder: made if missing.
        predictions: COCO's result list, with category ids contiguous from 0.
        images: each with id, file_name, height and width; see `images.image_entries`.
        categories: the dataset's own id and the name of each class, in the order of those ids.
        info: how the detections were made, such as max_detections, model_sha256 and settings;
            nothing that differs between two equal runs.
    """
    entries = [{"id": key, "name": name} for key, name in categories]
    of_image = defaultdict(list)
    for item in predictions:
        own_id = entries[item["category_id"]]["id"]
        of_image[item["image_id"]].append({**item, "category_id": own_id})
    os.makedirs(folder, exist_ok=True)
    files = ResultFiles(Path(folder), entries, info)
    for image in images:
        files.add(image, of_image[image["id"]])
    files.close()


def read_results(
    path: str | Path,
    records: Sequence[Record],
    class_names: Sequence[str],
    category_ids: Sequence[int],
    *,
    numbering: Numbering | None = None,
) -> list[dict[str, Any]]:
    """Read a result list for a dataset; category ids become contiguous from 0.

    With a file beside it (predictions_meta.json) classes and images are matched by their names
    there, and image ids become the dataset's. Without one image ids are taken as the dataset's, and
    the category ids themselves decide: a list with an id that is none of the dataset's counts
    from 0, and one with an id above K - 1 has the dataset's own ids. Where both are possible the
    dataset's own ids are taken, but for a file in a run folder, which an older version wrote with
    ids from 0. Which numbering was taken is logged.

    Args:
        path: of the file, or of a run folder.
        records: of the dataset.
        class_names: of the dataset.
        category_ids: the dataset's own, in the same order.
        numbering: decides for a list without a file beside it.

    Raises:
        UserError: a file that is missing or damaged, holds something else, has other classes or
            images, or has category ids that fit neither numbering.
    """
    path = _result_file(path)
    predictions = _read_list(path)
    meta = _read_meta(path)
    if meta is not None:
        numbers = _numbers_by_name(meta, path, class_names)
        _use_image_ids(predictions, path, match_images(meta["images"], records, _meta_path(path)))
        source = f"the ids in {_meta_path(path).name}"
        if numbering is not None:
            logger.info("%s: --category-ids has no effect, classes go by %s", path, source)
    else:
        chosen = numbering or _numbering(predictions, path, category_ids)
        ids = category_ids if chosen == "dataset" else range(len(category_ids))
        numbers = {key: number for number, key in enumerate(ids)}
        source = "the dataset's ids" if chosen == "dataset" else "contiguous ids from 0"
    for place, item in enumerate(predictions, start=1):
        if "category_id" not in item:
            continue  # what lacks a key is refused, with its number, when it is scored
        key = item["category_id"]
        if not _is_id(key) or key not in numbers:
            raise UserError(
                f"{path}, prediction number {place}: category_id {key!r} is none of {source}: "
                f"{_listed(numbers)}; check which dataset the file belongs to"
            )
        item["category_id"] = numbers[key]
    sizes = {record["image_id"]: (record["height"], record["width"]) for record in records}
    check_predictions(predictions, sizes, len(class_names), str(path))
    _compress_masks(predictions, path, sizes)
    return predictions


def _compress_masks(
    predictions: Sequence[dict[str, Any]],
    path: Path,
    sizes: Mapping[int | str, tuple[int, int]],
) -> None:
    """Compress masks in place; pycocotools reads run lengths without looking at their sum."""
    for place, item in enumerate(predictions, start=1):
        if "segmentation" not in item:
            continue
        size = sizes[item["image_id"]]
        try:
            item["segmentation"] = check_run_lengths(item["segmentation"], size)
        except ValueError as error:
            raise UserError(f"{path}, prediction number {place}: its mask: {error}") from None


def _use_image_ids(
    predictions: Sequence[dict[str, Any]], path: Path, image_ids: Mapping[int | str, int | str]
) -> None:
    """Replace the image ids of a result list, in place, by those of the dataset."""
    for place, item in enumerate(predictions, start=1):
        if "image_id" not in item:
            continue  # refused, with its number, when it is scored
        key = item["image_id"]
        if not is_image_id(key) or key not in image_ids:
            raise UserError(
                f"{path}, prediction number {place}: image_id {key!r} is none of the ids in "
                f"{_meta_path(path)}; if that file belongs to another result list, move it away"
            )
        item["image_id"] = image_ids[key]


def common_limit(asked: int | None, paths: Iterable[str | Path]) -> int:
    """Return the limit of detections an image under which result lists are scored.

    It is the one that is asked for, else the largest that a list states (in predictions_meta.json,
    or in the config of its run folder), else COCO's 100. For a list that states that it has no
    limit, the largest number of results of an image in it counts, and at least COCO's 100.

    Args:
        asked: by the user, or None.
        paths: of the files, or of run folders.

    Raises:
        UserError: a run folder without detections, or a damaged file.
    """
    if asked is not None:
        return asked
    limits, unlimited = [], []
    for path in map(_result_file, paths):
        meta = _read_meta(path)
        stated = _limit_of_run(path) if meta is None else meta["info"].get("max_detections")
        if meta is not None and "max_detections" in meta["info"] and stated is None:
            unlimited.append(path)
            counts = Counter(repr(item.get("image_id")) for item in _read_list(path))
            limits.append(max([COCO_LIMIT, *counts.values()]))
        elif _is_id(stated) and stated > 0:
            limits.append(stated)
    limit = max(limits, default=COCO_LIMIT)
    for path in unlimited:
        logger.info(
            "%s states no limit of detections an image: up to %d count, so that none is left out; "
            "--max-detections overrides this",
            path,
            limit,
        )
    return limit


def _limit_of_run(path: Path) -> object:
    return ((_run_config(path) or {}).get("TEST") or {}).get("DETECTIONS_PER_IMAGE")


def _result_file(path: str | Path) -> Path:
    return find_predictions(path) if Path(path).is_dir() else Path(path)


def _read_list(path: Path) -> list[dict[str, Any]]:
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = _decompress(content)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read as COCO's result list: {error}") from None
    found = parse_json(content, path)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise UserError(f"{path} holds no list of detections; give COCO's result format")
    return found


def _decompress(content: bytes) -> bytes:
    """Return what gzip has compressed, unless it is far more than numbers in JSON can be."""
    most = max(MOST_RATIO * len(content), MOST_RATIO << 20)
    with gzip.open(BytesIO(content)) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise ValueError(f"it unpacks to more than {MOST_RATIO} times its size")
    return found


def _meta_path(path: Path) -> Path:
    """Return the file beside a result list: a_meta.json for a.json and a.json.gz."""
    return path.with_name(f"{path.name.removesuffix('.gz').removesuffix('.json')}_meta.json")


def _read_meta(path: Path) -> dict[str, Any] | None:
    """Read the file beside a result list; None where there is none."""
    meta_path = _meta_path(path)
    try:
        found = json.loads(meta_path.read_bytes())
        categories = [(entry["id"], entry["name"]) for entry in found["categories"]]
        fits = isinstance(found["info"], dict) and all(_is_id(key) for key, _ in categories)
        if not fits or len(dict(categories)) < len(categories):
            raise ValueError("'categories' must be a list of unique ids with names, 'info' a dict")
        check_images(found["images"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{meta_path} does not say what {path.name} beside it holds ({error}); repair it, or "
            "move it away: image ids must be the dataset's then, and --category-ids decides"
        ) from None
    return found


def _numbers_by_name(
    meta: Mapping[str, Any], path: Path, class_names: Sequence[str]
) -> dict[int, int]:
    names = {entry["id"]: entry["name"] for entry in meta["categories"]}
    if sorted(map(str, names.values())) != sorted(class_names):
        raise UserError(
            f"{path} was made with other classes than the dataset has:\n  {_meta_path(path).name}: "
            f"{list(names.values())}\n  the dataset: {list(class_names)}\n Score it on a dataset "
            "with the same class names."
        )
    return {key: list(class_names).index(name) for key, name in names.items()}


def _numbering(
    predictions: Sequence[Prediction], path: Path, category_ids: Sequence[int]
) -> Numbering:
    """Decide by the ids in a list which numbering it has, and log it where there are two."""
    contiguous = range(len(category_ids))
    if list(category_ids) == list(contiguous):
        return "dataset"
    found = {item["category_id"] for item in predictions if _is_id(item.get("category_id"))}
    fits_dataset, fits_contiguous = found <= set(category_ids), found <= set(contiguous)
    if not fits_dataset and not fits_contiguous:
        raise UserError(
            f"{path} has the category ids {_listed(sorted(found))}, which are neither the "
            f"dataset's ({_listed(category_ids)}) nor 0 to {len(category_ids) - 1}; check which "
            "dataset the file belongs to"
        )
    chosen: Numbering = "dataset" if fits_dataset else "contiguous"
    if fits_dataset and fits_contiguous and _run_config(path) is not None:
        chosen = "contiguous"
    if found:
        taken = {
            "dataset": f"the dataset's own ({_listed(category_ids)})",
            "contiguous": f"contiguous from 0 (0 to {len(category_ids) - 1})",
        }[chosen]
        both = ", though both numberings fit" if fits_dataset and fits_contiguous else ""
        logger.info(
            "%s: category ids are taken as %s%s; --category-ids overrides this", path, taken, both
        )
    return chosen


def _run_config(path: Path) -> dict[str, Any] | None:
    """Return the config of the run folder that a result list lies in; None where it is in none."""
    if path.name not in {Path(place).name for place in PLACES}:
        return None
    for folder in path.resolve().parents[:RUN_DEPTH]:
        try:
            file = folder / "config.yaml"
            config = parse_config(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError, UserError):
            continue
        if "ULGA" in (config.get("MODEL") or {}):
            return config
    return None


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _listed(ids: Iterable[int | str]) -> str:
    ids = list(ids)
    shown = ", ".join(map(str, ids[:10]))
    return f"{shown}, ... ({len(ids)} in all)" if len(ids) > 10 else shown


class JsonList:
    """A JSON list that is written item by item, so that it needs no memory.

    Args:
        path: the file; it appears when it is complete, under another name until then.
        before: text before the list, such as '{"images": '.
    """

    def __init__(self, path: Path, before: str = "") -> None:
        self._path = path
        self._unfinished = unfinished_path(path)
        self._file = self._unfinished.open("w", encoding="utf-8")
        self._file.write(f"{before}[")
        self._separator = "\n"

    def add(self, item: Mapping[str, Any]) -> None:
        """Write one item on a line of its own."""
        self._file.write(self._separator + json.dumps(item))
        self._separator = ",\n"

    def close(self, after: Iterable[str] = ()) -> None:
        """End the list, write the texts that follow it, and put the file in its place."""
        self._file.write("\n]")
        self._file.writelines(after)
        self._file.write("\n")
        self._file.close()
        os.replace(self._unfinished, self._path)


class ResultFiles:
    """Writes `predictions.json`, a COCO result list, and `predictions_meta.json` beside it.

    Both are written image by image. The second holds "images", "categories" and "info".

    Args:
        folder: that gets the two files; it exists.
        categories: "id" and "name" of each class; the ids are those of the results.
        info: settings that the results depend on; `format` is added.
    """

    def __init__(
        self, folder: Path, categories: Iterable[Mapping[str, Any]], info: Mapping[str, Any]
    ) -> None:
        self._results = JsonList(folder / RESULTS)
        self._images = JsonList(folder / META, '{"images": ')
        self._rest = {
            "categories": list(categories),
            "info": {"format": FORMAT, **info},
        }

    def add(self, image: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> None:
        """Write an image and its results.

        Args:
            image: "id", "file_name", "height" and "width".
            results: in COCO's format.
        """
        self._images.add(image)
        for result in results:
            self._results.add(result)

    def close(self) -> None:
        """Complete the two files."""
        self._results.close()
        self._images.close([f", {json.dumps(self._rest)[1:]}"])
