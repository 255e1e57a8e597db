"""Loaders for training and evaluation, built from the config."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from ..data.mapper import DetectionMapper, test_augmentations, training_augmentations
from ..errors import UserError
from .sampler import PositionDataset, PositionSampler

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def build_mapper(cfg: CfgNode, *, is_train: bool) -> DetectionMapper:
    """Build the mapper with the augmentations that the INPUT keys describe."""
    if is_train:
        augmentations = training_augmentations(
            cfg.INPUT.SQUARE_SIZE, cfg.INPUT.SCALE_RANGE, cfg.INPUT.RANDOM_FLIP
        )
    else:
        augmentations = test_augmentations(cfg.INPUT.SQUARE_SIZE)
    return DetectionMapper(augmentations, is_train=is_train)


def build_train_loader(cfg: CfgNode, records: list[dict], start_iter: int) -> Iterator[list[dict]]:
    """Return this rank's micro-batches from iteration `start_iter` to the end of the run."""
    sampler = PositionSampler(
        total_batch=cfg.SOLVER.IMS_PER_BATCH,
        accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
        start_iter=start_iter,
        max_iter=cfg.SOLVER.MAX_ITER,
    )
    dataset = PositionDataset(records, build_mapper(cfg, is_train=True), cfg.SEED)
    return _raise_user_errors(
        DataLoader(
            dataset,
            batch_size=sampler.batch_size,
            sampler=sampler,
            num_workers=_num_workers(cfg),
            collate_fn=list,
        )
    )


class TestLoader:
    """This rank's part of a test set, in order, in batches; can be read more than once."""

    def __init__(self, cfg: CfgNode, records: list[dict]) -> None:
        self._loader = DataLoader(
            _MappedRecords(records, build_mapper(cfg, is_train=False)),
            batch_size=max(1, cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()),
            sampler=InferenceSampler(len(records)),
            num_workers=_num_workers(cfg),
            collate_fn=list,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[dict]]:
        return _raise_user_errors(self._loader)


class _MappedRecords(Dataset):
    def __init__(self, records: list[dict], mapper: DetectionMapper) -> None:
        self.records = records
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict | UserError:
        try:
            return self.mapper(self.records[index])
        except UserError as error:
            return error


def _num_workers(cfg: CfgNode) -> int:
    """Return DATALOADER.NUM_WORKERS, at most half the cores: the other half is the network's."""
    return min(cfg.DATALOADER.NUM_WORKERS, (os.cpu_count() or 1) // 2)


def _raise_user_errors(batches: Iterable[list[dict | UserError]]) -> Iterator[list[dict]]:
    for batch in batches:
        for item in batch:
            if isinstance(item, UserError):
                raise item
        yield batch
