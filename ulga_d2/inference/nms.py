"""Non-maximum suppression that detectron2 does not have: class-agnostic, and soft-NMS.

Soft-NMS (Bodla et al., ICCV 2017) lowers the score of a box that overlaps a better one instead of
dropping it, so that neighbors in a crowd stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from detectron2.structures import Instances
from torchvision.ops import box_iou, nms

from ..errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn


@dataclass(frozen=True)
class Suppression:
    """How overlapping boxes of one view are suppressed.

    Attributes:
        method: "hard" drops a box whose IoU with a better one is above `iou_threshold`; "linear"
            multiplies its score by 1 - IoU instead; "gaussian" multiplies the score of every
            overlapping box by exp(-IoU^2 / sigma).
        iou_threshold: of "hard" and "linear".
        sigma: of "gaussian".
        class_agnostic: boxes of different classes suppress each other, too.
        max_detections: of a view.
    """

    method: str
    iou_threshold: float
    sigma: float
    class_agnostic: bool
    max_detections: int

    def __call__(self, instances: Instances, score_threshold: float) -> Instances:
        """Return the detections of a view that are kept, by descending score.

        Args:
            instances: N candidates with `pred_boxes`, `scores` and `pred_classes`.
            score_threshold: soft-NMS drops what falls below it.
        """
        if self.method == "hard":
            return self.across_classes(instances)[: self.max_detections]
        boxes = instances.pred_boxes.tensor
        kept, scores = self._soften(instances, score_threshold)
        chosen = instances[torch.from_numpy(kept).to(boxes.device)]
        chosen.scores = torch.from_numpy(scores).to(instances.scores)
        return chosen

    def across_classes(self, instances: Instances) -> Instances:
        """Return what class-agnostic hard NMS keeps, by descending score."""
        boxes = instances.pred_boxes.tensor
        return instances[nms(boxes, instances.scores, self.iou_threshold)]

    def _soften(
        self, instances: Instances, score_threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the kept boxes, best first, and their lowered scores."""
        boxes = instances.pred_boxes.tensor.double().cpu()
        scores = instances.scores.double().cpu().numpy().copy()
        classes = instances.pred_classes.cpu().numpy()
        left = np.arange(len(scores))
        kept: list[int] = []
        while left.size and len(kept) < self.max_detections:
            best = left[scores[left].argmax()]
            if scores[best] < score_threshold:
                break
            kept.append(best)
            left = left[left != best]
            iou = box_iou(boxes[[best]], boxes[left])[0].numpy()
            factor = self._factor(iou)
            is_other = classes[left] != classes[best]
            if not self.class_agnostic:
                factor[is_other] = 1
            scores[left] *= factor
        numbers = np.array(kept, np.int64)
        return numbers, scores[numbers]

    def _factor(self, iou: np.ndarray) -> np.ndarray:
        if self.method == "gaussian":
            return np.exp(-(iou**2) / self.sigma)
        return np.where(iou > self.iou_threshold, 1 - iou, 1)


def build_suppression(cfg: CfgNode) -> Suppression | None:
    """Build what TEST.NMS describes; None for detectron2's own class-wise NMS in the model.

    Raises:
        UserError: the detector is not RetinaNet, or soft-NMS with several views of an image.
    """
    keys = cfg.TEST.NMS
    if keys.METHOD == "hard" and not keys.CLASS_AGNOSTIC:
        return None
    if cfg.MODEL.META_ARCHITECTURE != "RetinaNet":
        raise UserError(
            "TEST.NMS changes the NMS of RetinaNet alone, and MODEL.META_ARCHITECTURE is "
            f"{cfg.MODEL.META_ARCHITECTURE}; give METHOD hard and CLASS_AGNOSTIC False"
        )
    if keys.METHOD != "hard" and (cfg.INPUT.TILE.SIDE or cfg.TEST.AUG.ENABLED):
        raise UserError(
            f"TEST.NMS.METHOD {keys.METHOD} needs one view of each image: where tiles or augmented "
            "views are merged, each object is kept once; give METHOD hard, or INPUT.TILE.SIDE 0 "
            "and TEST.AUG.ENABLED False"
        )
    return Suppression(
        keys.METHOD,
        cfg.MODEL.RETINANET.NMS_THRESH_TEST,
        keys.SIGMA,
        keys.CLASS_AGNOSTIC,
        cfg.TEST.DETECTIONS_PER_IMAGE,
    )


def disable_model_nms(model: nn.Module) -> None:
    """Have a RetinaNet return all of its candidates, which a `Suppression` then takes."""
    model.test_nms_thresh = 2.0  # no IoU is above it
    model.max_detections_per_image = model.test_topk_candidates * len(model.head_in_features)
