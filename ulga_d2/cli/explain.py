"""`ulga explain`: what a detector, or two side by side, have made of images."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..terminal import log_to_stderr, show
from .settings import add_set_option, set_trailing, words_of

if TYPE_CHECKING:
    import numpy as np

    from ..analysis.view import View
    from ..engine.trained import Trained

logger = logging.getLogger(__name__)

DEPTHS, NUMBERS = "depths", "explain.json"


def prepare(words: Sequence[str]) -> list[str]:
    """Take KEY VALUE before and behind flags, as training does."""
    return set_trailing(words)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "explain",
        description="Draw what a detector makes of images, as it sees them at test time: "
        "detections, concept maps, attention or sampled points, features, effective receptive "
        "fields (IMAGE.png); over depth, the similarity of tokens, the maps of concepts and "
        "CKA (depths.png). The numbers go to explain.json.",
        epilog="example: ulga explain configs/brain_tumor_swin_baseline.yaml baseline.pth "
        "slice.jpg --beside configs/brain_tumor_swin_ulga.yaml ulga.pth",
    )
    parser.add_argument("config", metavar="CONFIG", help="a config file, or a run's config.yaml")
    parser.add_argument("weights", metavar="WEIGHTS", help="its checkpoint, or zoo://NAME")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="any kind that training reads")
    parser.add_argument(
        "--beside", nargs=2, metavar=("CONFIG", "WEIGHTS"), help="another detector, drawn at right"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("explained"), help="folder (default: explained)"
    )
    parser.add_argument(
        "--score", type=float, default=0.3, help="least of a shown detection (default 0.3)"
    )
    add_set_option(parser)


def run(args: argparse.Namespace) -> int:
    """Write the figures and the numbers."""
    from ..data.progress import with_progress
    from ..engine.trained import open_trained
    from ..evaluation.atomic import write_atomically

    if not 0 <= args.score <= 1:
        raise UserError(f"--score is {args.score}; give 0 to 1")
    log_to_stderr()
    pairs = [(args.config, args.weights), *([args.beside] if args.beside else [])]
    detectors = [open_trained(*pair, words_of(args), args.images) for pair in pairs]
    names = _told_apart(detectors)
    _make_folder(args.out)
    numbers: list[dict[str, Any]] = []
    places = list(zip(args.images, _names_of(args.images), strict=True))
    for place, (path, name) in enumerate(with_progress(places, "images", logger)):
        views = [_look(d, n, place, args.score) for d, n in zip(detectors, names, strict=True)]
        numbers.append({"image": path} | _draw_image(args.out / f"{name}.png", path, views))
    depths = _draw_depths(args.out / f"{DEPTHS}.png", detectors, names)
    content = {"score": args.score, "images": numbers, "depths": depths}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(str(args.out / NUMBERS), f"{text}\n".encode())
    show(args.out / NUMBERS)
    return 0


def _names_of(images: Sequence[str]) -> list[str]:
    """Return a name for each image's figure: its stem, numbered where another has it."""
    names: list[str] = []
    for image in images:
        stem, number = Path(image).stem, 1
        while (name := stem if number == 1 else f"{stem}_{number}") in (*names, DEPTHS):
            number += 1
        names.append(name)
    return names


def _told_apart(detectors: Sequence[Trained]) -> list[str]:
    """Return the detectors' names, with their weights where the names alone are the same."""
    names = [detector.name for detector in detectors]
    if len(set(names)) == len(names):
        return names
    files = [Path(detector.weights) for detector in detectors]
    if len({file.name for file in files}) == len(files):
        return [f"{name} ({file.name})" for name, file in zip(names, files, strict=True)]
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


def _look(detector: Trained, name: str, place: int, score: float) -> View:
    from ..analysis.look import look

    return look(
        detector.model,
        detector.inputs[place],
        name=name,
        class_names=detector.class_names,
        score=score,
    )


def _draw_image(out: Path, path: str, views: Sequence[View]) -> dict[str, Any]:
    from ..analysis.sheet import draw_views
    from ..analysis.shown import view_as_dict

    _write_picture(out, draw_views(views, Path(path).name))
    for view in views:
        count = len(view.boxes)
        logger.info("%s: %s finds %s", path, view.name, count or "nothing that is shown")
    return {"detectors": [view_as_dict(view) for view in views]}


def _draw_depths(out: Path, detectors: Sequence[Trained], names: Sequence[str]) -> dict[str, Any]:
    from ..analysis.compare_depths import depths_of
    from ..analysis.depth_sheet import agreements_of, depths_as_dict, draw_depths

    depths = {
        name: depths_of(detector.model, detector.inputs)
        for name, detector in zip(names, detectors, strict=True)
    }
    agreements = agreements_of(depths)
    count = len(detectors[0].inputs)
    images = "1 image" if count == 1 else f"mean of {count} images"
    _write_picture(out, draw_depths(depths, agreements, images))
    return depths_as_dict(depths, agreements)


def _write_picture(out: Path, picture: np.ndarray) -> None:
    from ..drawing.grid import png
    from ..evaluation.atomic import write_atomically

    write_atomically(str(out), png(picture))
    show(out, flush=True)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be made ({error.strerror}); give another") from None
