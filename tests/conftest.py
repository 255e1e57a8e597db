"""Shared fixtures: a tiny sample data set, and a config that trains on it in a second."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from ulga_d2.data.builtin import register_all
from ulga_d2.data.sample import write_sample
from ulga_d2.folder_lock import release_locks

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "configs"
NO_NETWORK = Path(__file__).parent / "no_network"

TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.ULGA.SWIN.EMBED_DIM": "16",
    "MODEL.ULGA.SWIN.DEPTHS": "[1, 1, 1, 1]",
    "MODEL.ULGA.SWIN.NUM_HEADS": "[1, 1, 2, 2]",
    "MODEL.ULGA.CAT.NUM_CONCEPTS": "4",
    "MODEL.FPN.OUT_CHANNELS": "32",
    "MODEL.RETINANET.NUM_CONVS": "1",
    "INPUT.SQUARE_SIZE": "64",
    "SOLVER.NUM_EPOCHS": "0",
    "SOLVER.MAX_ITER": "4",
    "SOLVER.IMS_PER_BATCH": "2",
    "SOLVER.CHECKPOINT_PERIOD": "2",
    "SOLVER.AMP.ENABLED": "False",
    "DATALOADER.NUM_WORKERS": "0",
}


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuse what would leave this machine, here and in every Python that a test starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(NO_NETWORK), prepend=os.pathsep)
        patch.syspath_prepend(NO_NETWORK)
        patch.delitem(sys.modules, "sitecustomize", raising=False)
        importlib.import_module("sitecustomize")
        yield


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors run faster on one thread, and sums do not depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_log_handlers() -> Iterator[None]:
    """Remove what runs and commands before have set up: it writes to an stderr that is closed."""
    _remove_log_handlers()
    yield
    _remove_log_handlers()


def _remove_log_handlers() -> None:
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler:  # pytest's own are of other kinds
            root.removeHandler(handler)
    for name in ("ulga_d2", "detectron2", "fvcore"):  # see engine/run_folder.py
        logger = logging.getLogger(name)
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)
            handler.close()


@pytest.fixture(autouse=True)
def own_locks() -> Iterator[None]:
    """Release what a test has locked and left: another test's process may use the folder."""
    yield
    release_locks()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is remembered about files out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def sample_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root that holds a tiny `brain_tumor` sample."""
    root = tmp_path_factory.mktemp("datasets")
    write_sample(
        "brain_tumor",
        root / "brain_tumor",
        num_train=10,
        num_val=6,
        size=64,
        difficulty="easy",
        seed=0,
    )
    return root


@pytest.fixture
def sample_data(sample_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the data root at the tiny sample."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(sample_root))
    return sample_root


@pytest.fixture
def catalogs() -> Iterator[None]:
    """Give detectron2's catalogs back as they were; metadata begin empty."""
    register_all()
    datasets, metadata = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    MetadataCatalog.data.clear()
    yield
    DatasetCatalog.data = datasets
    MetadataCatalog.data = metadata


def tiny_options(output_dir: Path, **changes: object) -> list[str]:
    """Return the overrides of a tiny run; `changes` are keys with `__` for the dots."""
    options = {**TINY, "OUTPUT_DIR": str(output_dir)}
    options.update({key.replace("__", "."): str(value) for key, value in changes.items()})
    return [word for pair in options.items() for word in pair]


def tiny_args(
    output_dir: Path,
    *,
    leaf: str = "brain_tumor_swin_ulga_nano",
    resume: bool = False,
    eval_only: bool = False,
    num_gpus: int = 1,
    **changes: object,
) -> argparse.Namespace:
    """Return parsed arguments of `train_net.py` for a tiny run."""
    return argparse.Namespace(
        config_file=str(CONFIGS / f"{leaf}.yaml"),
        resume=resume,
        eval_only=eval_only,
        num_gpus=num_gpus,
        num_machines=1,
        machine_rank=0,
        dist_url="auto",
        opts=tiny_options(output_dir, **changes),
    )
