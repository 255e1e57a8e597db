"""How often an epoch shows each training image: repeats of rare classes, a share of the negatives.

An image with the factor 2.3 is shown 2 or 3 times an epoch, and 2.3 times on average. Which images
get one more is systematic sampling: the fractions of all images, in an order drawn for the epoch,
are laid end to end over the whole run, and the images that hold one of the points u, u + 1, u + 2,
... are taken. So an epoch's first position follows from the seed in closed form, and the lengths of
two epochs differ by at most one image.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from detectron2.data.samplers import RepeatFactorTrainingSampler

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

_UNIT = 2**32  # factors are whole numbers of 1 / _UNIT, so that sums are exact
_START_STREAM, _FRACTION_STREAM = 4, 5


class Repeats:
    """How often an epoch shows each of N images.

    Args:
        factors: (N,) mean number of times an epoch shows each image, 0 or more; 1 or more in all.
        has_boxes: (N,) bool. The numbers of images with and without boxes that an epoch shows each
            differ from their means by less than one.
    """

    def __init__(self, factors: np.ndarray, has_boxes: np.ndarray) -> None:
        units = np.rint(np.asarray(factors, np.float64) * _UNIT).astype(np.int64)
        self.has_boxes = has_boxes
        self.whole, self.fraction = np.divmod(units, _UNIT)
        self.total = sum(units.tolist())

    @property
    def factors(self) -> np.ndarray:
        """(N,) mean number of times an epoch shows each image."""
        return self.whole + self.fraction / _UNIT

    @property
    def epoch_length(self) -> int:
        """Mean number of images in an epoch, rounded."""
        return round(self.total / _UNIT)

    def find(self, seed: int, position: int) -> tuple[int, int]:
        """Return the epoch of a position of the run, and the position's offset in it."""
        epoch = (position * _UNIT + _first_point(seed)) // self.total
        return epoch, position - self.first_position(seed, epoch)

    def first_position(self, seed: int, epoch: int) -> int:
        """Return the position of an epoch's first image."""
        return -((_first_point(seed) - epoch * self.total) // _UNIT)


def _first_point(seed: int) -> int:
    return int(np.random.default_rng([seed, _START_STREAM]).integers(_UNIT))


@lru_cache(maxsize=2)
def epoch_images(repeats: Repeats, seed: int, epoch: int) -> np.ndarray:
    """Return the numbers of the images that an epoch shows, sorted; a function of its arguments."""
    shuffled = np.random.default_rng([seed, _FRACTION_STREAM, epoch]).permutation(
        len(repeats.fraction)
    )
    order = shuffled[np.argsort(repeats.has_boxes[shuffled], kind="stable")]
    before = (epoch * repeats.total - _first_point(seed)) % _UNIT
    ends = before + np.cumsum(repeats.fraction[order])
    points = -(-np.concatenate([[before], ends]) // _UNIT)  # below each end
    count = repeats.whole.copy()
    count[order] += np.diff(points)
    return np.repeat(np.arange(len(count)), count)


def build_repeats(
    cfg: CfgNode, records: list[dict], class_names: tuple[str, ...]
) -> Repeats | None:
    """Return how often an epoch shows each image, as the DATALOADER keys say, and log it.

    Repeat factors are detectron2's own, so they depend on the classes of all training images.

    Args:
        cfg: of the run.
        records: of the training images.
        class_names: by `category_id`.

    Returns:
        None where an epoch shows every image once.
    """
    loader = cfg.DATALOADER
    has_boxes = np.array([bool(record["annotations"]) for record in records])
    factors = np.ones(len(records))
    is_repeated = loader.SAMPLER_TRAIN == "RepeatFactorTrainingSampler"
    if is_repeated:
        found = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            records, loader.REPEAT_THRESHOLD, sqrt=loader.REPEAT_SQRT
        )
        factors = found.double().numpy()
    negatives = int((~has_boxes).sum())
    if loader.NEGATIVE_RATIO is not None and negatives:
        wanted = loader.NEGATIVE_RATIO * factors[has_boxes].sum()
        if wanted > negatives:
            logger.warning(
                "DATALOADER.NEGATIVE_RATIO %g asks for %.1f images without boxes an epoch, and "
                "there are %d: an epoch shows each of them once",
                loader.NEGATIVE_RATIO,
                wanted,
                negatives,
            )
        factors[~has_boxes] = min(1.0, wanted / negatives)
    _log_epoch(factors, has_boxes)
    if is_repeated:
        _log_classes(factors, records, class_names)
    return None if (factors == 1).all() else Repeats(factors, has_boxes)


def _log_epoch(factors: np.ndarray, has_boxes: np.ndarray) -> None:
    logger.info(
        "an epoch shows %s images with boxes (of %d) and %s without (of %d)",
        _mean(factors[has_boxes].sum()),
        has_boxes.sum(),
        _mean(factors[~has_boxes].sum()),
        (~has_boxes).sum(),
    )


def _log_classes(factors: np.ndarray, records: list[dict], class_names: tuple[str, ...]) -> None:
    """Log of how many images each class is in, in the training set and in an epoch."""
    images = np.zeros(len(class_names), np.int64)
    shown = np.zeros(len(class_names))
    for factor, record in zip(factors, records, strict=True):
        present = list({item["category_id"] for item in record["annotations"]})
        images[present] += 1
        shown[present] += factor
    parts = [
        f"{name} {count} -> {_mean(mean)}"
        for name, count, mean in zip(class_names, images, shown, strict=True)
    ]
    logger.info("images with each class, in the training set -> an epoch: %s", ", ".join(parts))


def _mean(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
