"""The detectron2 evaluator of boxes and masks: every figure, or the reason why it is undefined."""

from __future__ import annotations

import json
import logging
import os
from collections import ChainMap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm

from ulga_d2.config import default_category_ids
from ulga_d2.errors import UserError

from .atomic import write_atomically
from .average_precision import DetectionMetrics
from .boxes import COCO_LIMIT, limit_warning, number_images
from .images import image_entries
from .mask_precision import encode_mask
from .saved import write_results
from .summary import all_metrics, mix_up_warning
from .table import metrics_table

logger = logging.getLogger(__name__)


class DetectionEvaluator(DatasetEvaluator):
    """Collect a detector's boxes over a data set, and its masks if it has any; score and write.

    Works on one process or many. An image that comes twice (samplers pad to equal shares) counts
    once, and neither the order of images nor their distribution over processes matters.

    Args:
        name: of the data set, for messages.
        records: its ground truth, as detectron2's DatasetCatalog gives it.
        class_names: by category_id.
        output_dir: gets metrics.json (the figures of `all_metrics`, null with the reason under
            "reasons" where undefined, and "max_detections"), predictions.json (COCO's result list
            with the dataset's own category ids, in the order of the set) and
            predictions_meta.json.
        froc_hit: what finds a lesion: "iou" or "centre".
        category_ids: the dataset's own, in the order of the class names; 1..K if left out.
        max_detections: detections of an image that count, as in `all_metrics`.
        info: what else predictions_meta.json says of how the detections were made.

    Attributes:
        predictions: after `evaluate`, on the main process, what predictions.json holds, with
            category ids contiguous from 0.
    """

    def __init__(
        self,
        name: str,
        records: Sequence[dict[str, Any]],
        class_names: Sequence[str],
        output_dir: str,
        *,
        froc_hit: Literal["iou", "centre"] = "iou",
        category_ids: Sequence[int] | None = None,
        max_detections: int = COCO_LIMIT,
        info: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.records = records
        self.class_names = class_names
        self.output_dir = output_dir
        self.froc_hit = froc_hit
        self.category_ids = category_ids or default_category_ids(len(class_names))
        self.max_detections = max_detections
        self.info = info
        number_images(self.records)  # refuses image ids that are not unique
        self.reset()

    def reset(self) -> None:
        """Forget all images seen so far."""
        self.predictions: list[dict[str, Any]] = []
        self._found: dict[int | str, ImageDetections] = {}
        self._not_finite: dict[int | str, int] = {}

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take in the detections of a batch.

        Args:
            inputs: with the "image_id" of each image.
            outputs: `{"instances": ...}` of each, in original image pixels; "not_finite" counts
                numbers of the model that were not finite before any was left out.
        """
        for image, output in zip(inputs, outputs, strict=True):
            found = _to_arrays(output["instances"])
            count = output.get("not_finite", 0)
            count += sum(
                np.count_nonzero(~np.isfinite(part)) for part in (found.boxes, found.scores)
            )
            self._found.setdefault(image["image_id"], found)
            self._not_finite.setdefault(image["image_id"], count)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Score all images of the set, write the three files and log a table.

        Returns:
            the defined figures, `{"bbox": {"AP": ...}, "froc": {"mean": ...}, ...}`; on all
            processes but the main one, an empty dict.

        Raises:
            UserError: if an image of the set was not processed or a stranger was, or if a number of
                the model is not finite: it has no score then, however few boxes remain.
        """
        gathered, not_finite = comm.gather(self._found), comm.gather(self._not_finite)
        if not comm.is_main_process():
            return {}
        found = dict(ChainMap(*gathered))
        self._check_complete(found)
        self._check_finite(dict(ChainMap(*not_finite)))
        self.predictions = [
            prediction
            for record in self.records
            for prediction in _to_coco(record["image_id"], found[record["image_id"]])
        ]
        metrics = all_metrics(
            self.records,
            self.predictions,
            self.class_names,
            froc_hit=self.froc_hit,
            with_masks=any(of_image.masks is not None for of_image in found.values()),
            max_detections=self.max_detections,
        )
        self._write(metrics)
        logger.info(
            "%s: %d images, figures in percent\n%s",
            self.name,
            len(self.records),
            metrics_table(metrics, self.records, self.predictions, self.class_names),
        )
        for warning in (
            limit_warning(self.records, self.max_detections),
            mix_up_warning(metrics.values["bbox/AP"], metrics.values["agnostic/AP"]),
        ):
            if warning:
                logger.warning("%s: %s", self.name, warning)
        return metrics.defined()

    def _check_complete(self, found: Mapping[int | str, Any]) -> None:
        expected = {record["image_id"] for record in self.records}
        for fault, image_ids in [
            ("images not shown to the model", expected - found.keys()),
            ("images that are not in the set", found.keys() - expected),
        ]:
            if image_ids:
                some = ", ".join(sorted(map(repr, image_ids))[:3])
                raise UserError(
                    f"evaluation on {self.name}: {fault}: {len(image_ids)} "
                    f"(such as image_id {some}); evaluate with a loader over exactly this set"
                )

    def _check_finite(self, counts: Mapping[int | str, int]) -> None:
        faulty = [record for record in self.records if counts[record["image_id"]]]
        if faulty:
            numbers = sum(counts[record["image_id"]] for record in faulty)
            raise UserError(
                f"evaluation on {self.name}: {numbers:,} of the model's scores, boxes or masks are "
                f"not finite, on {len(faulty):,} of {len(self.records):,} images, the first of "
                f"them {faulty[0].get('file_name', faulty[0]['image_id'])}. Nothing is scored. "
                "Compute in float32 (SOLVER.AMP.ENABLED False), or evaluate other weights "
                "(MODEL.WEIGHTS)"
            )

    def _write(self, metrics: DetectionMetrics) -> None:
        content = {**metrics.values, "max_detections": metrics.max_detections}
        figures = json.dumps({**content, "reasons": metrics.reasons}, indent=2)
        write_atomically(os.path.join(self.output_dir, "metrics.json"), figures.encode())
        write_results(
            self.output_dir,
            self.predictions,
            images=image_entries(self.records),
            categories=zip(self.category_ids, self.class_names, strict=True),
            info={"max_detections": self.max_detections, **self.info},
        )


class ImageDetections(NamedTuple):
    """What a detector found on one image: N objects.

    Attributes:
        boxes: (N, 4) as [x, y, width, height] in float32.
        scores: (N,).
        classes: (N,).
        masks: COCO's run lengths of each; None from a detector of boxes alone, and possibly for an
            image without objects.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: list[dict[str, Any]] | None


def _to_arrays(instances: Instances) -> ImageDetections:
    boxes = instances.pred_boxes.tensor.float().cpu().numpy()
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    scores = instances.scores.float().cpu().numpy()
    masks = None
    if instances.has("pred_masks_rle"):  # of merged views
        masks = list(instances.pred_masks_rle)
    elif instances.has("pred_masks"):
        masks = [encode_mask(mask) for mask in instances.pred_masks.cpu().numpy()]
    return ImageDetections(xywh, scores, instances.pred_classes.cpu().numpy(), masks)


def _to_coco(image_id: int | str, found: ImageDetections) -> list[dict[str, Any]]:
    columns = zip(found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True)
    objects = [
        {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
        for box, score, category in columns
    ]
    if found.masks is None:
        return objects
    return [{**item, "segmentation": mask} for item, mask in zip(objects, found.masks, strict=True)]
