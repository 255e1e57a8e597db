"""The engine room: order, schedule, optimizer, checkpoints, the loop."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, tiny_args, tiny_options
from detectron2.layers.batch_norm import LayerNorm as ChannelFirstLayerNorm
from torch import nn

from ulga_d2 import get_cfg
from ulga_d2.engine.checkpoint import (
    last_checkpoint,
    load_checkpoint,
    remove_old,
    save_checkpoint,
)
from ulga_d2.engine.datasets import check_same_classes
from ulga_d2.engine.device import resolve_device
from ulga_d2.engine.hooks import drop_lines_from
from ulga_d2.engine.launch import main, setup
from ulga_d2.engine.optimizer import build_optimizer, decays, resolve_schedule
from ulga_d2.engine.sampler import PositionDataset, PositionSampler, epoch_order
from ulga_d2.engine.trainer import Trainer
from ulga_d2.errors import UserError


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


def test_auto_device_is_resolved_and_amp_follows_it():
    cfg = get_cfg()
    resolve_device(cfg)
    assert cfg.MODEL.DEVICE in ("cpu", "cuda")
    assert cfg.SOLVER.AMP.ENABLED in (True, False)


# --- checkpoints --------------------------------------------------------------------------------


def test_a_failed_save_leaves_the_previous_checkpoint_in_force(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, "model_0000001.pth", {"iteration": 1})

    def fail_halfway(_state, path):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail_halfway)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path, "model_0000002.pth", {"iteration": 2})
    assert load_checkpoint(last_checkpoint(tmp_path))["iteration"] == 1
    assert not list(tmp_path.glob("*.tmp"))


class Payload:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (os.system, (f"touch {self.canary}",))


def test_a_checkpoint_never_runs_code(tmp_path):
    canary = tmp_path / "canary"
    torch.save({"model": Payload(canary)}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=r"bad\.pth cannot be read as plain tensors"):
        load_checkpoint(tmp_path / "bad.pth")
    assert not canary.exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / "cut.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"cut\.pth cannot be read"):
        load_checkpoint(tmp_path / "cut.pth")


def test_old_checkpoints_are_removed_and_the_latest_stay(tmp_path):
    for iteration in (5, 10, 15, 20):
        (tmp_path / f"model_{iteration:07d}.pth").touch()
    (tmp_path / "model_final.pth").touch()
    remove_old(tmp_path, keep=2)
    left = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert left == ["model_0000015.pth", "model_0000020.pth", "model_final.pth"]


def test_metrics_of_repeated_iterations_are_cut_before_a_resumed_run(tmp_path):
    file = tmp_path / "metrics.json"
    file.write_text('{"iteration": 19}\n{"iteration": 39}\n{"iterat')
    drop_lines_from(str(file), 39)
    assert file.read_text() == '{"iteration": 19}\n'


def test_differing_class_lists_are_shown_both():
    with pytest.raises(UserError, match=r"train.*\['a', 'b'\](.|\n)*val.*\['b', 'a'\]"):
        check_same_classes({"train": ("a", "b"), "val": ("b", "a")})


# --- the loop -----------------------------------------------------------------------------------


def weights_hash(path: Path) -> str:
    digest = hashlib.sha256()
    state = load_checkpoint(path)
    for name, value in sorted(state["model"].items()):
        digest.update(name.encode() + value.numpy().tobytes())
    for index, moments in sorted(state["optimizer"]["state"].items()):
        digest.update(str(index).encode() + moments["exp_avg"].numpy().tobytes())
    digest.update(str(state["loss_normalizer"]).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_was_stopped_and_resumed_equals_the_uninterrupted_one(
    sample_data, tmp_path, workers
):
    main(tiny_args(tmp_path / "whole"))
    cfg, data, _ = setup(tiny_args(tmp_path / "parts", DATALOADER__NUM_WORKERS=workers))
    trainer = Trainer(cfg, data)
    trainer.max_iter = 3  # stops between two checkpoints: iteration 2 is done again
    trainer.register_hooks([])
    trainer._hooks = [h for h in trainer._hooks if type(h).__name__ != "EvalHook"]
    trainer.train()
    (tmp_path / "parts" / "last_checkpoint").write_text("model_0000002.pth")
    main(tiny_args(tmp_path / "parts", resume=True, DATALOADER__NUM_WORKERS=workers))
    hashes = {weights_hash(tmp_path / run / "model_final.pth") for run in ("whole", "parts")}
    assert len(hashes) == 1


def train_command(output_dir: Path, *flags: str, **changes: object) -> list[str]:
    leaf = REPOSITORY / "configs" / "brain_tumor_swin_ulga_nano.yaml"
    command = [sys.executable, str(REPOSITORY / "train_net.py"), "--config-file", str(leaf), *flags]
    return command + tiny_options(output_dir, **changes)


def test_a_killed_run_resumes_to_the_hash_of_the_uninterrupted_one(sample_data, tmp_path):
    length = {"SOLVER__MAX_ITER": 12, "SOLVER__CHECKPOINT_PERIOD": 3}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    main(tiny_args(tmp_path / "whole", **length))
    run = tmp_path / "killed"
    process = subprocess.Popen(train_command(run, **length), env=environment)
    while not (run / "last_checkpoint").exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "model_final.pth").exists()
    main(tiny_args(run, resume=True, **length))
    assert weights_hash(run / "model_final.pth") == weights_hash(
        tmp_path / "whole" / "model_final.pth"
    )
    iterations = [json.loads(line)["iteration"] for line in open(run / "metrics.json")]
    assert len(iterations) == len(set(iterations))


def test_accumulated_micro_batches_give_the_gradient_of_the_large_batch(sample_data, tmp_path):
    """With the loss normaliser held and drop path 0; stock RetinaNet updates it a micro-batch."""
    norms = []
    for steps in (1, 2):
        args = tiny_args(
            tmp_path / str(steps),
            SOLVER__ACCUMULATION_STEPS=steps,
            SOLVER__MAX_ITER=1,
            SOLVER__CHECKPOINT_PERIOD=1,
            MODEL__ULGA__SWIN__DROP_PATH_RATE=0.0,
        )
        cfg, data, _ = setup(args)
        trainer = Trainer(cfg, data)
        trainer.model.loss_normalizer = 50.0
        trainer.model._ema_update = lambda *_args, model=trainer.model: model.loss_normalizer
        # The sum over images is divided by the normaliser, so the mean of parts is half the whole.
        trainer.model.loss_normalizer *= 1.0 if steps == 1 else 0.5
        trainer.train()
        norms.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.allclose(*norms, rtol=0, atol=1e-6)


@pytest.mark.parametrize("amp", [False, True])
def test_two_gloo_ranks_train_evaluate_and_agree(sample_data, tmp_path, amp):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = train_command(tmp_path, "--num-gpus", "2", SOLVER__AMP__ENABLED=amp)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    state = load_checkpoint(tmp_path / "model_final.pth")
    assert state["iteration"] == 4
    assert len(state["loss_normalizer"]) == 2
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    images = {p["image_id"] for p in json.load(open(tmp_path / "inference" / "predictions.json"))}
    assert len(images) <= 6


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(sample_data, tmp_path):
    cfg, data, _ = setup(tiny_args(tmp_path))
    trainer = Trainer(cfg, data)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with torch.no_grad():
        trainer.model.head.bbox_pred.bias.fill_(math.nan)
    before["head.bbox_pred.bias"].fill_(math.nan)
    with pytest.raises(UserError, match="iteration 0: the gradient is nan"):
        trainer.train()
    after = trainer.model.state_dict()
    assert all(
        torch.equal(after[name], before[name]) or name.endswith("bbox_pred.bias") for name in before
    )
