"""Evaluation of a model on the run's test sets, with the picture of what it detects."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm
from torch import nn

from ..data.image import read_image
from ..evaluation.atomic import write_atomically
from ..evaluation.detection import DetectionEvaluator
from ..evaluation.picture import draw_predictions
from ..inference.load import INFERENCE_CHECKPOINT, INFERENCE_FOLDER
from ..inference.model import box_settings
from ..inference.predictor import build_detector
from ..inference.preprocess import build_intensity
from ..weights.digest import weights_sha256
from .checkpoint import save_checkpoint
from .loader import TestLoader, images_per_batch

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from .datasets import RunData

PICTURE = "predictions.png"


def evaluate(cfg: CfgNode, model: nn.Module, data: RunData, iteration: int) -> dict[str, Any]:
    """Evaluate on every set of DATASETS.TEST; write `inference/` and `predictions.png`.

    With one set the results are `{"bbox": {...}, "agnostic": {...}}` and lie in `inference/`; with
    several they stand under each set's name and lie in `inference/<name>/`. Beside them lie the
    evaluated weights, `model_inference.pth`, and the `config.yaml` that detectron2's own tools need
    to run them. Every rank takes part; the main one gets the results, the others an empty dict.

    Args:
        cfg: a resolved config.
        model: to evaluate; with INPUT.TILE it predicts by tiles, with TEST.AUG on several views.
        data: the run's test sets.
        iteration: steps that its weights have seen.
    """
    results: dict[str, Any] = {}
    info = {
        "model_sha256": weights_sha256(model.state_dict()),
        "half_precision": False,
        "settings": box_settings(cfg),
    }
    only_one = len(data.test) == 1
    batch_size = images_per_batch(cfg)
    detector = build_detector(cfg, model, batch_size=batch_size)
    for name, records in data.test.items():
        folder = Path(cfg.OUTPUT_DIR) / INFERENCE_FOLDER / ("" if only_one else name)
        loader = TestLoader(cfg, records)
        evaluator = DetectionEvaluator(
            name,
            records,
            data.class_names,
            str(folder),
            froc_hit=cfg.TEST.FROC_HIT,
            category_ids=data.category_ids,
            max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
            info=info,
        )
        of_this_set = inference_on_dataset(detector, loader, evaluator)
        if comm.is_main_process():
            picture = Path(cfg.OUTPUT_DIR) / (PICTURE if only_one else f"{name}_{PICTURE}")
            draw_predictions(
                records,
                evaluator.predictions,
                data.class_names,
                str(picture),
                read_image=partial(
                    read_image, intensity=build_intensity(cfg), frame=cfg.INPUT.FRAME
                ),
            )
            results.update(of_this_set if only_one else {name: of_this_set})
    if comm.is_main_process():
        _write_inference_model(cfg, model, data, iteration, results)
    return results


def _write_inference_model(
    cfg: CfgNode, model: nn.Module, data: RunData, iteration: int, results: dict[str, Any]
) -> None:
    """Write the evaluated weights, and the config with which detectron2's tools run them."""
    folder = Path(cfg.OUTPUT_DIR) / INFERENCE_FOLDER
    first = results if len(data.test) == 1 else results[next(iter(data.test))]
    state = {
        "model": dict(model.state_dict()),
        "iteration": iteration,
        "class_names": list(data.class_names),
        "metrics": {f"{group}/{name}": v for group, of in first.items() for name, v in of.items()},
        "config": cfg.dump(),
    }
    path = save_checkpoint(folder, INFERENCE_CHECKPOINT, state, is_last=False)
    with_weights = cfg.clone()
    with_weights.defrost()
    with_weights.MODEL.WEIGHTS = str(path.resolve())
    write_atomically(str(folder / "config.yaml"), with_weights.dump().encode())
