"""Write a COCO JSON file of boxes and masks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pycocotools import mask as run_lengths


def write_coco(
    json_file: Path, records: Sequence[dict], names: Mapping[str, str], class_names: Sequence[str]
) -> None:
    """Write one split; all ids run from 1, and every annotation has `area` and `iscrowd`.

    Annotation id 0 would count as "not matched" in COCO's own evaluation. `area` is what the
    source states, else the mask's, else the box's.

    Args:
        json_file: the file to write.
        records: the split's records.
        names: per `file_name` of a record, how the file names the image.
        class_names: by category_id.
    """
    category_ids = range(1, len(class_names) + 1)
    numbered = list(enumerate(records, start=1))
    owned = [(number, item) for number, record in numbered for item in record["annotations"]]
    content = {
        "info": {},
        "licenses": [],
        "images": [
            coco_image(key, names[record["file_name"]], record["height"], record["width"])
            for key, record in numbered
        ],
        "annotations": [
            coco_annotation(key, number, item, category_ids)
            for key, (number, item) in enumerate(owned, start=1)
        ],
        "categories": coco_categories(zip(category_ids, class_names, strict=True)),
    }
    json_file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def coco_image(key: int, file_name: str, height: int, width: int) -> dict:
    """Return an entry of `images`."""
    return {"id": key, "file_name": file_name, "width": width, "height": height}


def coco_categories(categories: Iterable[tuple[int, str]]) -> list[dict]:
    """Return the entries of `categories`, of an id and a name each."""
    # A class is its own parent: no name can pass for a placeholder category then.
    return [{"id": key, "name": name, "supercategory": name} for key, name in categories]


def coco_annotation(key: int, image: int, item: dict, category_ids: Sequence[int]) -> dict:
    """Return an entry of `annotations`.

    Args:
        key: its id, from 1.
        image: id of its image.
        item: the annotation of a record, XYXY; a `score` is kept.
        category_ids: the file's category ids by the record's category_id.
    """
    x0, y0, x1, y1 = item["bbox"]
    width, height = x1 - x0, y1 - y0
    annotation = {
        "id": key,
        "image_id": image,
        "category_id": category_ids[item["category_id"]],
        "bbox": [x0, y0, width, height],
        "area": item.get("area", width * height),
        "iscrowd": item["iscrowd"],
    }
    if "score" in item:
        annotation["score"] = item["score"]
    if "segmentation" in item:
        mask = item["segmentation"]
        annotation["area"] = item.get("area", float(run_lengths.area(mask)))
        annotation["segmentation"] = {"size": list(mask["size"]), "counts": _text(mask["counts"])}
    return annotation


def _text(counts: str | bytes) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
