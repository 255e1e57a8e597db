"""Write a data set anew as clean COCO, YOLO or VOC, with its images, and read it back."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from ..errors import UserError
from .custom import load_custom
from .formats.write_coco import write_coco
from .formats.write_voc import write_voc
from .formats.write_yolo import write_yolo, write_yolo_classes
from .formats.yaml_file import dump_yaml
from .image import read_image
from .image_header import image_facts
from .intensity import PIXEL_MAX, Intensity
from .progress import with_progress
from .record import LoadedSplit
from .root import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

FORMATS = ("coco", "yolo", "voc")
_LEVELS_16 = 65535 / PIXEL_MAX


def convert(
    name: str, splits: Mapping[str, LoadedSplit], out: Path, to: str, intensity: Intensity
) -> dict[str, int]:
    """Write all splits of a data set into a new folder, in a layout that common tools read.

    Images are copied as they are, under their path within the split. Files that common tools do not
    show as we do (DICOM, MATLAB, images turned by EXIF, pages of several) become upright PNGs of 8
    or 16 bits. What was written is read back and counted. Whose image it is gets lost: no format
    has a place for it.

    Args:
        name: of the data set; `OUT/dataset.yaml` describes its copy, for DATASETS.CUSTOM.
        splits: by name; all of the same classes.
        out: the folder, new or empty.
        to: one of FORMATS.
        intensity: how stored values become grey levels in those PNGs.

    Returns:
        per split, how many boxes around groups were left out, which only COCO can mark.

    Raises:
        UserError: the folder is not empty or cannot be written, the classes differ, a split has no
            image, two images would get the same name, or the format does not hold all boxes.
    """
    class_names = _common_classes(splits)
    images = {split: _image_dir(out, split, to) for split in splits}
    sources = {split: _names(loaded.records) for split, loaded in splits.items()}
    _check_names(sources, images, to)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder; name a new one. Nothing was written")
    try:
        left_out = _write(splits, sources, images, out, to, intensity)
        _write_description(out / "dataset.yaml", f"{name}_{to}", to, splits, class_names)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from None
    for split, loaded in splits.items():
        _check_copy(out / "dataset.yaml", split, loaded, left_out[split])
    return left_out


def _write(
    splits: Mapping[str, LoadedSplit],
    sources: Mapping[str, Mapping[str, str]],
    images: Mapping[str, Path],
    out: Path,
    to: str,
    intensity: Intensity,
) -> dict[str, int]:
    """Write images and annotations; return how many boxes of each split were left out."""
    left_out = {}
    for split, loaded in splits.items():
        frames = {record["file_name"]: record.get("frame") for record in loaded.records}
        what = f"writing the images of {split}"
        names = _write_images(sources[split], images[split], frames, intensity, what)
        records, left_out[split] = _writable(loaded.records, to)
        _write_annotations(out, split, to, records, names, loaded.class_names)
    if to == "yolo":
        folders = {split: f"images/{split}" for split in splits}
        write_yolo_classes(out / "data.yaml", loaded.class_names, folders)
    return left_out


def _common_classes(splits: Mapping[str, LoadedSplit]) -> tuple[str, ...]:
    lists = {loaded.class_names for loaded in splits.values()}
    if len(lists) > 1:
        shown = " and ".join(map(str, map(list, lists)))
        raise UserError(f"the splits have different class names, {shown}; make them agree")
    return lists.pop()


def _image_dir(out: Path, split: str, to: str) -> Path:
    return out / "JPEGImages" if to == "voc" else out / "images" / split


def _names(records: Sequence[dict]) -> dict[str, str]:
    """Return each file's path within the folder that holds all of the split's images."""
    if not records:
        raise UserError("a split has no image, so there is nothing to convert; leave it out")
    files = [record["file_name"] for record in records]
    if len(set(files)) < len(files):
        twice = Counter(files).most_common(1)[0][0]
        raise UserError(f"{twice} stands twice in the split; merge its two entries")
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    return {file: Path(os.path.relpath(file, folder)).as_posix() for file in files}


def _check_names(
    sources: Mapping[str, Mapping[str, str]], images: Mapping[str, Path], to: str
) -> None:
    """Refuse two images of one name; YOLO and VOC tell images apart by the name without suffix."""
    taken: dict[Path, str] = {}
    for split, names in sources.items():
        for file, name in names.items():
            # COCO's suffix counts, but may become .png.
            target = (images[split] / name).with_suffix("")
            if target in taken:
                raise UserError(
                    f"{taken[target]} and {file} would both become {target}; rename one "
                    f"{'or convert to coco or yolo, which keep splits apart ' * (to == 'voc')}"
                    "(nothing was written)"
                )
            taken[target] = file


def _write_images(
    names: Mapping[str, str],
    folder: Path,
    frames: Mapping[str, int | None],
    intensity: Intensity,
    what: str,
) -> dict[str, str]:
    """Copy or redraw the images; return their names in `folder`."""
    written = {}
    for file in with_progress(list(names), what, logger):
        name = names[file]
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if _is_common(file):
            shutil.copyfile(file, target)
        else:
            name = PurePosixPath(name).with_suffix(".png").as_posix()
            _write_png(folder / name, read_image(file, intensity, frames[file]))
        written[file] = name
    return written


def _is_common(file: str) -> bool:
    if Path(file).suffix.lower() not in IMAGE_SUFFIXES:
        return False
    facts = image_facts(file)
    return facts.orientation == 1 and facts.frames == 1


def _write_png(path: Path, image: np.ndarray) -> None:
    if image.dtype != np.uint8:
        image = np.rint(image * _LEVELS_16).astype(np.uint16)
    is_grey = (image[..., :1] == image).all()
    stored = image[..., 0] if is_grey else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    path.write_bytes(cv2.imencode(".png", stored)[1].tobytes())


def _writable(records: Sequence[dict], to: str) -> tuple[list[dict], int]:
    """Leave out boxes around groups where the format cannot mark them."""
    if to == "coco":
        return list(records), 0
    kept = [
        {**record, "annotations": [item for item in record["annotations"] if not item["iscrowd"]]}
        for record in records
    ]
    before, after = (sum(len(r["annotations"]) for r in some) for some in (records, kept))
    return kept, before - after


def _write_annotations(
    out: Path,
    split: str,
    to: str,
    records: Sequence[dict],
    names: Mapping[str, str],
    class_names: Sequence[str],
) -> None:
    if to == "coco":
        (out / "annotations").mkdir(exist_ok=True)
        write_coco(out / "annotations" / f"{split}.json", records, names, class_names)
    elif to == "yolo":
        (out / "labels" / split).mkdir(parents=True, exist_ok=True)
        write_yolo(out / "labels" / split, records, names)
    else:
        list_file = out / "ImageSets" / "Main" / f"{split}.txt"
        write_voc(out / "Annotations", list_file, records, names, class_names)


def _write_description(
    file: Path, name: str, to: str, splits: Iterable[str], class_names: Sequence[str]
) -> None:
    """Write the YAML by which the copy is a data set of its own."""
    paths = {
        "coco": {"images": "images/{}", "annotations": "annotations/{}.json"},
        "yolo": {"images": "images/{}", "labels": "labels/{}"},
        "voc": {
            "images": "JPEGImages",
            "annotations": "Annotations",
            "list": "ImageSets/Main/{}.txt",
        },
    }[to]
    content = {
        "name": name,
        "format": to,
        "root": ".",
        "splits": {
            split: {key: path.format(split) for key, path in paths.items()} for split in splits
        },
    }
    if to != "coco":
        content["class_names"] = list(class_names)
    file.write_text(dump_yaml(content), encoding="utf-8")


def _check_copy(file: Path, split: str, source: LoadedSplit, left_out: int) -> None:
    copy = load_custom(file, split).report
    expected = (source.report.images, source.report.boxes.total() - left_out)
    found = (copy.images, copy.boxes.total())
    if found != expected:
        raise UserError(
            f"{file}, split {split}: {found[0]:,} images and {found[1]:,} boxes read back, of "
            f"{expected[0]:,} and {expected[1]:,} ({copy.oddities()}); convert to coco instead"
        )
