"""Write a COCO JSON file of boxes and masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    numbered = list(enumerate(records, start=1))
    owned = [(number, item) for number, record in numbered for item in record["annotations"]]
    content = {
        "info": {},
        "licenses": [],
        "images": [_image(key, record, names) for key, record in numbered],
        "annotations": [
            _annotation(key, number, item) for key, (number, item) in enumerate(owned, start=1)
        ],
        # A class is its own parent: no name can pass for a placeholder category then.
        "categories": [
            {"id": number, "name": name, "supercategory": name}
            for number, name in enumerate(class_names, start=1)
        ],
    }
    json_file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _image(key: int, record: dict, names: Mapping[str, str]) -> dict:
    return {
        "id": key,
        "file_name": names[record["file_name"]],
        "width": record["width"],
        "height": record["height"],
    }


def _annotation(key: int, image: int, item: dict) -> dict:
    x0, y0, x1, y1 = item["bbox"]
    width, height = x1 - x0, y1 - y0
    annotation = {
        "id": key,
        "image_id": image,
        "category_id": item["category_id"] + 1,
        "bbox": [x0, y0, width, height],
        "area": item.get("area", width * height),
        "iscrowd": item["iscrowd"],
    }
    if "segmentation" in item:
        mask = item["segmentation"]
        annotation["area"] = item.get("area", float(run_lengths.area(mask)))
        annotation["segmentation"] = {"size": list(mask["size"]), "counts": _text(mask["counts"])}
    return annotation


def _text(counts: str | bytes) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
