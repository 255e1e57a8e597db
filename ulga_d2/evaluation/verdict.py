"""A comparison told: tables, one plain sentence a figure, and plain data for a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import printable
from ..terminal import table
from .average_precision import shown_name
from .boxes import COCO_LIMIT
from .compare import Difference, Plan, is_of_class


@dataclass(frozen=True)
class Setting:
    """What was compared.

    Attributes:
        a: where side A's detections came from, one a seed.
        b: side B's.
        dataset: name of the data set.
        images: how many it has.
        cluster: how they were put together: "patient", "image", "run:10".
        clusters: how many there are.
        words: what is drawn as one, in words.
        plan: what was drawn.
        max_detections: the limit of detections an image.
    """

    a: tuple[str, ...]
    b: tuple[str, ...]
    dataset: str
    images: int
    cluster: str
    clusters: int
    words: str
    plan: Plan
    max_detections: int = COCO_LIMIT


def as_text(setting: Setting, found: Mapping[str, Difference]) -> str:
    """Lay out the comparison: what was compared, tables, and a conclusion for each figure."""
    headline = {name: one for name, one in found.items() if not is_of_class(name)}
    classes = {name: one for name, one in found.items() if is_of_class(name)}
    limit = setting.max_detections
    parts = [_heading(setting), _table(headline, limit)]
    if len(classes) > 1:
        tested = sum(one.p_value is not None for one in classes.values())
        parts.append(f"by class; p corrected by Holm's method for {tested} classes")
        parts.append(_table(classes, limit))
    else:
        classes = {}
    told = headline | classes
    parts.append(
        "\n".join(conclusion(name, one, setting.images, limit) for name, one in told.items())
    )
    parts.append(_seeds(headline, limit))
    return "\n\n".join(filter(None, parts))


def _heading(setting: Setting) -> str:
    plan = setting.plan
    return (
        f"A: {printable(', '.join(setting.a))}\nB: {printable(', '.join(setting.b))}\n"
        f"{plan.bootstrap:,} resamples and {plan.permutations:,} exchanges, seed {plan.seed}, of "
        f"{setting.dataset}: {setting.words}"
    )


def _table(found: Mapping[str, Difference], limit: int) -> str:
    rows = []
    for name, one in found.items():
        ends = one.interval and f"[{one.interval.low:+.2f}, {one.interval.high:+.2f}]"
        gap = None if one.difference is None else f"{one.difference:+.2f}"
        row = [_figure(name, limit), one.a, one.b, gap, ends, one.p_value]
        rows.append([*row, one.corrected, one.seed_p])
    headers = ["percent", "A", "B", "B - A", "95 % interval", "p", "p (Holm)", "p (seeds)"]
    kept = [n for n in range(len(headers)) if n < 6 or any(row[n] is not None for row in rows)]
    formats = ("", ".2f", ".2f", "", "", ".4f", ".4f", ".4f")
    return table(
        [[row[n] for n in kept] for row in rows],
        [headers[n] for n in kept],
        floatfmt=tuple(formats[n] for n in kept),
        missingval="-",
    )


def _figure(name: str, limit: int) -> str:
    return printable(shown_name(name, limit).split("/", 1)[1])


def conclusion(name: str, found: Difference, images: int, max_detections: int = COCO_LIMIT) -> str:
    """Say in one sentence what is known about a figure, such as "bbox/AP-glioma"."""
    figure, gap, interval = _figure(name, max_detections), found.difference, found.interval
    if gap is None or interval is None:
        return f"{figure} is undefined on these {images:,} images: no object counts"
    pairs = len(found.by_seed)
    scope = "for these two checkpoints" if pairs == 1 else f"over {pairs} pairs of seeds"
    low, high = interval.low, interval.high
    if found.winner is None:
        return (
            f"A and B are not distinguishable on {images:,} images: B's {figure} differs by "
            f"{gap:+.1f} [{low:+.1f}, {high:+.1f}], p = {found.decisive:.2g}, {scope}"
        )
    if found.winner == "A":
        gap, low, high = -gap, -high, -low
    return f"{found.winner} is better by {gap:.1f} {figure} [{low:.1f}, {high:.1f}] {scope}"


def _seeds(headline: Mapping[str, Difference], limit: int) -> str:
    told = [
        f"{one.detectable:.1f} {_figure(name, limit)}"
        for name, one in headline.items()
        if one.detectable is not None
    ]
    if not told:
        return ""
    return (
        "Smallest difference that so many pairs of seeds find in four studies of five: "
        + ", ".join(told)
    )


def as_dict(setting: Setting, found: Mapping[str, Difference]) -> dict[str, object]:
    """Return all of it as plain data for a JSON file; None where undefined."""
    plan = setting.plan
    return {
        "a": list(setting.a),
        "b": list(setting.b),
        "dataset": setting.dataset,
        "images": setting.images,
        "cluster": setting.cluster,
        "clusters": setting.clusters,
        "bootstrap": plan.bootstrap,
        "permutations": plan.permutations,
        "seed": plan.seed,
        "max_detections": setting.max_detections,
        "figures": {name: _plain(name, one, setting) for name, one in found.items()},
    }


def _plain(name: str, one: Difference, setting: Setting) -> dict[str, object]:
    interval = one.interval
    return {
        "a": one.a,
        "b": one.b,
        "difference": one.difference,
        "difference_by_seed": list(one.by_seed),
        "interval": None if interval is None else [interval.low, interval.high],
        "undefined_resamples": None if interval is None else interval.undefined,
        "p_value": one.p_value,
        "p_value_holm": one.corrected,
        "p_value_seeds": one.seed_p,
        "smallest_detectable": one.detectable,
        "conclusion": conclusion(name, one, setting.images, setting.max_detections),
    }
