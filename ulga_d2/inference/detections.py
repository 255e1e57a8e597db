"""What a detector gives for one image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import UserError

if TYPE_CHECKING:
    from detectron2.structures import Instances
    from PIL.Image import Image


class Category(NamedTuple):
    """A class of a detector.

    Attributes:
        id: the category id of the dataset that it was trained on, as in result files.
        name: of the class.
    """

    id: int
    name: str


@dataclass(frozen=True)
class Detections:
    """N detections on one image, by descending score.

    Attributes:
        boxes: (N, 4) float32, XYXY in pixels of the image as it is shown, that is, after its EXIF
            rotation.
        scores: (N,) float32, from 0 to 1.
        class_ids: (N,) int64, from 0, in the order of `categories`.
        categories: all classes of the detector.
        image_size: (height, width) of the image in pixels.
        source: the image's path, with "#0003" behind it for frame 3 of several; what kind of
            object it was where it has no path.
        masks: COCO's run lengths ("size", "counts"), one a detection; None where the detector
            gives boxes alone.
        read_image: returns the image that was searched, (H, W, 3) RGB in 0..255.
    """

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    categories: tuple[Category, ...]
    image_size: tuple[int, int]
    source: str = ""
    masks: list[dict[str, Any]] | None = None
    read_image: Callable[[], np.ndarray] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int | slice | np.ndarray | Sequence[int]) -> Detections:
        """Select detections by a number, a slice, a list of numbers or a mask of booleans."""
        chosen = np.atleast_1d(np.arange(len(self))[index])
        return replace(
            self,
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            class_ids=self.class_ids[chosen],
            masks=None if self.masks is None else [self.masks[number] for number in chosen],
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class name of each detection."""
        return tuple(self.categories[number].name for number in self.class_ids)

    def filter(self, score: float = 0.0, classes: Iterable[str] | None = None) -> Detections:
        """Keep detections of at least a score, and of some classes.

        Args:
            score: the lowest score that stays.
            classes: names of the classes that stay; None keeps all.

        Raises:
            UserError: a class that the detector does not have.
        """
        keep = self.scores >= score
        if classes is not None:
            names = [category.name for category in self.categories]
            wanted = [classes] if isinstance(classes, str) else list(classes)
            unknown = [name for name in wanted if name not in names]
            if unknown:
                raise UserError(f"unknown classes {unknown}; the detector has {names}")
            keep = keep & np.isin(self.class_ids, [names.index(name) for name in wanted])
        return self[keep]

    def draw(self, score: float = 0.0) -> Image:
        """Return the image with its detections drawn on it, in its own resolution.

        Args:
            score: detections below it are left out.

        Raises:
            UserError: the image can no longer be read.
        """
        from PIL import Image as PillowImage

        from ..drawing.detections import draw_detections

        if self.read_image is None:
            raise UserError(f"{self.source or 'the image'} is not kept with these detections")
        shown = self.filter(score)
        return PillowImage.fromarray(draw_detections(shown.read_image(), shown))

    def to_dict(self) -> dict[str, Any]:
        """Return the detections as plain data, for JSON.

        Returns:
            "source", "height", "width" and "detections", a list of dicts with "box" (XYXY),
            "score", "class_id", "class_name" and, where there are masks, "mask".
        """
        items = [
            {"box": box, "score": score, "class_id": number, "class_name": name}
            for box, score, number, name in zip(
                self.boxes.tolist(),
                self.scores.tolist(),
                self.class_ids.tolist(),
                self.class_names,
                strict=True,
            )
        ]
        if self.masks is not None:
            items = [{**item, "mask": mask} for item, mask in zip(items, self.masks, strict=True)]
        height, width = self.image_size
        return {"source": self.source, "height": height, "width": width, "detections": items}

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """Return the detections as COCO results of an image: boxes XYWH, the dataset's own ids."""
        corners = self.boxes.astype(np.float64)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        items = [
            {
                "image_id": image_id,
                "category_id": self.categories[number].id,
                "bbox": box,
                "score": score,
            }
            for box, score, number in zip(
                boxes.tolist(), self.scores.tolist(), self.class_ids.tolist(), strict=True
            )
        ]
        if self.masks is None:
            return items
        return [
            {**item, "segmentation": mask} for item, mask in zip(items, self.masks, strict=True)
        ]

    def to_instances(self) -> Instances:
        """Return detectron2's Instances: pred_boxes, scores, pred_classes and pred_masks (bool)."""
        import torch
        from detectron2.structures import Boxes, Instances

        instances = Instances(self.image_size)
        instances.pred_boxes = Boxes(torch.from_numpy(self.boxes.copy()))
        instances.scores = torch.from_numpy(self.scores.copy())
        instances.pred_classes = torch.from_numpy(self.class_ids.copy())
        if self.masks is not None:
            instances.pred_masks = torch.from_numpy(self.decoded_masks())
        return instances

    def decoded_masks(self) -> np.ndarray:
        """Return the masks as (N, H, W) of booleans; all False where there are none."""
        from pycocotools import mask as run_lengths

        decoded = np.zeros((len(self), *self.image_size), bool)
        for number, mask in enumerate(self.masks or []):
            decoded[number] = run_lengths.decode(mask).astype(bool)
        return decoded

    def to_supervision(self) -> Any:
        """Return `supervision.Detections`.

        Raises:
            UserError: the package supervision is not installed.
        """
        try:
            import supervision
        except ModuleNotFoundError:
            raise UserError("to_supervision needs a package: pip install supervision") from None
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.class_ids,
            mask=None if self.masks is None else self.decoded_masks(),
            data={"class_name": np.array(self.class_names, dtype=str)},
        )
