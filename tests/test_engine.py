"""The engine room before the loop: data order, schedule, optimizer, device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.layers.batch_norm import LayerNorm as ChannelFirstLayerNorm
from torch import nn

from ulga_d2 import get_cfg
from ulga_d2.engine.optimizer import build_optimizer, decays, resolve_schedule
from ulga_d2.engine.sampler import PositionDataset, PositionSampler, epoch_order
from ulga_d2.errors import UserError
from ulga_d2.inference.device import resolve_device, resolve_workers


def noisy_mapper(record: dict) -> dict:
    return {"id": record["id"], "noise": np.random.rand()}


# --- sampling -----------------------------------------------------------------------------------


def test_every_epoch_shows_every_image_once_in_another_order():
    orders = [tuple(epoch_order(3, epoch, 50)) for epoch in range(4)]
    assert len(set(orders)) == 4
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_sample_at_a_position_does_not_depend_on_what_was_read_before():
    dataset = PositionDataset([{"id": i} for i in range(7)], noisy_mapper, seed=5)
    in_order = [dataset[p] for p in range(30)]
    np.random.seed(123)
    assert [dataset[p] for p in reversed(range(30))] == in_order[::-1]
    assert len({sample["noise"] for sample in in_order}) == 30


def test_sampling_leaves_numpys_generator_as_it_was():
    dataset = PositionDataset([{"id": 0}], noisy_mapper, seed=5)
    np.random.seed(1)
    expected = np.random.rand()
    np.random.seed(1)
    _ = dataset[3]
    assert np.random.rand() == expected


@pytest.mark.parametrize(("world_size", "accumulation_steps"), [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_a_step_has_the_same_images_whatever_the_ranks_and_micro_batches(
    world_size, accumulation_steps
):
    common = {"total_batch": 8, "start_iter": 2, "max_iter": 5}
    ranks = [
        list(
            PositionSampler(
                **common,
                rank=rank,
                world_size=world_size,
                accumulation_steps=accumulation_steps,
            )
        )
        for rank in range(world_size)
    ]
    per_rank = 8 // world_size
    for step in range(3):
        of_step = [p for r in ranks for p in r[step * per_rank : (step + 1) * per_rank]]
        assert sorted(of_step) == list(range((2 + step) * 8, (3 + step) * 8))


def test_a_batch_that_cannot_be_divided_is_refused_with_both_numbers():
    with pytest.raises(UserError, match=r"IMS_PER_BATCH \(4\) must be a multiple of .* = 3"):
        PositionSampler(total_batch=4, world_size=3, max_iter=1)


# --- schedule and optimizer ---------------------------------------------------------------------


def test_epochs_become_iterations_steps_and_a_short_warm_up():
    cfg = get_cfg()
    cfg.SOLVER.NUM_EPOCHS, cfg.SOLVER.IMS_PER_BATCH = 30, 16
    cfg.SOLVER.WARMUP_ITERS = 500
    resolve_schedule(cfg, 701)
    assert cfg.SOLVER.MAX_ITER == 44 * 30
    assert cfg.SOLVER.STEPS == (44 * 22, 44 * 27)
    assert cfg.SOLVER.WARMUP_ITERS == 66  # 5 %, since 500 would be more
    assert cfg.SOLVER.CHECKPOINT_PERIOD == 44


def test_steps_that_a_short_run_cannot_tell_apart_become_one():
    cfg = get_cfg()
    cfg.SOLVER.NUM_EPOCHS, cfg.SOLVER.IMS_PER_BATCH = 1, 16
    resolve_schedule(cfg, 30)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (2, (1,))


def test_zero_epochs_keep_the_iterations_as_given():
    cfg = get_cfg()
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.CHECKPOINT_PERIOD = 123, (100,), 50
    resolve_schedule(cfg, 1000)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (123, (100,))
    assert cfg.SOLVER.CHECKPOINT_PERIOD == 50


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("qkv.weight", (6, 2), True),
        ("dw.weight", (4, 1, 3, 3), True),
        ("qkv.bias", (6,), False),
        ("norm.weight", (4,), False),
        ("attn.relative_position_bias_table", (169, 3), False),
        ("cat.concept_embed", (16, 8), False),
        ("pos_embed_proj.weight", (4, 4), True),  # the name's last part alone decides
    ],
)
def test_decay_acts_on_matrices_and_kernels_only(name, shape, expected):
    assert decays(name, nn.Parameter(torch.zeros(shape))) is expected


def test_both_kinds_of_layer_norm_are_exempt_from_decay():
    model = nn.Sequential(nn.LayerNorm(4), ChannelFirstLayerNorm(4), nn.Linear(4, 2))
    optimizer = build_optimizer(get_cfg(), model)
    with_decay, without = optimizer.param_groups
    assert [p.shape for p in with_decay["params"]] == [(2, 4)]
    assert len(without["params"]) == 5
    assert without["weight_decay"] == 0.0


# --- device -------------------------------------------------------------------------------------


def test_a_device_that_is_not_there_is_refused_with_what_is():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "tpu"
    with pytest.raises(UserError, match="MODEL.DEVICE is tpu, but this machine has: cpu"):
        resolve_device(cfg)


def test_a_gpu_that_is_not_there_is_refused_with_what_is():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cuda:99"
    with pytest.raises(UserError, match=r"MODEL\.DEVICE is cuda:99, but this machine has: cpu"):
        resolve_device(cfg)


@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_cpu_gets_autocast_only_where_it_has_bf16_instructions(monkeypatch, has_bf16):
    monkeypatch.setattr("ulga_d2.inference.device.cpu_computes_in_bf16", lambda: has_bf16)
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    resolve_device(cfg)
    assert cfg.SOLVER.AMP.ENABLED is has_bf16


@pytest.mark.parametrize(("processes", "expected"), [(1, 4), (2, 2), (8, 0)])
def test_half_the_cores_read_data_shared_among_the_processes(monkeypatch, processes, expected):
    monkeypatch.setattr("ulga_d2.inference.device.available_cores", lambda: 8)
    cfg = get_cfg()
    cfg.DATALOADER.NUM_WORKERS = 6
    resolve_workers(cfg, processes)
    assert cfg.DATALOADER.NUM_WORKERS == expected


@pytest.mark.parametrize("has_gpu", [True, False])
def test_the_default_device_is_one_that_detectron2_knows_and_auto_gives_the_same(
    monkeypatch, has_gpu
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    cfg = get_cfg()
    assert cfg.MODEL.DEVICE == ("cuda" if has_gpu else "cpu")
    auto = get_cfg()
    auto.MODEL.DEVICE, auto.SOLVER.AMP.ENABLED = "auto", False
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(has_gpu))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: device)
    resolve_device(auto)
    assert auto.MODEL.DEVICE == cfg.MODEL.DEVICE


def test_amp_follows_the_device():
    cfg = get_cfg()
    resolve_device(cfg)
    assert cfg.SOLVER.AMP.ENABLED in (True, False)
