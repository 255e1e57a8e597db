"""Repeats of rare classes, negatives per positive, and class weights of the focal loss."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from conftest import tiny_args
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.engine import HookBase
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torchvision.ops import sigmoid_focal_loss

from ulga_d2.engine.launch import main, read_config, setup
from ulga_d2.engine.loader import build_train_loader
from ulga_d2.engine.repeats import Repeats, build_repeats, epoch_images
from ulga_d2.engine.sampler import PositionDataset
from ulga_d2.engine.trainer import Trainer
from ulga_d2.errors import UserError
from ulga_d2.inference.model import build_seeded_model
from ulga_d2.weights.checkpoint import load_checkpoint

REPEATED = {
    "DATALOADER__SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
    "DATALOADER__REPEAT_THRESHOLD": 1.0,
}
BOTH = {**REPEATED, "DATALOADER__NEGATIVE_RATIO": 0.25}
NAMES = ("common", "rare", "rarest")


def records_of(*classes: tuple[int, ...]) -> list[dict]:
    """Return a record for each tuple: the classes of its boxes."""
    return [
        {"image_id": number, "annotations": [{"category_id": index} for index in of_image]}
        for number, of_image in enumerate(classes)
    ]


IMBALANCED = records_of(*[(0,)] * 60, *[(0, 1)] * 5, *[(2, 0, 2)] * 2, *[()] * 33)


def repeats_of(tmp_path, records=IMBALANCED, **changes) -> Repeats | None:
    return build_repeats(read_config(tiny_args(tmp_path, **changes)), records, NAMES)


def epochs_of(repeats: Repeats, count: int, seed: int = 0) -> list[np.ndarray]:
    """Return how often each image is shown in each epoch, by positions alone."""
    numbers = [{"image": number} for number in range(len(repeats.factors))]
    dataset = PositionDataset(numbers, lambda record: record["image"], seed, repeats)
    starts = [repeats.first_position(seed, epoch) for epoch in range(count + 1)]
    return [
        np.bincount([dataset.record_at(p)["image"] for p in range(*pair)], minlength=len(numbers))
        for pair in itertools.pairwise(starts)
    ]


@pytest.mark.parametrize("sqrt", [True, False])
def test_factors_are_detectron2s(tmp_path, sqrt):
    keys = {**REPEATED, "DATALOADER__REPEAT_THRESHOLD": 0.3, "DATALOADER__REPEAT_SQRT": sqrt}
    repeats = repeats_of(tmp_path, **keys)
    wanted = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        IMBALANCED, 0.3, sqrt=sqrt
    )
    assert len(set(wanted.tolist())) == 3
    assert np.allclose(repeats.factors, wanted.numpy(), rtol=0, atol=1e-9)


def test_classes_are_shown_as_often_as_by_detectron2s_sampler(tmp_path):
    repeats = repeats_of(tmp_path, **{**REPEATED, "DATALOADER__REPEAT_THRESHOLD": 0.3})
    count = 400
    ours = np.mean(epochs_of(repeats, count), axis=0)
    sampler = RepeatFactorTrainingSampler(torch.tensor(repeats.factors).float(), seed=1)
    generator = torch.Generator().manual_seed(1)
    drawn = [sampler._get_epoch_indices(generator).numpy() for _ in range(count)]
    theirs = np.bincount(np.concatenate(drawn), minlength=len(ours)) / count
    for index in range(3):
        has_class = [
            any(item["category_id"] == index for item in record["annotations"])
            for record in IMBALANCED
        ]
        assert ours[has_class].sum() == pytest.approx(theirs[has_class].sum(), rel=0.02)
        assert ours[has_class].sum() == pytest.approx(repeats.factors[has_class].sum(), rel=0.01)


@pytest.mark.parametrize("seed", [0, 7])
def test_an_epoch_shows_an_image_as_often_as_its_factor_rounded_down_or_up(seed):
    factors = np.array([1.0, 1.25, 2.5, 3.0, 0.3, 0.0, 1.7, 0.3, 0.3, 1.1])
    repeats = Repeats(factors, factors >= 1)
    epochs = np.array(epochs_of(repeats, 1000, seed))
    assert (np.floor(factors) <= epochs).all()
    assert (epochs <= np.ceil(factors)).all()
    assert np.abs(epochs.mean(axis=0) - factors).max() < 0.06
    for kind in (factors >= 1, factors < 1):
        assert np.abs(epochs[:, kind].sum(axis=1) - factors[kind].sum()).max() < 1
    lengths = epochs.sum(axis=1)
    assert {int(length) for length in lengths} == {11, 12}
    assert lengths.sum() == pytest.approx(1000 * factors.sum(), abs=1)


@pytest.mark.parametrize("seed", range(5))
def test_every_position_lies_in_the_epoch_that_closed_form_gives(seed):
    repeats = Repeats(np.array([1.37, 0.21, 1.0]), np.array([True, False, True]))
    position = 0
    for epoch in range(300):
        assert repeats.first_position(seed, epoch) == position
        for offset in range(len(epoch_images(repeats, seed, epoch))):
            assert repeats.find(seed, position) == (epoch, offset)
            position += 1


def test_factors_of_one_give_the_order_of_a_run_without_repeats():
    records = records_of(*[(0,)] * 5, (), ())
    same = Repeats(np.ones(7), np.array([True] * 5 + [False] * 2))
    plain, repeated = (PositionDataset(records, dict, 3, of) for of in (None, same))
    assert [plain[p] for p in range(40)] == [repeated[p] for p in range(40)]


@pytest.mark.parametrize(("ratio", "shown"), [(0, {0}), (0.1, {6, 7}), (0.25, {16, 17}), (9, {33})])
def test_an_epoch_draws_the_negatives_anew_and_shows_every_positive(tmp_path, ratio, shown):
    repeats = repeats_of(tmp_path, DATALOADER__NEGATIVE_RATIO=ratio)
    if repeats is None:  # all of them
        assert shown == {33}
        return
    epochs = np.array(epochs_of(repeats, 60))
    assert (epochs[:, :67] == 1).all()
    negatives = epochs[:, 67:]
    assert negatives.max() <= 1
    assert set(negatives.sum(axis=1).tolist()) == shown
    assert bool(ratio) == bool((negatives.sum(axis=0) > 0).all())


def test_negatives_count_per_positive_shown(tmp_path):
    repeats = repeats_of(tmp_path, **{**BOTH, "DATALOADER__REPEAT_THRESHOLD": 0.3})
    positives, negatives = repeats.factors[:67], repeats.factors[67:]
    assert positives.sum() > 68
    assert negatives.sum() == pytest.approx(0.25 * positives.sum())


def test_the_log_says_what_an_epoch_has(tmp_path, caplog):
    caplog.set_level("INFO", "ulga_d2")
    assert repeats_of(tmp_path) is None
    assert "an epoch shows 67 images with boxes (of 67) and 33 without (of 33)" in caplog.text
    repeats_of(tmp_path, DATALOADER__NEGATIVE_RATIO=0.1)
    assert "an epoch shows 67 images with boxes (of 67) and 6.7 without (of 33)" in caplog.text
    repeats_of(tmp_path, DATALOADER__NEGATIVE_RATIO=2)
    assert "asks for 134.0 images without boxes an epoch, and there are 33" in caplog.text
    repeats_of(tmp_path, **{**REPEATED, "DATALOADER__REPEAT_THRESHOLD": 0.08})
    assert "common 67 -> 70.3, rare 5 -> 6.3, rarest 2 -> 4" in caplog.text


def read_run(cfg, data, start_iter: int = 0) -> list[tuple]:
    """Return image and pixels of each position."""
    return [
        (item["image_id"], item["image"].numpy().tobytes())
        for batch in build_train_loader(cfg, data, start_iter)
        for item in batch
    ]


def test_a_position_has_the_same_image_with_any_workers_ranks_and_start(
    sample_data, tmp_path, monkeypatch
):
    cfg, data, _ = setup(tiny_args(tmp_path, SOLVER__MAX_ITER=30, **BOTH))
    assert len(set(data.repeats.factors.tolist())) > 2
    whole = read_run(cfg, data)
    assert len(whole) == 60 > 2 * data.epoch_length
    assert read_run(cfg, data, 11) == whole[22:]
    for rank in range(2):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
        assert read_run(cfg, data) == whole[rank::2]
    monkeypatch.undo()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(sample_data))
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = 2
    assert read_run(cfg, data) == whole


class StopAfter(HookBase):
    """Stop as Ctrl-C does."""

    def after_step(self) -> None:
        if self.trainer.iter == 3:
            raise KeyboardInterrupt


def test_a_resumed_run_with_repeats_and_weights_equals_the_uninterrupted_one(sample_data, tmp_path):
    length = {"SOLVER__MAX_ITER": 8, "SOLVER__CHECKPOINT_PERIOD": 3, **BOTH}
    length["MODEL__RETINANET__CLASS_WEIGHTS"] = "[1, 2.5, 0.5]"
    main(tiny_args(tmp_path / "whole", **length))
    cfg, data, _ = setup(tiny_args(tmp_path / "cut", **length))
    trainer = Trainer(cfg, data)
    trainer.register_hooks([StopAfter()])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    main(tiny_args(tmp_path / "cut", resume=True, **length))
    whole, cut = (load_checkpoint(tmp_path / run / "model_final.pth") for run in ("whole", "cut"))
    for name, value in whole["model"].items():
        assert torch.equal(value, cut["model"][name]), name


def test_the_schedule_counts_the_images_of_an_epoch_with_repeats(sample_data, tmp_path):
    keys = {"SOLVER__NUM_EPOCHS": 3, "SOLVER__MAX_ITER": 40000, **REPEATED}
    cfg, data, _ = setup(tiny_args(tmp_path, **keys))
    assert data.epoch_length == round(data.repeats.factors.sum()) > len(data.train)
    assert cfg.SOLVER.MAX_ITER == 3 * -(-data.epoch_length // 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DATALOADER__SAMPLER_TRAIN": "RandomSubsetTrainingSampler"}, "give TrainingSampler or"),
        ({"DATALOADER__SAMPLER_TRAIN": "RepeatFactorTrainingSampler"}, "repeats nothing with"),
        ({"DATALOADER__REPEAT_THRESHOLD": 0.1}, "have no effect with"),
        ({"DATALOADER__REPEAT_SQRT": False}, "have no effect with"),
        ({**REPEATED, "DATALOADER__REPEAT_THRESHOLD": 1.5}, "0 to 1"),
        ({"DATALOADER__NEGATIVE_RATIO": -1}, "NEGATIVE_RATIO is -1"),
        ({"DATALOADER__NEGATIVE_RATIO": True}, "NEGATIVE_RATIO is True"),
        (
            {"DATALOADER__NEGATIVE_RATIO": 1, "DATALOADER__FILTER_EMPTY_ANNOTATIONS": True},
            "leave one of them out",
        ),
        ({**REPEATED, "INPUT__TILE__SIDE": 48}, "EMPTY_SHARE"),
        ({"DATALOADER__NEGATIVE_RATIO": 1, "INPUT__TILE__SIDE": 48}, "EMPTY_SHARE"),
        ({"MODEL__RETINANET__CLASS_WEIGHTS": "[1, 0, 1]"}, "numbers above 0"),
        ({"leaf": "cod10k_mask_swin_ulga_nano", "MODEL__RETINANET__CLASS_WEIGHTS": "[2]"}, "focal"),
    ],
)
def test_keys_that_contradict_are_refused_before_data_are_read(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        read_config(tiny_args(tmp_path, **changes))


def test_a_wrong_number_of_class_weights_names_the_classes(sample_data, tmp_path):
    args = tiny_args(tmp_path, MODEL__RETINANET__CLASS_WEIGHTS="[1, 2]")
    with pytest.raises(UserError, match=r"2 numbers, and there are 3 classes.*\['"):
        setup(args)


def losses_with(tmp_path, weights: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor], dict]:
    """Return a model of three classes, its losses, and what they were computed of."""
    change = {"MODEL__RETINANET__CLASS_WEIGHTS": weights, "MODEL__RETINANET__NUM_CLASSES": 3}
    model = build_seeded_model(read_config(tiny_args(tmp_path, **change)))
    generator = torch.Generator().manual_seed(5)
    image = torch.rand(3, 64, 64, generator=generator) * 255
    instances = Instances((64, 64))
    instances.gt_boxes = Boxes([[4.0, 4.0, 30.0, 28.0], [20.0, 30.0, 60.0, 60.0]])
    instances.gt_classes = torch.tensor([0, 2])
    seen = {}
    compute = model.losses

    def spy(*args):
        seen["args"] = args
        return compute(*args)

    model.losses = spy
    with EventStorage():
        losses = model([{"image": image, "instances": instances}])
    return model, losses, seen


def test_class_weights_multiply_the_loss_of_anchors_on_objects_of_the_class(tmp_path):
    weights = torch.tensor([2.0, 9.0, 0.25, 1.0])  # of the classes, and of background
    model, losses, seen = losses_with(tmp_path, "[2, 9, 0.25]")
    _, logits, labels, _, _ = seen["args"]
    logits, labels = torch.cat(logits, dim=1)[0], labels[0]
    logits, labels = logits[labels >= 0], labels[labels >= 0]
    assert {0, 2, 3} == set(labels.tolist())
    target = torch.nn.functional.one_hot(labels, 4)[:, :3].float()
    each = sigmoid_focal_loss(logits, target, model.focal_loss_alpha, model.focal_loss_gamma)
    wanted = (each.sum(dim=1) * weights[labels]).sum() / model.loss_normalizer
    assert torch.allclose(losses["loss_cls"], wanted, rtol=1e-5)
    _, plain, _ = losses_with(tmp_path, "[]")
    assert not torch.allclose(losses["loss_cls"], plain["loss_cls"], rtol=1e-2)
    assert torch.equal(losses["loss_box_reg"], plain["loss_box_reg"])


def test_class_weights_of_one_change_no_bit(tmp_path):
    _, ones, _ = losses_with(tmp_path, "[1, 1, 1.0]")
    _, plain, _ = losses_with(tmp_path, "[]")
    assert all(torch.equal(ones[name], plain[name]) for name in plain)
