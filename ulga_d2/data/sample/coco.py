"""The content of a COCO JSON file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .layout import Label, SampleImage


def coco_content(
    images: Sequence[SampleImage],
    categories: Sequence[dict[str, object]],
    *,
    category_of: Callable[[Label], int],
    first_id: int = 1,
) -> dict[str, object]:
    """Return the content for one split.

    Args:
        images: of the split.
        categories: as they will stand in the file.
        category_of: returns the id of a label's category.
        first_id: of images and annotations.
    """
    entries, annotations = [], []
    for image_id, image in enumerate(images, start=first_id):
        height, width = image.size
        entries.append(
            {"id": image_id, "file_name": image.path.name, "height": height, "width": width}
        )
        for label in image.labels:
            annotations.append(
                {
                    "id": first_id + len(annotations),
                    "image_id": image_id,
                    "category_id": category_of(label),
                    "bbox": list(label.xywh),
                    "area": label.area,
                    "segmentation": [list(polygon) for polygon in label.outline],
                    "iscrowd": 0,
                }
            )
    return {
        "info": {"description": "written by ulga sample"},
        "licenses": [],
        "categories": list(categories),
        "images": entries,
        "annotations": annotations,
    }
