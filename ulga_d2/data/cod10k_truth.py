"""COD10K's objects: from the third release's JSON, or from the second's masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import UserError
from .cod10k_tree import Part
from .formats.coco import box_of
from .formats.coco_file import parse_coco
from .formats.images import OutlinedBox
from .instance_masks import MaskObjects, instances_in, parts_in
from .size_cache import cached

# Raised when a cached mask would come out otherwise for the same file.
_INSTANCES, _PARTS = "instances-1", "parts-1"


@dataclass(frozen=True)
class Truth:
    """What is annotated in one image.

    Attributes:
        place: the file or record that says so.
        size: (height, width) of the annotated image as stated; anything where it is not.
        boxes: of the objects, with a mask of that size, or with an outline; the class is open.
        from_parts: whether objects are connected parts, for want of instances.
    """

    place: str
    size: tuple[object, object]
    boxes: list[OutlinedBox]
    from_parts: bool = False


# By the image's name without suffix, what reads its objects.
Readers = dict[str, Callable[[], Truth]]


@contextmanager
def open_truth(part: Part, root: Path) -> Iterator[tuple[Readers, dict[str, int]]]:
    """Yield what reads each image's objects, and the JSON's category ids by name (masks: none).

    Args:
        part: the files.
        root: the data set's folder, which names the cache.

    Raises:
        UserError: the JSON is no COCO file, or (when an image's objects are read) a damaged mask.
    """
    if part.annotations:
        yield _in_json(part.annotations)
        return
    with (
        cached(root, _INSTANCES, instances_in, _as_objects) as instances,
        cached(root, _PARTS, parts_in, _as_objects) as parts,
    ):
        readers = {
            stem: partial(_read_mask, str(path), parts, True) for stem, path in part.objects.items()
        }
        for stem, path in part.instances.items():
            readers[stem] = partial(_read_mask, str(path), instances, False)
        yield readers, {}


def _read_mask(path: str, read: Callable[[str], MaskObjects], from_parts: bool) -> Truth:
    found = read(path)
    height, width = found["size"]
    boxes = []
    for item in found["objects"]:
        mask = {"size": [height, width], "counts": item["counts"]}
        xyxy = tuple(map(float, item["bbox"]))
        boxes.append(OutlinedBox(xyxy, 0, path, segmentation=mask))
    return Truth(path, (height, width), boxes, from_parts)


def _as_objects(stored: dict) -> MaskObjects:
    height, width = stored["size"]
    objects = [
        {"bbox": [int(x) for x in item["bbox"]], "counts": str(item["counts"])}
        for item in stored["objects"]
    ]
    return {"size": [int(height), int(width)], "objects": objects}


def _in_json(path: Path) -> tuple[Readers, dict[str, int]]:
    content = parse_coco(path)
    annotations: dict[int, list[tuple[int, dict]]] = defaultdict(list)
    for key, annotation in content.annotations.items():
        annotations[annotation["image_id"]].append((key, annotation))
    readers: Readers = {}
    for key, image in content.images.items():
        stem = Path(image["file_name"]).stem
        if stem in readers:
            raise UserError(f"{path}: two images are named {stem}; remove one of them")
        readers[stem] = partial(_record_in_json, path, key, image, annotations[key])
    return readers, {entry["name"]: key for key, entry in content.categories.items()}


def _record_in_json(
    path: Path, key: int, image: dict, annotations: list[tuple[int, dict]]
) -> Truth:
    boxes = []
    for number, annotation in annotations:
        place = f"{path}, annotation {number}"
        outline = annotation.get("segmentation")
        boxes.append(
            OutlinedBox(box_of(annotation), 0, place, outline=outline, area=annotation["area"])
        )
    return Truth(f"{path}, image {key}", (image.get("height"), image.get("width")), boxes)
