"""Write sample photographs as COD10K has them: its second or third release, or the Kaggle copy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..cod10k import SHARES
from ..cod10k_names import SUB_CLASSES
from ..split import split_of
from .camouflage import DATASET_NUMBER, DIFFICULTIES, make_camouflage
from .coco import coco_content
from .layout import (
    DifficultyTable,
    Request,
    SampleImage,
    Written,
    labels_of,
    mask_of,
    write_image,
    write_text,
)
from .scene import Place, Scene
from .tasks import SIMILARITIES

SPLITS = ("train", "val", "test")
PARTS = {"train": "Train", "val": "Train", "test": "Test"}
# The super-classes by the last number of their sub-classes.
SUPER_CLASSES = ((20, "Aquatic"), (49, "Terrestrial"), (66, "Flying"), (68, "Amphibian"))
SUPER_CLASSES += ((69, "Other"),)
# Images without camouflage, for each with; the release has nearly as many.
OTHERS = 1 / 3
# Their names follow three patterns.
OTHER_NAMES = (
    "COD10K-NonCAM-1-Amphibian-{}",
    "COD10K-NonCAM-3-Flying-{}",
    "COD10K-NonCAM-5-Background-5-Vegetation-{}",
)
# Numbers in the names of the official test images start here.
FIRST_OF_TEST = 5001
COLORS = ((230, 60, 50), (60, 200, 80), (70, 90, 230), (230, 200, 60))


@dataclass
class _Tree:
    """Where files go: the flat official folders, or the copy on Kaggle that nests each once more.

    Attributes:
        root: of the sample.
        is_nested: as on Kaggle.
        has_numbers: instance masks are palettes of numbers, as in the third release.
        lines: of the third release's lists, by split.
    """

    root: Path
    is_nested: bool = False
    has_numbers: bool = False
    lines: dict[str, list[str]] = field(default_factory=lambda: {"Train": [], "Test": []})

    def path(self, part: str, kind: str, name: str) -> Path:
        folder = self.root / part
        folder = folder / f"{kind}s" / kind if self.is_nested else folder / kind
        return folder / (f"{name}.jpg" if kind == "Image" else f"{name}.png")


def write_cod10k_v2(out: Path, request: Request) -> Written:
    """Write the second release: masks in `GT_Object`, `GT_Instance` (a colour each), `GT_Edge`."""
    images = _write_images(_Tree(out), request)
    return Written(images, _in_the_masks, lambda image: None)


def write_cod10k_kaggle(out: Path, request: Request) -> Written:
    """Write the second release as it is on Kaggle, `Train/Images/Image` and so on."""
    images = _write_images(_Tree(out, is_nested=True), request)
    return Written(images, _in_the_masks, lambda image: None)


def write_cod10k_v3(out: Path, request: Request) -> Written:
    """Write the third release: instance masks of numbers, a COCO JSON a part, lists of names."""
    tree = _Tree(out, has_numbers=True)
    images = _write_images(tree, request)
    for part, lines in tree.lines.items():
        write_text(out / part / f"CAM-NonCAM_Instance_{part}.txt", "".join(lines))
        for kind in ("CAM", "NonCAM"):
            names = [line.split()[1] for line in lines if f"COD10K-{kind}-" in line]
            text = "".join(f"{name}\n" for name in names)
            write_text(out / "Info" / f"{kind}_{part.lower()}.txt", text)
    return Written(images, partial(_write_json, out), lambda image: _json(out, image.split))


def _in_the_masks(images: list[SampleImage]) -> None:
    """Write nothing more: the masks lie beside the images."""


def _json(out: Path, split: str) -> Path:
    part = PARTS[split]
    return out / part / f"CAM_Instance_{part}.json"


def _write_json(out: Path, images: list[SampleImage]) -> None:
    categories = [{"id": 1, "name": "foreground", "supercategory": "foreground"}]
    for split in ("train", "test"):
        mine = [image for image in images if PARTS[image.split] == PARTS[split]]
        content = coco_content(mine, categories, category_of=lambda label: 1)
        write_text(_json(out, split), json.dumps(content))


def _write_images(tree: _Tree, request: Request) -> list[SampleImage]:
    table = DifficultyTable()
    difficulty = DIFFICULTIES[request.difficulty]
    if request.task:
        similarity = SIMILARITIES[request.task]
        difficulty = replace(difficulty, similarity=(similarity, similarity))
    make = partial(make_camouflage, seed=request.seed, size=request.size, difficulty=difficulty)
    names = {split: list(_names(split, request)) for split in SPLITS}
    images = []
    for number, split, index in request.images(SPLITS):
        name, kind = names[split][index]
        scene = make(split_number=number, index=index, kind=kind)
        _write_scene(tree, split, name, scene)
        table.add(split, name, scene)
        path = tree.path(PARTS[split], "Image", name)
        labels = labels_of(scene, with_outlines=True)
        images.append(SampleImage(split, name, path, scene.image.shape[:2], labels, kind=kind))
    for number, split in enumerate(SPLITS, start=len(SPLITS)):
        for index, name in enumerate(_other_names(split, request)):
            _write_scene(tree, split, name, make(split_number=number, index=index, kind=None))
    table.write(tree.root)
    return images


def _names(split: str, request: Request) -> Iterator[tuple[str, str]]:
    """Yield names of camouflaged images that the reader puts into a split, and super-classes."""
    number = FIRST_OF_TEST if split == "test" else 1
    for index in range(request.counts[split]):
        place = Place(DATASET_NUMBER, request.seed, SPLITS.index(split), index)
        sub_class = place.turn(SUB_CLASSES)[0]
        class_number = SUB_CLASSES.index(sub_class) + 1
        position, name = next(
            (position, name)
            for position, (last, name) in enumerate(SUPER_CLASSES, start=1)
            if class_number <= last
        )
        spelling = sub_class[0].upper() + sub_class[1:]
        pattern = f"COD10K-CAM-{position}-{name}-{class_number}-{spelling}-{{}}"
        number = _next(pattern, number, split)
        yield pattern.format(number), name
        number += 1


def _other_names(split: str, request: Request) -> Iterator[str]:
    number = FIRST_OF_TEST if split == "test" else 1
    for index in range(round(OTHERS * request.counts[split])):
        pattern = OTHER_NAMES[index % len(OTHER_NAMES)]
        number = _next(pattern, number, split)
        yield pattern.format(number)
        number += 1


def _next(pattern: str, number: int, split: str) -> int:
    """Return the next number whose name the reader puts into a split."""
    while split != "test" and split_of(pattern.format(number), SHARES) != split:
        number += 1
    return number


def _write_scene(tree: _Tree, split: str, name: str, scene: Scene) -> None:
    part = PARTS[split]
    write_image(tree.path(part, "Image", name), scene.image)
    numbers = mask_of(scene)
    mask = np.where(numbers > 0, 255, 0).astype(np.uint8)
    write_image(tree.path(part, "GT_Object", name), mask)
    edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    write_image(tree.path(part, "GT_Edge", name), edge)
    colors = np.array([(0, 0, 0), *COLORS], np.uint8)
    path = tree.path(part, "GT_Instance", name)
    if tree.has_numbers:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(numbers).convert("P")
        image.putpalette(colors.ravel().tolist())
        image.save(path)
    else:
        write_image(path, colors[numbers])
    tree.lines[part].append(f"[INFO] {name}.jpg {len(scene.objects)}\n")
