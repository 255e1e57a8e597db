"""Training on tiles: which tiles a run reads, what becomes of cut boxes, and exact resume."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import CONFIGS, tiny_args
from data_files import write_image
from detectron2.engine import HookBase
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes, BoxMode, Instances, pairwise_ioa, pairwise_iou
from detectron2.utils.events import EventStorage

from ulga_d2.cli.main import main as ulga
from ulga_d2.data.check.boxes import box_table
from ulga_d2.data.mapper import IGNORED, DetectionMapper, training_augmentations
from ulga_d2.data.tiles import TrainingTiles, cut_into_tiles, tile_grid
from ulga_d2.engine.launch import main, setup
from ulga_d2.engine.loader import build_train_loader
from ulga_d2.engine.sampler import TilePositionDataset
from ulga_d2.engine.trainer import Trainer
from ulga_d2.errors import UserError
from ulga_d2.inference.model import build_seeded_model
from ulga_d2.weights.checkpoint import load_checkpoint

SIDE, OVERLAP = 64, 0.25
TILES = {"INPUT__TILE__SIDE": 40, "INPUT__TILE__EMPTY_SHARE": 0.3}


def random_records(seed: int = 0, count: int = 6) -> list[dict]:
    """Return images of several sizes with boxes at whole pixels, the first image without any."""
    generator = np.random.default_rng(seed)
    records = []
    for number in range(count):
        height, width = map(int, generator.integers(40, 220, 2))
        low = generator.integers(0, [width - 12, height - 12], (6 * min(number, 1), 2))
        high = np.minimum(low + generator.integers(4, 90, low.shape), [width, height])
        boxes = np.concatenate([low, high], axis=1).tolist()
        annotations = [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": n, "iscrowd": 0}
            for n, box in enumerate(boxes)
        ]
        size = {"height": height, "width": width}
        name = {"file_name": f"{number}.png", "image_id": number}
        records.append(name | size | {"annotations": annotations})
    return records


def tiles_of(records: list[dict], empty_share: float = 0.5) -> TrainingTiles:
    return cut_into_tiles(
        records, side=SIDE, overlap=OVERLAP, min_visible=0.5, empty_share=empty_share
    )


def painted_share(box: list[int], tile: tuple[int, int, int, int], record: dict) -> float:
    """Return how much of a box a tile shows, by counting pixels."""
    mask = np.zeros((record["height"], record["width"]), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    x0, y0, x1, y1 = tile
    return mask[y0:y1, x0:x1].sum() / mask.sum()


# --- which tiles an epoch reads -----------------------------------------------------------------


def place(record: dict) -> tuple[int, tuple[int, int, int, int]]:
    return record["image_id"], record["tile"]


def epoch_of(tiles: TrainingTiles, epoch: int, seed: int = 3) -> list:
    dataset = TilePositionDataset(tiles, place, seed)
    first = epoch * tiles.epoch_length
    return [dataset[p] for p in range(first, first + tiles.epoch_length)]


def test_a_tile_has_a_target_where_half_of_a_box_is_painted_in_it():
    records = random_records()
    tiles = tiles_of(records)
    expected = {
        (record["image_id"], tile)
        for record in records
        for tile in tile_grid(record["height"], record["width"], SIDE, OVERLAP)
        if any(painted_share(a["bbox"], tile, record) >= 0.5 for a in record["annotations"])
    }
    assert {place(tiles.record(n)) for n in tiles.with_targets} == expected
    every = [place(tiles.record(n)) for n in (*tiles.with_targets, *tiles.empty)]
    assert sorted(every) == sorted(
        (record["image_id"], tile)
        for record in records
        for tile in tile_grid(record["height"], record["width"], SIDE, OVERLAP)
    )
    assert 0 < len(expected) < len(every)


def test_an_epoch_is_every_tile_with_a_target_once_and_its_share_of_empty_ones():
    tiles = tiles_of(random_records())
    targets = {place(tiles.record(n)) for n in tiles.with_targets}
    empty = {place(tiles.record(n)) for n in tiles.empty}
    epochs = [epoch_of(tiles, epoch) for epoch in range(6)]
    drawn = []
    for epoch in epochs:
        assert max(Counter(epoch).values()) == 1
        assert targets <= set(epoch)
        drawn.append(frozenset(epoch) - targets)
        assert drawn[-1] <= empty and len(drawn[-1]) == round(0.5 * len(targets))
    assert len(set(drawn)) > 1 and len(set(map(tuple, epochs))) == 6
    assert epoch_of(tiles, 4) == epochs[4]
    assert epoch_of(tiles, 4, seed=4) != epochs[4]


@pytest.mark.parametrize("share", [0.0, 100.0])
def test_the_share_of_empty_tiles_is_at_most_all_of_them(share):
    tiles = tiles_of(random_records(), share)
    assert tiles.empty_per_epoch == (len(tiles.empty) if share else 0)
    assert len(epoch_of(tiles, 0)) == len(tiles.with_targets) + tiles.empty_per_epoch


def test_boxes_that_no_tile_shows_enough_of_are_counted():
    (record,) = random_records(count=2)[1:]
    record |= {"height": 200, "width": 200}
    del record["annotations"][2:]
    for annotation, box in zip(
        record["annotations"], [[0, 0, 200, 200], [9, 9, 59, 20]], strict=True
    ):
        annotation["bbox"] = box
    assert tiles_of([record]).never_visible == 1
    del record["annotations"][1:]
    with pytest.raises(UserError, match=r"none of the 16 tiles of INPUT\.TILE\.SIDE 64 shows 0\.5"):
        tiles_of([record])


# --- what a tile's image and boxes are ----------------------------------------------------------


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Return records whose images lie on the disk: noise, so that every place is unlike."""
    folder = tmp_path_factory.mktemp("painted")
    records = random_records(1, 4)
    generator = np.random.default_rng(1)
    for record in records:
        record["file_name"] = str(folder / record["file_name"])
        size = record["height"], record["width"], 3
        cv2.imwrite(record["file_name"], generator.integers(0, 256, size, np.uint8))
    return records


def test_tiles_show_the_images_pixels_and_the_part_of_each_box_that_is_painted_there(painted):
    tiles = tiles_of(painted)
    mapper = DetectionMapper([], min_visible=0.5)
    outcomes = Counter()
    for number in range(len(tiles.owners)):
        record = tiles.record(number)
        x0, y0, x1, y1 = record["tile"]
        mapped = mapper(record)
        pixels = cv2.imread(record["file_name"])[y0:y1, x0:x1, ::-1]
        assert np.array_equal(mapped["image"].numpy(), pixels.transpose(2, 0, 1))
        expected = []
        for annotation in record["annotations"]:
            left, top, right, bottom = annotation["bbox"]
            mask = np.zeros((record["height"], record["width"]), bool)
            mask[top:bottom, left:right] = True
            rows, columns = np.nonzero(mask[y0:y1, x0:x1])
            if len(rows):
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                is_target = len(rows) >= 0.5 * mask.sum()
                expected.append([*box, annotation["category_id"] if is_target else IGNORED])
                outcomes[is_target] += 1
        instances = mapped["instances"]
        found = torch.cat([instances.gt_boxes.tensor, instances.gt_classes[:, None]], dim=1)
        assert found.tolist() == expected
    assert min(outcomes[True], outcomes[False]) > 10


def test_a_random_crop_ignores_what_it_cuts_below_the_share(tmp_path):
    write_image(tmp_path / "a.png", 64, 64)
    annotation = {"bbox": [20, 20, 44, 44], "category_id": 2, "iscrowd": 0}
    record = {"file_name": str(tmp_path / "a.png"), "image_id": 0, "height": 64, "width": 64}
    record |= {"annotations": [annotation], "tile": (0, 0, 64, 64)}
    crop = training_augmentations(64, (2.0, 2.0), "horizontal")
    mapper = DetectionMapper(crop, min_visible=0.5)
    outcomes = Counter()
    for seed in range(60):
        np.random.seed(seed)
        instances = mapper(record)["instances"]
        shares = instances.gt_boxes.area() / 48**2
        expected = [2 if share >= 0.5 else IGNORED for share in shares]
        assert instances.gt_classes.tolist() == expected and len(expected) == 1
        outcomes.update(expected)
    assert min(outcomes[2], outcomes[IGNORED]) > 10


def test_without_tiles_no_box_is_ignored(painted):
    crop = training_augmentations(SIDE, (2.0, 2.0), "none")
    mapper = DetectionMapper(crop)
    for seed in range(20):
        np.random.seed(seed)
        assert IGNORED not in mapper(painted[1])["instances"].gt_classes


def test_the_data_check_measures_a_box_in_the_tile_that_shows_most_of_it():
    records = random_records(2)
    table = box_table(records, (SIDE, OVERLAP))
    boxes = [(record, a["bbox"]) for record in records for a in record["annotations"]]
    assert len(table) == len(boxes)
    for row, (record, box) in zip(table, boxes, strict=True):
        grid = tile_grid(record["height"], record["width"], SIDE, OVERLAP)
        most = max(painted_share(box, tile, record) for tile in grid)
        area = (box[2] - box[0]) * (box[3] - box[1])
        assert (row[2] - row[0]) * (row[3] - row[1]) == pytest.approx(most * area)
        assert list(row[4:]) == [min(SIDE, record["width"]), min(SIDE, record["height"])]
        assert min(row[:2]) >= 0 and (row[2:4] <= row[4:]).all()


# --- what the detector makes of an ignored box --------------------------------------------------


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory, sample_root: Path) -> RetinaNet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(sample_root))
        cfg, _, _ = setup(tiny_args(tmp_path_factory.mktemp("detector"), **TILES))
    return build_seeded_model(cfg)


def anchors_of(detector: RetinaNet) -> list[Boxes]:
    strides = [detector.backbone.output_shape()[f].stride for f in detector.head_in_features]
    return detector.anchor_generator([torch.zeros(1, 1, -(-64 // s), -(-64 // s)) for s in strides])


def instances_of(boxes: list[list[float]], classes: list[int]) -> Instances:
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Instances((64, 64), gt_boxes=Boxes(tensor), gt_classes=torch.tensor(classes).long())


TARGET, CUT, SLIVER = [4.0, 5.0, 30.0, 28.0], [40.0, 0.0, 64.0, 64.0], [0.0, 50.0, 2.0, 60.0]


@pytest.mark.parametrize("cut", [CUT, SLIVER, [0.0, 0.0, 64.0, 64.0]])
def test_anchors_on_an_ignored_box_are_neither_targets_nor_background(detector, cut):
    anchors = anchors_of(detector)
    every = Boxes.cat(anchors)
    plain = instances_of([TARGET], [1])
    both = instances_of([cut, TARGET], [IGNORED, 1])
    (before,), (boxes,) = RetinaNet.label_anchors(detector, anchors, [plain])
    (after,), (boxes_after,) = detector.label_anchors(anchors, [both])
    _, as_target = detector.anchor_matcher(pairwise_iou(Boxes(torch.tensor([cut])), every))
    half = pairwise_ioa(Boxes(torch.tensor([cut])), every)[0] >= 0.5
    is_ignored = (before == detector.num_classes) & ((as_target != 0) | half)
    assert is_ignored.any()
    assert (after[is_ignored] == -1).all()
    assert torch.equal(after[~is_ignored], before[~is_ignored])
    assert torch.equal(boxes, boxes_after)
    assert 1 in after


def test_without_ignored_boxes_the_labels_are_retinanets(detector):
    anchors = anchors_of(detector)
    images = [instances_of([TARGET, CUT], [0, 1]), instances_of([], [])]
    ours = detector.label_anchors(anchors, images)
    theirs = RetinaNet.label_anchors(detector, anchors, images)
    for one, other in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        assert torch.equal(one, other)


def test_a_box_that_float32_makes_empty_is_no_area(detector):
    anchors = anchors_of(detector)
    thin = instances_of([[30.0, 3.0, 30.0, 9.0]], [IGNORED])
    (labels,), _ = detector.label_anchors(anchors, [thin])
    assert (labels == detector.num_classes).all()


@pytest.mark.parametrize("boxes", [[CUT, TARGET], [[0.0, 0.0, 64.0, 64.0]]])
def test_an_ignored_area_has_exactly_no_gradient(detector, boxes):
    instances = instances_of(boxes, [IGNORED, 1][: len(boxes)])
    anchors = anchors_of(detector)
    labels, matched = detector.label_anchors(anchors, [instances])
    generator = torch.Generator().manual_seed(0)
    logits, deltas = (
        [
            torch.randn(1, len(level), size, generator=generator).requires_grad_()
            for level in anchors
        ]
        for size in (detector.num_classes, 4)
    )
    with EventStorage():
        losses = detector.losses(anchors, logits, labels, deltas, matched)
    sum(losses.values()).backward()
    by_class, by_box = (torch.cat([p.grad[0] for p in parts]) for parts in (logits, deltas))
    ignored = labels[0] == -1
    assert ignored.any() and (by_class[ignored] == 0).all() and (by_box[ignored] == 0).all()
    assert (by_class[~ignored] != 0).all()


def test_weights_and_config_are_retinanets_own(detector, sample_data, tmp_path):
    cfg, _, _ = setup(tiny_args(tmp_path, **TILES))
    assert cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
    whole, _, _ = setup(tiny_args(tmp_path / "whole"))
    plain = build_seeded_model(whole)
    assert type(plain) is RetinaNet and isinstance(detector, RetinaNet)
    ours, theirs = detector.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# --- the run ------------------------------------------------------------------------------------


def test_epochs_count_tiles_and_the_log_says_how_many(sample_data, tmp_path):
    cfg, data, _ = setup(tiny_args(tmp_path, SOLVER__NUM_EPOCHS=3, SOLVER__MAX_ITER=40000, **TILES))
    tiles = data.tiles
    assert tiles.epoch_length > len(data.train)
    assert cfg.SOLVER.MAX_ITER == 3 * -(-tiles.epoch_length // 2)
    text = (tmp_path / "log.txt").read_text()
    assert f"10 training images give {len(tiles.owners)} tiles of up to 40 px: " in text
    assert f"{len(tiles.with_targets)} with targets, all in every epoch" in text
    assert f"{len(tiles.empty)} empty, of which an epoch draws {tiles.empty_per_epoch}" in text
    assert f"3.0 epochs of {tiles.epoch_length} tiles" in text


def read_run(cfg, data, start_iter: int = 0) -> list[tuple]:
    """Return image, tile, pixels and classes of each position."""
    return [
        (
            item["image_id"],
            item["tile"],
            item["image"].numpy().tobytes(),
            item["instances"].gt_classes.tolist(),
        )
        for batch in build_train_loader(cfg, data, start_iter)
        for item in batch
    ]


def test_a_position_has_the_same_tile_with_any_workers_ranks_and_start(
    sample_data, tmp_path, monkeypatch
):
    cfg, data, _ = setup(tiny_args(tmp_path, SOLVER__MAX_ITER=30, **TILES))
    whole = read_run(cfg, data)
    assert len(whole) == 60 > data.tiles.epoch_length
    assert any(IGNORED in classes for *_, classes in whole)
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


def test_a_resumed_run_on_tiles_equals_the_uninterrupted_one(sample_data, tmp_path):
    length = {"SOLVER__MAX_ITER": 8, "SOLVER__CHECKPOINT_PERIOD": 3, **TILES}
    main(tiny_args(tmp_path / "whole", **length))
    cfg, data, _ = setup(tiny_args(tmp_path / "cut", **length))
    trainer = Trainer(cfg, data)
    trainer.register_hooks([StopAfter()])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    main(tiny_args(tmp_path / "cut", resume=True, **length))
    whole, cut = (
        load_checkpoint(
            tmp_path / run / "model_final.pth",
        )
        for run in ("whole", "cut")
    )
    assert whole["loss_normalizer"] == cut["loss_normalizer"]
    for name, value in whole["model"].items():
        assert torch.equal(value, cut["model"][name]), name
    for index, moments in whole["moments"].items():
        assert all(torch.equal(moments[k], cut["moments"][index][k]) for k in ("step", "exp_avg"))


def test_only_retinanet_trains_on_tiles(sample_data, tmp_path):
    leaf = "cod10k_mask_swin_ulga_nano"
    with pytest.raises(UserError, match=r"TILE\.SIDE is 40, but .* GeneralizedRCNN cannot train"):
        setup(tiny_args(tmp_path, leaf=leaf, **TILES))


def test_the_data_check_takes_a_config_with_tiles(sample_data, tmp_path, capsys):
    base = CONFIGS / "brain_tumor_swin_ulga_nano.yaml"
    config = tmp_path / "tiles.yaml"
    config.write_text(f"_BASE_: {base}\nINPUT:\n  TILE:\n    SIDE: 40\n")
    ulga(["data", "check", str(config)])
    assert "anchors on brain_tumor_train" in capsys.readouterr().out
