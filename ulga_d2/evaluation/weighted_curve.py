"""COCO's curve of one class under many different weights of the images, quickly.

Of the interpolated curve only the true positives matter, since precision falls at all other
detections. So what one set of weights costs is one running sum over all detections, and a few over
the true positives. Ours; `precision_recall` is the plain form.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .matching import IOU_THRESHOLDS, RECALL_LEVELS, ClassMatches


@dataclass(frozen=True)
class WeightedCurve:
    """Of one class what its curve under any weights needs. All places count kept detections.

    Detections that are ignored at every IoU threshold, or come after the last true positive, are
    left out.

    Attributes:
        image: (D,) place of each detection's image.
        hits: per IoU threshold, the places of true positives.
        images_of_hits: per IoU threshold, `image[hits]`.
        images_of_ignored: per IoU threshold, the images of ignored detections.
        ignored_before: per IoU threshold, how many of these stand before each hit.
        objects: (I,) objects that count.
    """

    image: np.ndarray
    hits: tuple[np.ndarray, ...]
    images_of_hits: tuple[np.ndarray, ...]
    images_of_ignored: tuple[np.ndarray, ...]
    ignored_before: tuple[np.ndarray, ...]
    objects: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, matches: ClassMatches) -> WeightedCurve:
        """Sort out what counts."""
        end = np.flatnonzero(matches.hit.any(axis=0)).max(initial=-1) + 1
        kept = np.flatnonzero(~matches.ignored[:, :end].all(axis=0))
        image, hit, ignored = matches.image[kept], matches.hit[:, kept], matches.ignored[:, kept]
        hits = tuple(map(np.flatnonzero, hit))
        passed = tuple(map(np.flatnonzero, ignored))
        return cls(
            image,
            hits,
            tuple(image[places] for places in hits),
            tuple(image[places] for places in passed),
            tuple(map(np.searchsorted, passed, hits)),
            matches.objects.astype(np.float64),
        )

    def score(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return precision (T, 101) and recall (T,); None where no object has a weight."""
        objects = float(weights @ self.objects)
        if objects == 0:
            return None
        precision = np.zeros((len(IOU_THRESHOLDS), len(RECALL_LEVELS)))
        recall = np.zeros(len(IOU_THRESHOLDS))
        seen = np.cumsum(weights[self.image])
        for row, hits in enumerate(self.hits):
            if not len(hits):
                continue
            true = np.cumsum(weights[self.images_of_hits[row]])
            counted = seen[hits]
            if len(self.images_of_ignored[row]):
                ignored = np.cumsum(weights[self.images_of_ignored[row]])
                before = self.ignored_before[row]
                counted = counted - np.where(before > 0, ignored[before - 1], 0.0)
            reached = true / objects
            best = np.maximum.accumulate((true / (counted + np.spacing(1)))[::-1])[::-1]
            at = np.searchsorted(reached, RECALL_LEVELS, side="left")
            within = np.count_nonzero(at < len(best))  # levels ascend
            precision[row, :within] = best[at[:within]]
            recall[row] = reached[-1]
        return precision, recall
