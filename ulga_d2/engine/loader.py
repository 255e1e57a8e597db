"""Loaders for training and evaluation, built from the config."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from detectron2.data import MapDataset
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from ..data.mapper import DetectionMapper, training_augmentations
from ..errors import UserError
from ..inference.preprocess import InferenceMapper, build_intensity, build_preprocessing
from .memory import free_shared_memory
from .sampler import PositionDataset, PositionSampler, TilePositionDataset
from .signals import outlive_first_signal
from .workers import DataWorkers

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from .datasets import RunData

logger = logging.getLogger(__name__)

PREFETCH = 2  # batches that each worker holds ready; torch's default
SHARED_MEMORY_USED = 0.9  # of what is free


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
        dataset = PositionDataset(data.train, mapper, cfg.SEED, data.repeats)
    side = cfg.INPUT.SQUARE_SIZE
    masks = 0
    if cfg.MODEL.MASK_ON:
        masks = max(len(record["annotations"]) for record in dataset.records) * side**2
    pixels = 3 * side**2

    def batch_bytes(item_size: int) -> int:
        return sampler.batch_size * (pixels * item_size + masks)

    loader = _build_loader(
        cfg,
        dataset,
        sampler,
        batch_bytes=batch_bytes,
        first=sampler.first_position,
        held=cfg.SOLVER.ACCUMULATION_STEPS,
    )
    return _read(loader, cfg)


def images_per_batch(cfg: CfgNode) -> int:
    """Return how many images a rank evaluates together."""
    return max(1, cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size())


class TestLoader:
    """This rank's part of a test set, in order, in batches; can be read more than once."""

    def __init__(self, cfg: CfgNode, records: list[dict]) -> None:
        self._cfg = cfg
        preprocessing = build_preprocessing(cfg)
        size = images_per_batch(cfg)
        views = [preprocessing.count_views(item["height"], item["width"]) for item in records]
        most = max((sum(views[at : at + size]) for at in range(0, len(views), size)), default=0)
        self._loader = _build_loader(
            cfg,
            MapDataset(records, InferenceMapper(preprocessing)),
            InferenceSampler(len(records)),
            batch_bytes=lambda item_size: most * 3 * cfg.INPUT.SQUARE_SIZE**2 * item_size,
            batch_size=size,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[dict]]:
        return _read(self._loader, self._cfg)


def _build_loader(
    cfg: CfgNode,
    dataset: Dataset,
    sampler: Sampler,
    *,
    batch_bytes: Callable[[int], int],
    batch_size: int = 0,
    first: int = 0,
    held: int = 1,
) -> DataLoader:
    """Build a loader with as many workers as /dev/shm has room for.

    Args:
        cfg: of the run.
        dataset: what is read.
        sampler: its order.
        batch_bytes: bytes of a batch at most, from those of a pixel's value: 1 or 4.
        batch_size: images in a batch; 0 takes the sampler's.
        first: index of an image that shows how large a pixel's value is.
        held: batches that the main process has in use.
    """
    workers = cfg.DATALOADER.NUM_WORKERS
    free = free_shared_memory()
    if workers and free is not None:
        usable = int(free * SHARED_MEMORY_USED) // comm.get_local_size()
        size = batch_bytes(4)
        if fitting_workers(workers, size, usable, held) < workers:
            size = batch_bytes(_item_size(dataset[first]))
        workers = fitting_workers(workers, size, usable, held)
        if workers < cfg.DATALOADER.NUM_WORKERS:
            logger.warning(
                "DATALOADER.NUM_WORKERS %d -> %d: a batch takes %.1f MB of /dev/shm, each worker "
                "holds %d, and %.1f MB are free for this process. Enlarge /dev/shm (docker run "
                "--shm-size=2g or --ipc=host) to read with more workers",
                cfg.DATALOADER.NUM_WORKERS,
                workers,
                size / 1e6,
                PREFETCH,
                usable / 1e6,
            )
    return DataLoader(
        dataset,
        batch_size=batch_size or sampler.batch_size,
        sampler=sampler,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        collate_fn=_pack if workers else list,
        worker_init_fn=outlive_first_signal,
    )


def fitting_workers(workers: int, batch_bytes: int, free: int, held: int = 1) -> int:
    """Return how many workers can hold their batches in so much shared memory; 0 needs none.

    Args:
        workers: at most.
        batch_bytes: of one batch.
        free: bytes of shared memory.
        held: batches that the main process has in use.
    """
    fitting = (free // max(1, batch_bytes) - held) // PREFETCH
    return max(0, min(workers, fitting))


def _item_size(item: dict[str, Any] | UserError) -> int:
    """Return the bytes of a pixel's value; the largest where the image cannot be read."""
    if isinstance(item, UserError):
        return 4  # the loader's reader raises the error
    images = [item["image"]] if "image" in item else [view.image for view in item["views"]]
    return max(image.element_size() for image in images)


def _pack(batch: list[Any]) -> bytes | UserError:
    """Put a batch into shared memory, in the worker.

    torch would do so in a thread of the worker's, which drops the batch where there is no room: the
    main process would wait for it for ever.
    """
    try:
        return bytes(ForkingPickler.dumps(batch))
    except (OSError, RuntimeError) as error:
        return UserError(
            f"a batch finds no room in shared memory ({str(error).splitlines()[0]}): enlarge "
            "/dev/shm (docker run --shm-size=2g or --ipc=host), or lower DATALOADER.NUM_WORKERS or "
            "SOLVER.IMS_PER_BATCH; DATALOADER.NUM_WORKERS 0 needs none"
        )


def _read(loader: DataLoader, cfg: CfgNode) -> Iterator[list[dict]]:
    """Yield a loader's batches.

    Raises:
        UserError: an image that cannot be read.
        DataWorkerError: a worker was killed, or no batch comes within DATALOADER.TIMEOUT.
    """
    if not loader.num_workers:
        yield from map(_raise_user_errors, loader)
        return
    with DataWorkers(loader, timeout=cfg.DATALOADER.TIMEOUT) as batches:
        for packed in batches:
            yield _raise_user_errors(packed)


def _raise_user_errors(batch: Sequence[dict | UserError] | UserError) -> list[dict]:
    for item in batch if isinstance(batch, list) else [batch]:
        if isinstance(item, UserError):
            raise item
    return batch


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
