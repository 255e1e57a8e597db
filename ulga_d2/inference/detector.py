"""A detectron2 model behind the views of an image: whole images, tiles, test-time augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import nn

from ..evaluation.mask_precision import encode_mask
from .finite import run_counted, watch_heads
from .merge import merge_augmented, merge_tiles
from .nms import Suppression, disable_model_nms
from .views import RawDetections, Region, View

Size = tuple[int, int]  # (height, width) in pixels


class Detector(nn.Module):
    """Detect on images that come as views; merge what was found on each of them.

    It stands where detectron2 expects a model in evaluation: it takes a list of dicts and returns a
    list of `{"instances": Instances}`.

    Args:
        model: a detectron2 model of boxes, possibly with masks.
        batch_size: views that go through the network together; None takes all of one call.
        nms_threshold: IoU above which two boxes of one class are one object, where views are
            merged.
        max_detections: of an image; None for no limit but the model's own on each view.
        score_threshold: lowest score of what views were merged to.
        half_precision: compute in bfloat16 where the device has it.
        suppression: NMS of each view in place of the model's own; None keeps that.
        class_thresholds: lowest score of each class, beside the other thresholds; empty for none.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        batch_size: int | None = None,
        nms_threshold: float,
        max_detections: int | None,
        score_threshold: float = 0.0,
        half_precision: bool = False,
        suppression: Suppression | None = None,
        class_thresholds: Sequence[float] = (),
    ) -> None:
        super().__init__()
        watch_heads(model)
        if suppression is not None:
            disable_model_nms(model)
        self.suppression = suppression
        self.class_thresholds = torch.tensor(class_thresholds)
        self.model = model
        self.batch_size = batch_size
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections
        self.score_threshold = score_threshold
        self.half_precision = half_precision

    def forward(self, inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Instances]]:
        """Detect on images.

        Args:
            inputs: each with "views" (a list of `View`), "height" and "width" of the image.

        Returns:
            for each image its `Instances`: `pred_boxes` in pixels of the image, `scores`,
            `pred_classes`, and from a model with masks `pred_masks` (N, H, W) or, where views were
            merged, `pred_masks_rle` (COCO's run lengths). Where the model's scores, boxes or masks
            of an image are not finite before any is left out, there are no instances, and
            "not_finite" is how many numbers are not.
        """
        views = [view for item in inputs for view in item["views"]]
        outputs = iter(self._run(views))
        results = []
        for item in inputs:
            size = item["height"], item["width"]
            counted = [next(outputs) for _ in item["views"]]
            not_finite = sum(count for _, count in counted)
            if not_finite:
                results.append({"instances": _nothing(size), "not_finite": not_finite})
                continue
            own = [
                (view, self._suppressed(found))
                for view, (found, _) in zip(item["views"], counted, strict=True)
            ]
            is_plain = len(own) == 1 and not own[0][0].flipped
            instances = own[0][1] if is_plain else self._merged(own, size)
            results.append({"instances": self._above_class_thresholds(instances)})
        return results

    def _suppressed(self, found: Instances) -> Instances:
        return self.suppression(found, self.score_threshold) if self.suppression else found

    def _above_class_thresholds(self, found: Instances) -> Instances:
        if not len(self.class_thresholds):
            return found
        thresholds = self.class_thresholds.to(found.scores)
        return found[found.scores >= thresholds[found.pred_classes]]

    def _run(self, views: Sequence[View]) -> Iterator[tuple[Instances, int]]:
        """Yield what the network finds on each view, in pixels of the view's region.

        With it comes how many of the network's numbers are not finite.
        """
        step = self.batch_size or max(1, len(views))
        device_type = self.model.device.type
        for start in range(0, len(views), step):
            batch = [_to_input(view) for view in views[start : start + step]]
            with torch.autocast(device_type, dtype=torch.bfloat16, enabled=self.half_precision):
                found, count = run_counted(self.model, batch)
                if not count:
                    yield from ((instances, 0) for instances in found)
                    continue
                for one in batch:  # which of them is it?
                    found, count = run_counted(self.model, [one])
                    yield (found or [_nothing((one["height"], one["width"]))])[0], count

    def _merged(self, own: Sequence[tuple[View, Instances]], size: Size) -> Instances:
        found: list[tuple[Region, RawDetections]] = []
        most = self.max_detections or max(1, sum(len(instances) for _, instances in own))
        limits = {"nms_threshold": self.nms_threshold, "max_detections": most}
        for region, group in groupby(own, key=lambda pair: pair[0].region):
            parts = [to_raw(instances, view, size) for view, instances in group]
            merged = merge_augmented(parts, **limits) if len(parts) > 1 else parts[0]
            found.append((region, merged))
        height, width = size
        whole = None
        if len(found) > 1 and found[-1][0] == (0, 0, width, height):
            whole = found.pop()[1]
        if len(found) == 1 and whole is None:
            merged = found[0][1]
        else:
            merged = merge_tiles(found, whole, size, **limits)
        instances = _to_instances(merged.take(merged.scores >= self.score_threshold), size)
        return self.suppression.across_classes(instances) if self.suppression else instances


def _nothing(size: Size) -> Instances:
    none = RawDetections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    return _to_instances(none, size)


def _to_input(view: View) -> dict[str, Any]:
    x0, y0, x1, y1 = view.region
    return {"image": view.image, "height": y1 - y0, "width": x1 - x0}


def to_raw(instances: Instances, view: View, size: Size) -> RawDetections:
    """Move detections from the pixels of a view's region to those of the whole image.

    Args:
        instances: with `pred_boxes`, `scores`, `pred_classes` and possibly `pred_masks` or
            `pred_masks_rle`.
        view: that they were made on.
        size: (height, width) of the whole image.
    """
    x0, y0, x1, _ = view.region
    boxes = instances.pred_boxes.tensor.float().cpu()
    if view.flipped:
        boxes = torch.stack(
            [x1 - x0 - boxes[:, 2], boxes[:, 1], x1 - x0 - boxes[:, 0], boxes[:, 3]], dim=1
        )
    if (x0, y0) != (0, 0):
        boxes = boxes + torch.tensor([x0, y0, x0, y0], dtype=boxes.dtype)
    masks = None
    if instances.has("pred_masks_rle"):
        masks = list(instances.pred_masks_rle)
    elif instances.has("pred_masks"):
        masks = [_placed(mask, view, size) for mask in instances.pred_masks.cpu().numpy()]
    return RawDetections(boxes, instances.scores.float().cpu(), instances.pred_classes.cpu(), masks)


def _placed(mask: np.ndarray, view: View, size: Size) -> dict[str, Any]:
    x0, y0, x1, y1 = view.region
    whole = np.zeros(size, np.uint8, order="F")
    whole[y0:y1, x0:x1] = mask[:, ::-1] if view.flipped else mask
    return encode_mask(whole)


def _to_instances(found: RawDetections, size: Size) -> Instances:
    instances = Instances(size)
    instances.pred_boxes = Boxes(found.boxes)
    instances.scores = found.scores
    instances.pred_classes = found.classes
    if found.masks is not None:
        instances.pred_masks_rle = found.masks
    return instances
