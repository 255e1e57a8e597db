"""The arithmetic of docs/scaling.md: bytes, times, and the model that they are reckoned for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import CONFIGS
from detectron2.modeling import build_model

from benchmarks import ranks
from ulga_d2 import get_cfg
from ulga_d2.analysis.complexity import cost_by_part
from ulga_d2.config import merge_config


def ring_sum(parts: np.ndarray) -> tuple[np.ndarray, int]:
    """Sum the rows of (GPUs, values) around a ring; return every GPU's sum and the values sent."""
    count = len(parts)
    held = parts.reshape(count, count, -1).copy()  # GPU, piece, values
    sent = 0
    for step in range(2 * (count - 1)):
        pieces = [(gpu, (gpu - step) % count) for gpu in range(count)]
        on_the_way = [held[gpu, piece].copy() for gpu, piece in pieces]
        for (gpu, piece), values in zip(pieces, on_the_way, strict=True):
            before = held[(gpu + 1) % count, piece] if step < count - 1 else 0
            held[(gpu + 1) % count, piece] = before + values
        sent += held.shape[2]  # by each GPU
    return held.reshape(count, -1), sent


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_a_ring_sums_with_the_bytes_that_are_reckoned(gpus, monkeypatch):
    values = np.random.default_rng(0).standard_normal((gpus, 64))
    sums, sent = ring_sum(values)
    np.testing.assert_allclose(sums, np.tile(values.sum(0), (gpus, 1)))
    monkeypatch.setattr(ranks, "PARAMETERS", 64)
    monkeypatch.setattr(ranks, "HOP_SECONDS", 0)
    seconds = ranks.exchange_seconds(gpus, ranks.NETWORKS["1 x 100 Gb/s"])
    assert seconds * ranks.INSIDE_A_NODE == pytest.approx(4 * sent)


def test_a_network_between_nodes_counts_from_the_second_node_on():
    slow, fast = 1e9, 1e12
    assert ranks.exchange_seconds(8, slow) == ranks.exchange_seconds(8, fast)
    assert ranks.exchange_seconds(16, slow) > 10 * ranks.exchange_seconds(16, fast)


def test_from_the_images_that_hide_it_on_the_exchange_costs_nothing():
    seconds = ranks.exchange_seconds(64, ranks.NETWORKS["1 x 100 Gb/s"])
    enough = ranks.images_that_hide(seconds)
    assert ranks.efficiency(enough, seconds) == pytest.approx(1)
    assert ranks.efficiency(enough - 1, seconds) < 1


def test_the_model_of_the_arithmetic_is_the_one_that_is_shipped():
    cfg = get_cfg()
    changes = ["MODEL.DEVICE", "meta", "MODEL.RETINANET.NUM_CLASSES", "1"]
    merge_config(cfg, str(CONFIGS / "brain_tumor_swin_ulga.yaml"), changes)
    side = cfg.INPUT.SQUARE_SIZE
    with torch.device("meta"):
        costs = cost_by_part(build_model(cfg), (1, 3, side, side)).values()
    assert sum(cost.parameters for cost in costs) == pytest.approx(ranks.PARAMETERS, rel=1e-3)
    assert sum(cost.flops for cost in costs) == pytest.approx(ranks.FORWARD_FLOP, rel=1e-3)
