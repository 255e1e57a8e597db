"""Position-addressed sampling: which image stands where in the run, and how it is augmented.

Position p counts the images of a run from 0, over all ranks and epochs. The image at p and its
augmentation depend on (seed, p) alone: not on the worker that reads it, on the number of workers or
ranks, or on what came before. So a resumed run sees exactly what the uninterrupted one would have.
With INPUT.TILE, tiles take the place of images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from ..data.tiles import TrainingTiles
from ..errors import UserError
from .repeats import Repeats, epoch_images

# 2 is the stream of the steps, 4 and 5 are those of repeats.py.
_ORDER_STREAM, _AUGMENTATION_STREAM, _EMPTY_TILES_STREAM = 0, 1, 3


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    """Return the order of the images in an epoch: a permutation of `range(length)`."""
    generator = np.random.default_rng([seed, _ORDER_STREAM, epoch])
    return generator.permutation(length)


@lru_cache(maxsize=2)
def epoch_draw(seed: int, epoch: int, length: int, count: int) -> np.ndarray:
    """Return the empty tiles of an epoch: `count` different numbers of `range(length)`."""
    generator = np.random.default_rng([seed, _EMPTY_TILES_STREAM, epoch])
    return generator.permutation(length)[:count]


@contextlib.contextmanager
def numpy_seeded(*key: int) -> Iterator[None]:
    """Seed numpy's global generator (detectron2's augmentations draw from it), then put it back."""
    state = np.random.get_state()
    np.random.seed(np.random.SeedSequence(key).generate_state(4))
    try:
        yield
    finally:
        np.random.set_state(state)


class PositionDataset(Dataset):
    """The images of a run, addressed by position.

    Args:
        records: of the images.
        mapper: makes a training example of a record.
        seed: of the run.
        repeats: how often an epoch shows each image; None for once.
    """

    def __init__(
        self,
        records: list[dict],
        mapper: Callable[[dict], Any],
        seed: int,
        repeats: Repeats | None = None,
    ) -> None:
        self.records = records
        self.mapper = mapper
        self.seed = seed
        self.repeats = repeats

    def __getitem__(self, position: int) -> Any:
        with numpy_seeded(self.seed, _AUGMENTATION_STREAM, position):
            return self.mapper(self.record_at(position))

    def record_at(self, position: int) -> dict:
        """Return the record at a position; it depends on (seed, position) alone."""
        if self.repeats is None:
            epoch, offset = divmod(position, len(self.records))
            return self.records[epoch_order(self.seed, epoch, len(self.records))[offset]]
        epoch, offset = self.repeats.find(self.seed, position)
        images = epoch_images(self.repeats, self.seed, epoch)
        return self.records[images[epoch_order(self.seed, epoch, len(images))[offset]]]


class TilePositionDataset(PositionDataset):
    """The tiles of a run, addressed by position.

    An epoch is a permutation of all tiles with targets and of the empty tiles drawn for it.
    """

    def __init__(self, tiles: TrainingTiles, mapper: Callable[[dict], Any], seed: int) -> None:
        super().__init__(tiles.records, mapper, seed)
        self.tiles = tiles

    def record_at(self, position: int) -> dict:
        """Return the tile's record at a position; it depends on (seed, position) alone."""
        tiles = self.tiles
        epoch, offset = divmod(position, tiles.epoch_length)
        index = epoch_order(self.seed, epoch, tiles.epoch_length)[offset]
        if index < len(tiles.with_targets):
            return tiles.record(tiles.with_targets[index])
        drawn = epoch_draw(self.seed, epoch, len(tiles.empty), tiles.empty_per_epoch)
        return tiles.record(tiles.empty[drawn[index - len(tiles.with_targets)]])


def micro_batch_size(total_batch: int, accumulation_steps: int, world_size: int) -> int:
    """Return the images of one rank's micro-batch.

    Raises:
        UserError: if a step's images cannot be cut into equal parts.
    """
    parts = accumulation_steps * world_size
    if total_batch % parts:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH ({total_batch}) must be a multiple of "
            f"SOLVER.ACCUMULATION_STEPS ({accumulation_steps}) x number of processes "
            f"({world_size}) = {parts}"
        )
    return total_batch // parts


class PositionSampler(Sampler):
    """Positions of one rank's images, from a given iteration to the end of the run.

    The images of iteration i are the positions [i * total_batch, (i + 1) * total_batch). They
    are cut into `accumulation_steps` micro-batches, and each of these into one part a rank: the
    same images make a step, whatever the number of ranks and micro-batches.
    """

    def __init__(
        self,
        *,
        total_batch: int,
        accumulation_steps: int = 1,
        rank: int = 0,
        world_size: int = 1,
        start_iter: int = 0,
        max_iter: int,
    ) -> None:
        self.total_batch = total_batch
        self.batch_size = micro_batch_size(total_batch, accumulation_steps, world_size)
        self.accumulation_steps = accumulation_steps
        self.rank = rank
        self.world_size = world_size
        self.iterations = range(start_iter, max_iter)

    @property
    def first_position(self) -> int:
        """The position of the first image; 0 where there is none left."""
        return next(iter(self), 0)

    def __len__(self) -> int:
        return len(self.iterations) * self.accumulation_steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        for iteration in self.iterations:
            for micro in range(self.accumulation_steps):
                part = micro * self.world_size + self.rank
                first = iteration * self.total_batch + part * self.batch_size
                yield from range(first, first + self.batch_size)
