"""detectron2's RetinaNet with boxes to ignore (training on tiles) and class weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from detectron2.config import configurable
from detectron2.layers import cat
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes, Instances, pairwise_ioa, pairwise_iou
from fvcore.nn import sigmoid_focal_loss_jit
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from detectron2.config import CfgNode

# An anchor with at least this share of its area in an ignored box is ignored.
MIN_SHARE_IGNORED = 0.5


@META_ARCH_REGISTRY.register()
class IgnoringRetinaNet(RetinaNet):
    """RetinaNet that takes instances of class -1 for areas to ignore, and weights its classes.

    Its parameters, its inference and, without such instances and weights, its losses are
    RetinaNet's own.

    Args:
        class_weights: K factors of the classification loss of anchors on objects, by class;
            background keeps 1. Empty: 1 for all.
        retinanet: the arguments of detectron2's RetinaNet.
    """

    @configurable
    def __init__(self, *, class_weights: Sequence[float] = (), **retinanet: Any) -> None:
        super().__init__(**retinanet)
        self.class_weights = tuple(class_weights)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments of the constructor from a config."""
        return {
            **super().from_config(cfg),
            "class_weights": cfg.MODEL.RETINANET.CLASS_WEIGHTS,
        }

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Return RetinaNet's losses; an anchor's classification loss counts with its class weight.

        Args:
            anchors: of each level; R in all.
            pred_logits: of each level (N, anchors of the level, K).
            gt_labels: of each image (R,): a class, -1 = ignore, K = background.
            pred_anchor_deltas: of each level (N, anchors of the level, 4).
            gt_boxes: of each image (R, 4).
        """
        losses = super().losses(anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes)
        if self.class_weights:
            labels = torch.stack(gt_labels)  # (N, R)
            on_object = (labels >= 0) & (labels < self.num_classes)
            added = self._added_by_weights(cat(pred_logits, dim=1)[on_object], labels[on_object])
            losses["loss_cls"] = losses["loss_cls"] + added / self.loss_normalizer
        return losses

    def _added_by_weights(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return what the weights add to the sum of the focal loss.

        Args:
            logits: (P, K) of the anchors on objects.
            labels: (P,) their classes.
        """
        loss = sigmoid_focal_loss_jit(
            logits,
            F.one_hot(labels, self.num_classes).to(logits.dtype),
            alpha=self.focal_loss_alpha,
            gamma=self.focal_loss_gamma,
            reduction="none",
        )
        return ((logits.new_tensor(self.class_weights) - 1)[labels] * loss.sum(dim=1)).sum()

    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Label anchors as RetinaNet does, then ignore the background that lies on ignored boxes.

        That is every anchor with half of its area in an ignored box, and every one that would not
        be background if the ignored box were a target.

        Args:
            anchors: of each level; R in all.
            gt_instances: of each image, with `gt_boxes` and `gt_classes`, -1 = ignore.

        Returns:
            Of each image (R,) labels: a class, -1 = ignore, K = background; and (R, 4) boxes to
            regress to, which count where the label is a class.
        """
        targets = [instances[instances.gt_classes >= 0] for instances in gt_instances]
        labels, boxes = super().label_anchors(anchors, targets)
        every_anchor = Boxes.cat(anchors)
        for of_image, instances in zip(labels, gt_instances, strict=True):
            ignored = instances.gt_boxes[instances.gt_classes < 0]
            if len(ignored):
                background = of_image == self.num_classes
                of_image[background & self._lies_on(ignored, every_anchor)] = -1
        return labels, boxes

    def _lies_on(self, ignored: Boxes, anchors: Boxes) -> Tensor:
        """Return (R,) bool: which anchors must not be background because of the (N, 4) `ignored`.

        A box too thin to overlap any anchor has no best anchor, so the matcher must not see it.
        """
        iou = pairwise_iou(ignored, anchors)
        _, as_targets = self.anchor_matcher(iou[iou.amax(dim=1) > 0])
        share = pairwise_ioa(ignored, anchors).amax(dim=0)
        return (as_targets != 0) | (share >= MIN_SHARE_IGNORED)
