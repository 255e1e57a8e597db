"""Loaders for training and evaluation, built from the config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from detectron2.data import MapDataset
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader

from ..data.mapper import DetectionMapper, training_augmentations
from ..errors import UserError
from ..inference.preprocess import InferenceMapper, build_intensity, build_preprocessing
from .sampler import PositionDataset, PositionSampler, TilePositionDataset
from .signals import outlive_first_signal

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from .datasets import RunData


def build_mapper(cfg: CfgNode) -> Callable[[dict], dict | UserError]:
    """Build the mapper of training that the INPUT keys describe."""
    mapper = DetectionMapper(
        training_augmentations(cfg.INPUT.SQUARE_SIZE, cfg.INPUT.SCALE_RANGE, cfg.INPUT.RANDOM_FLIP),
        with_masks=cfg.MODEL.MASK_ON,
        intensity=build_intensity(cfg),
        min_visible=cfg.INPUT.TILE.MIN_VISIBLE if cfg.INPUT.TILE.SIDE else None,
    )
    return _ErrorsAsValues(mapper)


def build_train_loader(cfg: CfgNode, data: RunData, start_iter: int) -> Iterator[list[dict]]:
    """Return this rank's micro-batches from iteration `start_iter` to the end of the run."""
    sampler = PositionSampler(
        total_batch=cfg.SOLVER.IMS_PER_BATCH,
        accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
        start_iter=start_iter,
        max_iter=cfg.SOLVER.MAX_ITER,
    )
    mapper = build_mapper(cfg)
    if data.tiles:
        dataset = TilePositionDataset(data.tiles, mapper, cfg.SEED)
    else:
        dataset = PositionDataset(data.train, mapper, cfg.SEED)
    return _raise_user_errors(
        DataLoader(
            dataset,
            batch_size=sampler.batch_size,
            sampler=sampler,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            collate_fn=list,
            worker_init_fn=outlive_first_signal,
        )
    )


def images_per_batch(cfg: CfgNode) -> int:
    """Return how many images a rank evaluates together."""
    return max(1, cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size())


class TestLoader:
    """This rank's part of a test set, in order, in batches; can be read more than once."""

    def __init__(self, cfg: CfgNode, records: list[dict]) -> None:
        self._loader = DataLoader(
            MapDataset(records, InferenceMapper(build_preprocessing(cfg))),
            batch_size=images_per_batch(cfg),
            sampler=InferenceSampler(len(records)),
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            collate_fn=list,
            worker_init_fn=outlive_first_signal,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[dict]]:
        return _raise_user_errors(self._loader)


class _ErrorsAsValues:
    """A mapper that returns a `UserError` instead of raising it.

    So it crosses a worker's border as one message and not as a traceback; the loader's reader
    raises it.
    """

    def __init__(self, mapper: DetectionMapper) -> None:
        self.mapper = mapper

    def __call__(self, record: dict) -> dict | UserError:
        try:
            return self.mapper(record)
        except UserError as error:
            return error


def _raise_user_errors(batches: Iterable[list[dict | UserError]]) -> Iterator[list[dict]]:
    for batch in batches:
        for item in batch:
            if isinstance(item, UserError):
                raise item
        yield batch
