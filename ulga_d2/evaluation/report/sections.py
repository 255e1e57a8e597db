"""The sections of a report: tables of figures, the confusion matrix, the split of errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...errors import printable
from ..average_precision import IOU_50, SIZES_IN_WORDS, headline, shown_name
from ..boxes import Prediction, Record
from ..confusion import confusion_matrix
from ..errors import KINDS
from ..matching import ClassMatches
from ..runs import Run
from .curve_sections import calibration_section, curves_section, learning_section
from .scored import Scored, percent
from .section import Section, Table

ERRORS_IN_WORDS = {
    "classification": "right place, wrong class",
    "localisation": "right class, IoU 0.1 to 0.5",
    "both": "wrong class, IoU 0.1 to 0.5",
    "duplicate": "object found already, by a better score",
    "background": "nothing there (IoU below 0.1)",
    "missed": "object that no detection comes near",
}
STEPS = 100  # of the score threshold, from 0 to 1


def headline_labels(max_detections: int) -> dict[str, str]:
    """Return the metrics at the top of the page: how each is called, by its name."""
    return headline(max_detections) | {"froc/mean": "mean FROC sensitivity"}


def build_sections(
    run: Run, scored: Scored, records: Sequence[Record], predictions: Sequence[Prediction]
) -> list[Section]:
    """Return what there is to show; a section without content is left out."""
    sections = [
        _figures_section(scored),
        curves_section(scored),
        _confusion_section(scored, records, predictions),
        _errors_section(scored),
        calibration_section(scored),
        learning_section(run),
    ]
    return [one for one in sections if one.charts or one.tables]


def _figures_section(scored: Scored) -> Section:
    sizes = tuple(
        (words, scored.percent(f"bbox/AP{size}"), scored.percent(f"bbox/AR{size}"))
        for size, words in SIZES_IN_WORDS.items()
    )
    classes = tuple((name, scored.percent(f"bbox/AP-{name}")) for name in scored.class_names)
    ap = shown_name("AP", scored.limit)
    tables = [
        Table(("class", ap), classes),
        Table(("size of the object", ap, f"AR@{scored.limit}"), sizes),
    ]
    masks = tuple(
        (shown_name(name.removeprefix("segm/"), scored.limit), scored.percent(name))
        for name in scored.values
        if name.startswith("segm/")
    )
    if masks:
        tables.append(Table(("masks", "percent"), masks))
    if scored.estimate.metrics.reasons:
        undefined = tuple(scored.estimate.metrics.reasons.items())
        tables.append(Table(("undefined", "why"), undefined))
    words = "In percent, by COCO's definition: AP is the mean over IoU 0.50 to 0.95."
    return Section("By class and by size", words, tables=tuple(tables))


def _confusion_section(
    scored: Scored, records: Sequence[Record], predictions: Sequence[Prediction]
) -> Section:
    title, best = "Best threshold and confusion", scored.best
    if best is None:
        return Section(title, "")
    matrix = confusion_matrix(
        records, predictions, len(scored.class_names), score=best.score
    ).tolist()
    names = [*scored.class_names, "nothing"]
    rows = tuple(
        (f"{name} in truth", *(f"{count:,}" for count in row))
        for name, row in zip(names, matrix, strict=True)
    )
    rows = (*rows[:-1], (*rows[-1][:-1], "–"))
    words = (
        f"F1 over all classes is highest, {percent(100 * best.f1)} %, at a score of at least "
        f"{best.score:.2f}: precision {percent(100 * best.precision)} %, recall "
        f"{percent(100 * best.recall)} %. Chosen on these images, it flatters them. Below: objects "
        "and detections at that score, matched at IoU 0.5 whatever their class."
    )
    headers = ("", *(f"detected as {name}" for name in names[:-1]), "not detected")
    return Section(title, words, tables=(Table(headers, rows),))


def _errors_section(scored: Scored) -> Section:
    gains = [scored.values[f"errors/{kind}"] for kind in KINDS]
    if all(gain is None for gain in gains):
        return Section("Errors by kind", "")
    longest = max(max(gain or 0.0 for gain in gains), 1e-9)
    rows = tuple(
        (
            f"{kind}: {ERRORS_IN_WORDS[kind]}",
            f"{scored.values[f'errors/num_{kind}']:,.0f}",
            percent(gain),
        )
        for kind, gain in zip(KINDS, gains, strict=True)
    )
    words = (
        "After TIDE (Bolya et al., arXiv:2008.08115), at IoU 0.5 over all scores: how many there "
        "are, and the AP50 gained if that kind alone were repaired. Gains do not add up."
    )
    bars = tuple(max(gain or 0.0, 0.0) / longest for gain in gains)
    headers = ("error", "number", "AP50 gained")
    return Section("Errors by kind", words, tables=(Table(headers, rows, bars),))


def counts_by_class(scored: Scored) -> list[Mapping[str, object]]:
    """Return what the interactive table shows: objects, and counts at 0.00, 0.01, ... 1.00."""
    pairs = zip(scored.class_names, scored.matches, strict=True)
    return [
        {"name": printable(name), "objects": int(matches.objects.sum()), **_counts(matches)}
        for name, matches in pairs
    ]


def _counts(matches: ClassMatches) -> dict[str, list[int]]:
    counted = ~matches.ignored[IOU_50]
    scores, hit = matches.scores[counted], matches.hit[IOU_50][counted]
    levels = np.arange(STEPS + 1) / STEPS
    return {
        "hits": [int((hit & (scores >= level)).sum()) for level in levels],
        "false": [int((~hit & (scores >= level)).sum()) for level in levels],
    }
