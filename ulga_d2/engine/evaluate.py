"""Evaluation of a model on the run's test sets, with the picture of what it detects."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm
from torch import nn

from ..data.image import read_image
from ..evaluation.detection import DetectionEvaluator
from ..evaluation.picture import draw_predictions
from ..inference.model import box_settings
from ..inference.preprocess import build_intensity
from .loader import TestLoader

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from .datasets import RunData

PICTURE = "predictions.png"


def evaluate(
    cfg: CfgNode, model: nn.Module, data: RunData, *, model_sha256: str | None = None
) -> dict[str, Any]:
    """Evaluate on every set of DATASETS.TEST; write `inference/` and `predictions.png`.

    With one set the results are `{"bbox": {...}, "agnostic": {...}}` and lie in `inference/`; with
    several they stand under each set's name and lie in `inference/<name>/`. Every rank takes part;
    the main one gets the results, the others an empty dict.

    Args:
        cfg: the run's config.
        model: the detector.
        data: the run's data.
        model_sha256: fingerprint of the checkpoint, where the model comes from one.
    """
    results: dict[str, Any] = {}
    info: dict[str, Any] = {"settings": box_settings(cfg)}
    if model_sha256:
        info["model_sha256"] = model_sha256
    only_one = len(data.test) == 1
    for name, records in data.test.items():
        folder = Path(cfg.OUTPUT_DIR) / "inference" / ("" if only_one else name)
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
        of_this_set = inference_on_dataset(model, loader, evaluator)
        if comm.is_main_process():
            picture = Path(cfg.OUTPUT_DIR) / (PICTURE if only_one else f"{name}_{PICTURE}")
            draw_predictions(
                records,
                evaluator.predictions,
                data.class_names,
                str(picture),
                read_image=partial(read_image, intensity=build_intensity(cfg)),
            )
            results.update(of_this_set if only_one else {name: of_this_set})
    return results
