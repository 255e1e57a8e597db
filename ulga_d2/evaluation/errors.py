"""What kind of error costs how much AP: the split of TIDE (Bolya et al., arXiv:2008.08115).

Every false positive is of exactly one kind, and an object that no detection found is missed unless
a classification or localisation error lies on it. What a kind costs is the AP50 gained when that
kind alone is repaired.

A false positive, by its highest IoU with objects of its own class and with those of others:

- localisation: own in [0.1, 0.5);
- classification: else, others >= 0.5;
- duplicate: else, own >= 0.5, which means that a better detection has the object;
- both: else, others in [0.1, 0.5);
- background: else.

The paper's conditions overlap; this order, which decides, is the one of its authors' program.
Matching is COCO's (with its limit of detections an image and class; crowd regions are no objects,
and what lies on one counts neither way). Among objects of equal IoU the first is meant.

Repairs: classification and localisation errors become hits on the object they lie on; of several
detections of one object the best stays. Other false positives go. Missed objects no longer count.
"false_negatives" leaves only found objects. A class of which a repair leaves no object is out of
the mean, as in COCO; the paper does not say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as run_lengths
from pycocotools.cocoeval import COCOeval

from .boxes import COCO_LIMIT, Prediction, Record
from .matching import ClassMatches, evaluate, precision_recall

FOUND, NEAR = 0.5, 0.1  # TIDE's t_f and t_b
FALSE_POSITIVES = ("classification", "localisation", "both", "duplicate", "background")
KINDS = (*FALSE_POSITIVES, "missed")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND = range(5)
NO_ERROR, NO_OBJECT = -1, -1


@dataclass(frozen=True)
class ErrorSplit:
    """Errors at IoU 0.5 by kind, and what each kind costs.

    Attributes:
        ap50: the AP50 that is to be improved, in percent; None where undefined.
        counts: errors by the names in `KINDS`.
        gains: AP50 gained, in percentage points, when one kind alone is repaired, by the names in
            `KINDS` and for "false_positives" and "false_negatives", all of them; None where
            undefined. They do not add up to what is missing to 100.
        reasons: for each None in `gains`, why, in words.
    """

    ap50: float | None
    counts: dict[str, int]
    gains: dict[str, float | None]
    reasons: dict[str, str]


@dataclass(frozen=True)
class _Judged:
    """Detections of all classes, best first (ties in COCOeval's order), and the objects.

    Shape:
        D detections, O objects that count; C classes.

    Attributes:
        category: (D,) class.
        kind: (D,) place in `FALSE_POSITIVES`, or NO_ERROR.
        target: (D,) the object that is hit, or on which the error lies, or NO_OBJECT.
        hit: (D,) whether it is a true positive.
        ignored: (D,) whether it counts neither way.
        object_category: (O,) class.
        objects: (C,) objects of each class.
    """

    category: np.ndarray
    kind: np.ndarray
    target: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    object_category: np.ndarray
    objects: np.ndarray

    def without(self, removed: np.ndarray) -> _Judged:
        names = ("category", "kind", "target", "hit", "ignored")
        return replace(self, **{name: getattr(self, name)[~removed] for name in names})


def error_split(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    num_classes: int,
    *,
    max_detections: int = COCO_LIMIT,
) -> ErrorSplit:
    """Split the errors of a detector at IoU 0.5 into TIDE's six kinds, as told at the top.

    Source:
        Bolya et al., arXiv:2008.08115, section 2.

    Args:
        records: ground truth, as in `detection_metrics`.
        predictions: COCO's result list.
        num_classes: classes are numbered from 0.
        max_detections: as in `detection_metrics`.

    Raises:
        UserError: as `detection_metrics`.
    """
    judged = _judge(records, predictions, num_classes, max_detections)
    counts, repaired = _repairs(judged)
    before = _ap50(judged)
    after = {name: _ap50(state) for name, state in repaired.items()}
    gains = {n: None if before is None or ap is None else ap - before for n, ap in after.items()}
    why = "no ground-truth boxes at all" if before is None else "the repair leaves no object"
    return ErrorSplit(before, counts, gains, {n: why for n, gain in gains.items() if gain is None})


def _repairs(judged: _Judged) -> tuple[dict[str, int], dict[str, _Judged]]:
    """Return how many errors there are of each kind, and the state in which one is repaired."""
    num_classes = len(judged.objects)
    missed = np.ones(len(judged.object_category), dtype=bool)
    missed[judged.target[judged.target != NO_OBJECT]] = False
    counts = {name: int((judged.kind == kind).sum()) for kind, name in enumerate(FALSE_POSITIVES)}
    counts["missed"] = int(missed.sum())
    repaired = {
        name: _moved(judged, kind)
        if kind in (CLASSIFICATION, LOCALISATION)
        else judged.without(judged.kind == kind)
        for kind, name in enumerate(FALSE_POSITIVES)
    }
    of_missed = np.bincount(judged.object_category[missed], minlength=num_classes)
    hits = np.bincount(judged.category[judged.hit], minlength=num_classes)
    repaired["missed"] = replace(judged, objects=judged.objects - of_missed)
    repaired["false_positives"] = judged.without(judged.kind != NO_ERROR)
    repaired["false_negatives"] = replace(judged, objects=hits)
    return counts, repaired


def _judge(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    num_classes: int,
    max_detections: int,
) -> _Judged:
    """Match at IoU 0.5 and give every false positive its kind."""
    evaluation = evaluate(
        records, predictions, num_classes, max_detections=max_detections, thresholds=[FOUND]
    )
    objects = [box for box in evaluation.cocoGt.dataset["annotations"] if not box["iscrowd"]]
    object_category = np.array([box["category_id"] for box in objects], dtype=np.int64)
    number, category, matched, ignored = _detections(evaluation)
    place_of = np.full(len(evaluation.cocoGt.dataset["annotations"]) + 1, NO_OBJECT)
    place_of[[box["id"] for box in objects]] = np.arange(len(objects))
    hit = (matched != 0) & (ignored == 0)
    target = np.where(hit, place_of[matched], NO_OBJECT)
    kind = np.full(len(number), NO_ERROR)
    wrong = np.flatnonzero(~hit & (ignored == 0))
    boxes = evaluation.cocoDt.anns
    there_in = _by_image(np.array([box["image_id"] for box in objects], dtype=np.int64))
    of_wrong = np.array([boxes[n]["image_id"] for n in number[wrong]], dtype=np.int64)
    for image, places in _by_image(of_wrong).items():
        those, there = wrong[places], there_in.get(image, places[:0])
        overlap = run_lengths.iou(
            [boxes[n]["bbox"] for n in number[those]],
            [objects[place]["bbox"] for place in there],
            [0] * len(there),
        )
        own = category[those][:, None] == object_category[there]
        kind[those], meant = _kinds(np.asarray(overlap).reshape(own.shape), own)
        target[those[meant != NO_OBJECT]] = there[meant[meant != NO_OBJECT]]
    counts = np.bincount(object_category, minlength=num_classes)
    return _Judged(category, kind, target, hit, ignored != 0, object_category, counts)


def _by_image(images: np.ndarray) -> dict[int, np.ndarray]:
    """Return the places of each image in an array of image numbers."""
    order = np.argsort(images, kind="stable")
    numbers, starts = np.unique(images[order], return_index=True)
    parts = np.split(order, starts)[1:]
    return dict(zip(numbers.tolist(), parts, strict=True))


def _detections(evaluation: COCOeval) -> np.ndarray:
    """Return number, class, matched object and whether ignored, (4, D), best first."""
    columns: list[tuple[float, int, int, int, int, int]] = []
    for image in filter(None, evaluation.evalImgs):
        rows = zip(
            image["dtScores"],
            image["dtIds"],
            image["dtMatches"][0].astype(int),
            image["dtIgnore"][0].astype(int),
            strict=True,
        )
        columns += [
            (-score, image["image_id"], number, image["category_id"], matched, ignored)
            for score, number, matched, ignored in rows
        ]
    columns.sort()
    return np.array([row[2:] for row in columns], dtype=np.int64).reshape(-1, 4).T


def _kinds(overlap: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Name false positives of one image by their IoU with its objects, of their class and others.

    Shape:
        Both (D, O); returns kinds (D,) and, where it matters, which object is meant (D,).
    """
    if not overlap.shape[1]:
        nothing = np.full(len(overlap), NO_OBJECT)
        return np.full(len(overlap), BACKGROUND), nothing
    of_own, of_others = np.where(own, overlap, -1.0), np.where(own, -1.0, overlap)
    best, best_other = of_own.max(axis=1), of_others.max(axis=1)
    kinds = np.select(
        [(best >= NEAR) & (best < FOUND), best_other >= FOUND, best >= FOUND, best_other >= NEAR],
        [LOCALISATION, CLASSIFICATION, DUPLICATE, BOTH],
        BACKGROUND,
    )
    meant = np.select(
        [kinds == LOCALISATION, kinds == CLASSIFICATION],
        [of_own.argmax(axis=1), of_others.argmax(axis=1)],
        NO_OBJECT,
    )
    return kinds, meant


def _moved(judged: _Judged, kind: int) -> _Judged:
    """Turn errors of a kind into hits; of several detections of one object the best stays."""
    moved = judged.kind == kind
    claims = np.flatnonzero(judged.hit | moved)
    _, first = np.unique(judged.target[claims], return_index=True)
    hit = np.zeros(len(judged.hit), dtype=bool)
    hit[claims[first]] = True
    category = judged.category.copy()
    category[moved] = judged.object_category[judged.target[moved]]
    return replace(judged, category=category, hit=hit).without((judged.hit | moved) & ~hit)


def _ap50(judged: _Judged) -> float | None:
    """Return COCO's AP50 in percent, or None where no class has an object."""
    curves = []
    for category in np.flatnonzero(judged.objects):
        of_class = judged.category == category
        one_image = np.zeros(int(of_class.sum()), dtype=np.int64)
        curve = precision_recall(
            ClassMatches(
                scores=one_image,
                image=one_image,
                hit=judged.hit[None, of_class],
                ignored=judged.ignored[None, of_class],
                objects=judged.objects[[category]],
                best_iou=one_image,
            )
        )
        curves.append(curve[0][0])
    return 100 * float(np.mean(np.stack(curves, axis=1))) if curves else None
