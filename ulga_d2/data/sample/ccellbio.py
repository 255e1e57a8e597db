"""Write sample micrographs in the layout that we declare for CCellBio: COCO files by split."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from .cells import CLASS_NAMES, DIFFICULTIES, make_cells
from .coco import coco_content
from .layout import (
    DifficultyTable,
    Request,
    SampleImage,
    Written,
    class_number,
    labels_of,
    write_image,
    write_text,
)

SPLITS = ("train", "val", "test")


def write_ccellbio(out: Path, request: Request) -> Written:
    """Write `{train,val,test}/*.png` and `annotations/{train,val,test}.json`, with outlines."""
    table = DifficultyTable()
    images = []
    for number, split, index in request.images(SPLITS):
        scene = make_cells(
            seed=request.seed,
            split_number=number,
            index=index,
            size=request.size,
            difficulty=DIFFICULTIES[request.difficulty],
        )
        path = out / split / f"{split}_{index:05d}.png"
        write_image(path, scene.image)
        table.add(split, path.stem, scene)
        labels = labels_of(scene, with_outlines=True)
        images.append(SampleImage(split, path.stem, path, scene.image.shape[:2], labels))
    table.write(out)
    return Written(images, partial(_annotate, out), lambda image: _file(out, image.split))


def _file(out: Path, split: str) -> Path:
    return out / "annotations" / f"{split}.json"


def _annotate(out: Path, images: list[SampleImage]) -> None:
    categories = [
        {"id": number, "name": name, "supercategory": "cell"}
        for number, name in enumerate(CLASS_NAMES, start=1)
    ]
    for split in SPLITS:
        mine = [image for image in images if image.split == split]
        content = coco_content(
            mine, categories, category_of=partial(class_number, class_names=CLASS_NAMES, first=1)
        )
        write_text(_file(out, split), json.dumps(content))
