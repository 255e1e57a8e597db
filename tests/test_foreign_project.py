"""Backbones and datasets in another detectron2 project: its trainer, mapper and evaluators."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import COCOEvaluator
from detectron2.utils.env import seed_all_rng

import ulga_d2
from ulga_d2.data.sample import write_sample
from ulga_d2.evaluation.detection import DetectionEvaluator

LEVELS = ["p3", "p4", "p5"]
TINY = [
    *("MODEL.DEVICE", "cpu"),
    *("MODEL.FPN.OUT_CHANNELS", 32),
    *("MODEL.ULGA.INTERACTIONS", ["acp", "cat"]),
    *("MODEL.ULGA.CAT.NUM_CONCEPTS", 4),
    *("MODEL.ULGA.SWIN.EMBED_DIM", 16),
    *("MODEL.ULGA.SWIN.DEPTHS", [1, 1, 1, 1]),
    *("MODEL.ULGA.SWIN.NUM_HEADS", [1, 1, 2, 2]),
    *("MODEL.ULGA.SWIN.DROP_PATH_RATE", 0.0),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32], [64]]),
    *("MODEL.RETINANET.NUM_CONVS", 1),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 64),
    *("MODEL.ROI_MASK_HEAD.NUM_CONV", 1),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", 32),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", 200),
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 100),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", 50),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 64),
    *("DATALOADER.NUM_WORKERS", 0),
    *("SOLVER.MAX_ITER", 40),
    *("SOLVER.IMS_PER_BATCH", 4),
    *("SOLVER.BASE_LR", 0.003),
    *("SOLVER.WARMUP_ITERS", 5),
    *("SOLVER.STEPS", ()),
    *("TEST.EVAL_PERIOD", 20),
    # A model trained for seconds gives low scores; without a threshold they are compared too.
    *("MODEL.RETINANET.SCORE_THRESH_TEST", 0.0),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
]
RETINANET = [
    *("MODEL.META_ARCHITECTURE", "RetinaNet"),
    *("MODEL.RETINANET.IN_FEATURES", LEVELS),
]
MASK_RCNN = [
    *("MODEL.META_ARCHITECTURE", "GeneralizedRCNN"),
    *("MODEL.MASK_ON", True),
    *("SOLVER.MAX_ITER", 60),
    *("MODEL.RPN.IN_FEATURES", LEVELS),
    *("MODEL.ROI_HEADS.IN_FEATURES", LEVELS),
    *("MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
    *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead"),
    *("MODEL.ROI_BOX_HEAD.NUM_FC", 1),
    *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7),
    *("MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"),
    *("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 7),
    *("INPUT.MASK_FORMAT", "bitmask"),
]


def foreign_config(folder: Path, dataset: str, model: list[object], custom: str = "") -> CfgNode:
    """Return detectron2's config with our backbone, evaluated on what it is trained on."""
    cfg = get_cfg()
    ulga_d2.add_ulga_config(cfg)
    cfg.merge_from_list([*TINY, *model])
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_ulga_swin_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["stage3", "stage4", "stage5"]
    cfg.DATASETS.CUSTOM = custom
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (dataset,)
    side = cfg.INPUT.SQUARE_SIZE = 64
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (side,), side
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = side, side
    cfg.OUTPUT_DIR = str(folder)
    return cfg


class ForeignTrainer(DefaultTrainer):
    """detectron2's trainer with our evaluator, and AdamW to learn something in seconds."""

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=cfg.SOLVER.BASE_LR)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DetectionEvaluator:
        return DetectionEvaluator(
            dataset_name,
            DatasetCatalog.get(dataset_name),
            MetadataCatalog.get(dataset_name).thing_classes,
            str(Path(cfg.OUTPUT_DIR) / "ours"),
        )


def train_and_compare(cfg: CfgNode, groups: set[str]) -> None:
    """Train with detectron2's trainer; compare both evaluators on every metric of the peer."""
    seed_all_rng(1)
    trainer = ForeignTrainer(cfg)
    peer = COCOEvaluator(
        cfg.DATASETS.TEST[0], output_dir=str(Path(cfg.OUTPUT_DIR) / "peer"), use_fast_impl=False
    )
    trainer.train()
    ours = ForeignTrainer.test(cfg, trainer.model)
    theirs = ForeignTrainer.test(cfg, trainer.model, peer)
    assert theirs.keys() == groups
    for group in groups:
        defined = {name: value for name, value in theirs[group].items() if value == value}
        assert defined["AP50"] > 0
        assert {name: ours[group][name] for name in defined} == pytest.approx(defined, abs=1e-6)
        assert trainer._last_eval_results[group] == ours[group]  # of detectron2's EvalHook
        assert trainer.storage.latest()[f"{group}/AP"] == (ours[group]["AP"], cfg.SOLVER.MAX_ITER)


def test_retinanet_on_a_custom_dataset_trains_and_is_evaluated_alike_by_both(
    sample_root, tmp_path, catalogs
):
    content = {
        "name": "foreign",
        "format": "yolo",
        "root": str(sample_root / "brain_tumor"),
        "class_names": ["solid", "ring", "mottled"],
        "splits": {"train": {"images": "images/train", "labels": "labels/train"}},
    }
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(content))
    custom = str(tmp_path / "set.yaml")
    cfg = foreign_config(tmp_path / "run", "foreign_train", RETINANET, custom)
    ulga_d2.register_datasets(cfg)
    cfg.MODEL.RETINANET.NUM_CLASSES = len(MetadataCatalog.get("foreign_train").thing_classes)
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 3
    train_and_compare(cfg, {"bbox"})


def test_mask_rcnn_on_cod10k_trains_and_is_evaluated_alike_by_both(tmp_path, monkeypatch, catalogs):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    counts = {"num_train": 12, "num_val": 4}
    write_sample("cod10k", tmp_path / "cod10k", **counts, size=64, difficulty="easy", seed=0)
    cfg = foreign_config(tmp_path / "run", "cod10k_train", MASK_RCNN)
    cfg.DATASETS.CLASS_NAMES = ["foreground"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    ulga_d2.register_datasets(cfg)
    train_and_compare(cfg, {"bbox", "segm"})
