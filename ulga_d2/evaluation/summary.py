"""Every figure of an evaluation under one roof: COCO's, FROC, threshold, calibration, errors.

Beside those of `detection_metrics` and `mask_metrics`, over all classes together at IoU 0.5, in
percent where nothing else is said:

- "threshold/score", from 0 to 1, is the score of the highest F1 on this very set, with
  "threshold/precision", "recall" and "F1" there: too good to be expected of other images;
- "froc/0.125" to "froc/8": sensitivity at so many false positives an image, "froc/mean" of
  the seven, "froc/image_AUC", and "froc/FP_per_healthy_image", a count, at "threshold/score"
  (over all detections where there is none);
- "calibration/ECE";
- "errors/<kind>": AP50 gained were errors of that kind repaired; "errors/num_<kind>": how
  many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .average_precision import DetectionMetrics, detection_metrics
from .boxes import COCO_LIMIT, Prediction, Record
from .curves import OperatingPoint, calibration, f1_optimal
from .errors import ErrorSplit, error_split
from .froc import FALSE_POSITIVES_PER_IMAGE, Froc, froc, match_lesions
from .mask_precision import mask_metrics
from .matching import ClassMatches, match

FROC_RATES = {rate: f"{rate:g}" for rate in FALSE_POSITIVES_PER_IMAGE}
NO_OBJECT = "no ground-truth boxes at all"
NO_DETECTION = "no detection that counts"
NO_CHANCE = "scores are not all between 0 and 1"
NO_POINT = f"{NO_OBJECT}, or {NO_DETECTION}"


def all_metrics(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    class_names: Sequence[str],
    *,
    froc_hit: Literal["iou", "centre"],
    with_masks: bool = False,
    max_detections: int = COCO_LIMIT,
) -> DetectionMetrics:
    """Score detections in every way there is; the names are explained at the top of this file.

    Args:
        records: ground truth, as in `detection_metrics`.
        predictions: COCO's result list.
        class_names: by category_id.
        froc_hit: what finds a lesion, as in `froc`.
        with_masks: the predictions carry masks that are to be scored too.
        max_detections: detections of an image that count, as in `detection_metrics`; FROC takes
            all.

    Raises:
        UserError: as `detection_metrics`.
    """
    limit, count = max_detections, len(class_names)
    metrics = detection_metrics(records, predictions, class_names, max_detections=limit)
    if with_masks:
        metrics |= mask_metrics(records, predictions, class_names, max_detections=limit)
    matches = match(records, predictions, count, max_detections=limit)
    lesions = match_lesions(records, predictions, count, hit=froc_hit)
    best = f1_optimal(matches)
    metrics |= _threshold_metrics(best)
    metrics |= _froc_metrics(froc(lesions), best)
    metrics |= _calibration_metrics(matches)
    return metrics | _error_metrics(error_split(records, predictions, count, max_detections=limit))


def mix_up_warning(class_aware: float | None, class_agnostic: float | None) -> str | None:
    """Say that category ids are likely mixed up, where objects are found under wrong classes.

    Args:
        class_aware: "bbox/AP".
        class_agnostic: "agnostic/AP".
    """
    if class_aware is None or class_agnostic is None:
        return None
    if class_aware >= 1 or class_agnostic <= 10 or class_agnostic <= 5 * class_aware:
        return None
    return (
        f"AP is {class_aware:.2f}, but {class_agnostic:.2f} when classes are ignored: objects are "
        "found under wrong classes. Unless the model has not learned its classes, this is a mix-up "
        "of category ids"
    )


def _threshold_metrics(best: OperatingPoint | None) -> DetectionMetrics:
    values = {
        "threshold/score": best and best.score,
        "threshold/precision": best and _percent(best.precision),
        "threshold/recall": best and _percent(best.recall),
        "threshold/F1": best and _percent(best.f1),
    }
    return _with_reasons(values, dict.fromkeys(values, NO_POINT))


def froc_figures(curve: Froc) -> dict[str, float | None]:
    """Return "froc/0.125" to "froc/8", "froc/mean" and "froc/image_AUC", in percent."""
    values = {f"froc/{name}": _percent(curve.at(rate)) for rate, name in FROC_RATES.items()}
    image_auc = _percent(curve.image_auc)
    return values | {"froc/mean": _percent(curve.mean()), "froc/image_AUC": image_auc}


def _froc_metrics(curve: Froc, best: OperatingPoint | None) -> DetectionMetrics:
    values = froc_figures(curve)
    reasons = dict.fromkeys(values, NO_OBJECT)
    values["froc/FP_per_healthy_image"] = curve.per_healthy_image(best.score if best else 0.0)
    reasons["froc/image_AUC"] = "it takes images with an object and images without"
    reasons["froc/FP_per_healthy_image"] = "no image without an object"
    return _with_reasons(values, reasons)


def _calibration_metrics(matches: Sequence[ClassMatches]) -> DetectionMetrics:
    values = {"calibration/ECE": _percent(calibration(matches).ece)}
    outside = any(((one.scores < 0) | (one.scores > 1)).any() for one in matches)
    return _with_reasons(values, dict.fromkeys(values, NO_CHANCE if outside else NO_DETECTION))


def _error_metrics(split: ErrorSplit) -> DetectionMetrics:
    values = {f"errors/{name}": gain for name, gain in split.gains.items()}
    counts = {f"errors/num_{name}": float(count) for name, count in split.counts.items()}
    reasons = {f"errors/{name}": reason for name, reason in split.reasons.items()}
    return DetectionMetrics(values | counts, reasons)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _with_reasons(values: dict[str, float | None], reasons: dict[str, str]) -> DetectionMetrics:
    undefined = {name: reasons[name] for name, value in values.items() if value is None}
    return DetectionMetrics(values, undefined)
