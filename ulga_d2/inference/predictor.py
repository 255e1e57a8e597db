"""Run a trained detector on new images."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from detectron2.structures import Instances

from ..errors import UserError
from .detections import Category, Detections
from .detector import Detector, to_raw
from .finite import ADVICE, NOT_FINITE
from .inputs import INPUTS, ImageInput, check_value_range, is_one_image, open_input
from .load import load_model
from .model import check_per_class, scoring_head
from .nms import build_suppression
from .preprocess import build_preprocessing
from .views import View

BATCH_SIZE = 8
WORKERS = 2  # threads that read images


@dataclass(frozen=True)
class Options:
    """What can be chosen when a trained detector is used.

    Attributes:
        device: "auto" takes CUDA where there is one.
        batch_size: views that go through the network together.
        score: the lowest score of a detection, "best_f1" for the threshold that was stored with
            the run, None for the model's own.
        max_detections: of an image; None for the model's own, which holds for each tile where
            `tile` is given.
        half_precision: compute in bfloat16; refused where the device is slower with it.
        tile: side of a tile in pixels of the original image; 0 shows images whole; None does what
            the model was trained with (INPUT.TILE).
        overlap: of neighboring tiles, as a share of their side; None for the model's own.
        tile_whole: beside tiles, show the whole image, too; None for the model's own.
        tta: test-time augmentation with the TEST.AUG keys; None for the model's own.
        nms: "hard", "linear" or "gaussian" (the last two are soft-NMS); None for the model's own.
        class_agnostic: boxes of different classes suppress each other; None for the model's own.
        class_scores: lowest score of each class, beside `score`; None for the model's own.
        workers: threads that read images ahead.
        overrides: config keys and values that change the detector, such as
            {"TEST.AUG.MIN_SIZES": (400, 512)}.
    """

    device: str = "auto"
    batch_size: int = BATCH_SIZE
    score: float | Literal["best_f1"] | None = None
    max_detections: int | None = None
    half_precision: bool = False
    tile: int | None = None
    overlap: float | None = None
    tile_whole: bool | None = None
    tta: bool | None = None
    nms: str | None = None
    class_agnostic: bool | None = None
    class_scores: Sequence[float] | None = None
    workers: int = WORKERS
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks = (
            ("batch_size", _is_count(self.batch_size), "1 or more"),
            (
                "score",
                self.score in (None, "best_f1") or _is_number(self.score, 0, 1),
                "0 to 1, 'best_f1' or None",
            ),
            (
                "max_detections",
                self.max_detections is None or _is_count(self.max_detections),
                "1 or more, or None",
            ),
            (
                "tile",
                self.tile in (None, 0) or _is_count(self.tile, 32),
                "32 or more pixels, or 0 for none",
            ),
            ("overlap", self.overlap is None or _is_number(self.overlap, 0, 0.9), "0 to 0.9"),
            ("workers", _is_count(self.workers), "1 or more"),
        )
        for name, is_valid, valid in checks:
            if not is_valid:
                raise UserError(f"{name} is {getattr(self, name)!r}; give {valid}")

    def needs_tiles(self) -> bool:
        """Tell whether an option is given that means nothing without tiles."""
        return self.overlap is not None or bool(self.tile_whole)

    def config_changes(self) -> dict[str, Any]:
        """Return the config keys that these options set, with their values."""
        keys = {
            "TEST.DETECTIONS_PER_IMAGE": self.max_detections,
            "TEST.AUG.ENABLED": self.tta,
            "INPUT.TILE.SIDE": self.tile,
            "INPUT.TILE.OVERLAP": self.overlap,
            "INPUT.TILE.WHOLE_IMAGE": self.tile_whole,
            "TEST.NMS.METHOD": self.nms,
            "TEST.NMS.CLASS_AGNOSTIC": self.class_agnostic,
            "TEST.CLASS_SCORE_THRESH": None if self.class_scores is None else [*self.class_scores],
        }
        chosen = {key: value for key, value in keys.items() if value is not None}
        return {**self.overrides, **chosen}


class Prediction(NamedTuple):
    """What became of one image of a stream.

    Attributes:
        number: of the input that it belongs to, from 0.
        source: name of the image.
        detections: on it; None where it could not be read.
        fault: why it could not be read; "" where it could.
        image: its pixels, (H, W, 3) RGB in 0..255, where they were asked for.
    """

    number: int
    source: str
    detections: Detections | None
    fault: str = ""
    image: np.ndarray | None = None


class _Prepared(NamedTuple):
    source: ImageInput
    size: tuple[int, int]
    views: list[View]
    image: np.ndarray | None


class Predictor:
    """Detect objects on images of any kind.

    >>> predictor = Predictor("output/brain_tumor_swin_ulga_nano")
    >>> for result in predictor(["a.png", "b.dcm"]):
    ...     print(result.boxes, result.scores, result.class_names)

    The detections are those of `--eval-only` on the same file. Calls may come from several threads.

    Args:
        source: a run folder, a checkpoint (.pth), shared weights (.safetensors), zoo://NAME, or
            with `weights` a config file. A checkpoint holds config, class names and averaged
            weights, so it is enough.
        weights: the checkpoint of a config.
        options: fields of `Options`, such as `score=0.5`.

    Attributes:
        loaded: the detector, its config and its classes.
        options: as they were given.
        preprocessing: how images become views.
        score_threshold: lowest score of a detection.

    Raises:
        UserError: a missing or damaged file, options that do not fit, a device that is not there.
    """

    def __init__(
        self, source: str | Path, weights: str | Path | None = None, **options: Any
    ) -> None:
        self.options = _options(options)
        self.loaded = load_model(
            source,
            weights,
            device=str(self.options.device),
            options=self.options.config_changes(),
            half_precision=self.options.half_precision,
        )
        self.preprocessing = build_preprocessing(self.loaded.cfg)
        if self.preprocessing.tiling is None and self.options.needs_tiles():
            raise UserError("overlap and tile_whole belong to tiles; give tile, too")
        self._detector = build_detector(
            self.loaded.cfg,
            self.loaded.model,
            batch_size=self.options.batch_size,
            half_precision=self.options.half_precision,
            is_limited=self.options.max_detections is not None or not self.options.tile,
        )
        self.score_threshold = self._choose_threshold()

    @property
    def max_detections(self) -> int | None:
        """Most detections of an image; None where the model's own limit holds for each tile."""
        return self._detector.max_detections

    @property
    def categories(self) -> tuple[Category, ...]:
        """The classes of the detector."""
        return self.loaded.categories

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, by class id."""
        return tuple(category.name for category in self.categories)

    def __call__(
        self, inputs: Any, *, value_range: tuple[float, float] | None = None
    ) -> Detections | Iterator[Detections]:
        """Detect on one image, or lazily and in order on an iterable of any length.

        Args:
            inputs: a path, PIL image, numpy array ((H, W) or (H, W, 3) RGB), torch tensor ((H, W)
                or (3, H, W) RGB), pydicom dataset, or an iterable of them. A file of several
                frames gives a result a frame, and so belongs into a list.
            value_range: which values of an array are black and white; 8 and 16 bits have a range
                of their own, floating-point numbers do not.

        Returns:
            `Detections` of one image, or an iterator over those of many.

        Raises:
            UserError: an image that cannot be read; from the iterator when its turn comes.
        """
        check_value_range(value_range)
        if not is_one_image(inputs):
            return self._iterate(_iterator(inputs), value_range)
        first, *others = islice(self._iterate([inputs], value_range), 2)
        if others:
            is_path = isinstance(inputs, (str, os.PathLike))
            name = os.fsdecode(inputs) if is_path else f"the {type(inputs).__name__}"
            raise UserError(
                f"{name} has several frames; put it into a list to get a result a frame"
            )
        return first

    def _iterate(
        self, inputs: Iterable[Any], value_range: tuple[float, float] | None
    ) -> Iterator[Detections]:
        for prediction in self.stream(inputs, value_range=value_range):
            if prediction.detections is None:
                raise UserError(prediction.fault)
            yield prediction.detections

    def stream(
        self,
        inputs: Iterable[Any],
        *,
        value_range: tuple[float, float] | None = None,
        every: int = 1,
        with_images: bool = False,
    ) -> Iterator[Prediction]:
        """Detect lazily and in order; an image that cannot be read is reported, not raised.

        Images go through the network in batches of `images_per_batch` consecutive inputs, whatever
        happened to earlier ones: the batch of an image follows from its number.

        Args:
            inputs: as in a call.
            value_range: as in a call.
            every: of a video, every so many-th frame.
            with_images: give the pixels of each image, too.
        """
        read = _Reader(self, value_range, every, with_images)
        batch: list[tuple[int, _Prepared | Prediction]] = []
        size = self.images_per_batch
        for number, item in read.ahead(inputs):
            if batch and (number // size != batch[0][0] // size or len(batch) == size):
                yield from self._detect(batch)
                batch = []
            batch.append((number, item))
        yield from self._detect(batch)

    @property
    def images_per_batch(self) -> int:
        """Images that are held together; those that are cut into tiles fill batches alone."""
        return 1 if self.preprocessing.tiling else self.options.batch_size

    def _detect(self, batch: list[tuple[int, _Prepared | Prediction]]) -> Iterator[Prediction]:
        prepared = [item for _, item in batch if isinstance(item, _Prepared)]
        inputs = [
            {"views": item.views, "height": item.size[0], "width": item.size[1]}
            for item in prepared
        ]
        with torch.inference_mode():
            outputs = iter(self._detector(inputs) if inputs else [])
        for number, item in batch:
            if isinstance(item, Prediction):
                yield item
                continue
            output = next(outputs)
            if "not_finite" in output:
                name, count = item.source.source, output["not_finite"]
                fault = f"image {name}: {count:,} {NOT_FINITE}; {ADVICE}"
                yield Prediction(number, name, None, fault)
                continue
            detections = self._to_detections(output["instances"], item)
            yield Prediction(number, item.source.source, detections, image=item.image)

    def _to_detections(self, instances: Instances, item: _Prepared) -> Detections:
        height, width = item.size
        whole = View(torch.empty(0), (0, 0, width, height))
        found = to_raw(instances, whole, item.size)
        detections = Detections(
            boxes=found.boxes.numpy(),
            scores=found.scores.numpy(),
            class_ids=found.classes.numpy(),
            categories=self.categories,
            image_size=item.size,
            source=item.source.source,
            masks=found.masks,
            read_image=item.source.read,
        )
        is_own = self.options.score is None
        return detections if is_own else detections.filter(self.score_threshold)

    def _choose_threshold(self) -> float:
        """Return the lowest score, and have the model keep detections down to it."""
        cfg = self.loaded.cfg
        own = cfg.MODEL[scoring_head(cfg)].SCORE_THRESH_TEST
        score = self.options.score
        if score is None:
            return own
        if score == "best_f1":
            score = self.loaded.best_f1
            if score is None:
                raise UserError(
                    f"{self.loaded.source} has no stored threshold for best_f1; evaluate its run "
                    "with this version, or give a score from 0 to 1"
                )
        if score < own:
            _lower_threshold(self.loaded.model, score)
            self._detector.score_threshold = score
        return score


def build_detector(
    cfg: Any,
    model: torch.nn.Module,
    *,
    batch_size: int | None = None,
    half_precision: bool = False,
    is_limited: bool = True,
) -> Detector:
    """Put a detectron2 model behind views, with the thresholds of its config.

    Args:
        cfg: of the model.
        model: a detectron2 model.
        batch_size: views that go through the network together; None takes all of one call.
        half_precision: compute in bfloat16.
        is_limited: TEST.DETECTIONS_PER_IMAGE holds for a whole image; else for each of its tiles.
    """
    head = cfg.MODEL[scoring_head(cfg)]
    check_per_class(cfg, "TEST.CLASS_SCORE_THRESH", cfg.DATASETS.CLASS_NAMES)
    return Detector(
        model,
        batch_size=batch_size,
        nms_threshold=head.NMS_THRESH_TEST,
        max_detections=cfg.TEST.DETECTIONS_PER_IMAGE if is_limited else None,
        score_threshold=head.SCORE_THRESH_TEST,
        half_precision=half_precision,
        suppression=build_suppression(cfg),
        class_thresholds=cfg.TEST.CLASS_SCORE_THRESH,
    )


def _options(given: dict[str, Any]) -> Options:
    known = list(Options.__dataclass_fields__)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UserError(f"unknown options {unknown}; there are {known}")
    return Options(**given)


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= least


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and low <= value <= high


def _iterator(inputs: Any) -> Iterator[Any]:
    kind = type(inputs).__name__
    fault = UserError(f"images cannot be a {kind}; give {INPUTS}, or an iterable of them")
    if isinstance(inputs, (bytes, bytearray, Mapping, Set)):
        raise fault
    try:
        return iter(inputs)
    except TypeError:
        raise fault from None


def _lower_threshold(model: torch.nn.Module, score: float) -> None:
    """Have a model keep detections down to a score."""
    owner = model if hasattr(model, "test_score_thresh") else model.roi_heads.box_predictor
    for part in owner if isinstance(owner, torch.nn.ModuleList) else [owner]:  # of a cascade
        part.test_score_thresh = score


class _Reader:
    """Reads and prepares images ahead of the network, on threads."""

    def __init__(
        self,
        predictor: Predictor,
        value_range: tuple[float, float] | None,
        every: int,
        with_images: bool,
    ) -> None:
        self._preprocessing = predictor.preprocessing
        self._value_range = value_range
        self._every = every
        self._with_images = with_images
        self._workers = predictor.options.workers
        self._ahead = predictor.options.workers + 2 * predictor.images_per_batch

    def ahead(self, inputs: Iterable[Any]) -> Iterator[tuple[int, _Prepared | Prediction]]:
        """Yield each image with the number of its input, in order, a few read ahead."""
        waiting: deque[tuple[int, Future]] = deque()
        with ThreadPoolExecutor(self._workers) as pool:
            try:
                for number, task in self._tasks(inputs):
                    waiting.append((number, pool.submit(task)))
                    if len(waiting) >= self._ahead:
                        first, future = waiting.popleft()
                        yield first, future.result()
                while waiting:
                    first, future = waiting.popleft()
                    yield first, future.result()
            finally:
                for _, future in waiting:
                    future.cancel()

    def _tasks(
        self, inputs: Iterable[Any]
    ) -> Iterator[tuple[int, Callable[[], _Prepared | Prediction]]]:
        for number, item in enumerate(inputs):
            is_path = isinstance(item, (str, os.PathLike))
            source = os.fsdecode(item) if is_path else type(item).__name__
            try:
                for image in open_input(
                    item, self._preprocessing, value_range=self._value_range, every=self._every
                ):
                    yield number, lambda image=image, number=number: self._prepare(number, image)
            except UserError as error:
                fault = Prediction(number, source, None, str(error))
                yield number, lambda fault=fault: fault

    def _prepare(self, number: int, source: ImageInput) -> _Prepared | Prediction:
        try:
            image = source.read()
        except UserError as error:
            return Prediction(number, source.source, None, str(error))
        views = self._preprocessing.views(image)
        kept = image if self._with_images else None
        return _Prepared(source, image.shape[:2], views, kept)
