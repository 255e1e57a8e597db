"""detectron2's RetinaNet with boxes to ignore, which training on tiles needs."""

from __future__ import annotations

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes, Instances, pairwise_ioa, pairwise_iou
from torch import Tensor

# An anchor with at least this share of its area in an ignored box is ignored.
MIN_SHARE_IGNORED = 0.5


@META_ARCH_REGISTRY.register()
class IgnoringRetinaNet(RetinaNet):
    """RetinaNet that takes instances of class -1 for areas to ignore.

    Its parameters, its inference and, without such instances, its losses are RetinaNet's own.
    """

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
