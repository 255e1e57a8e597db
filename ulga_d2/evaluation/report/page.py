"""A run's report as one HTML file, and learning curves as one SVG file, from jinja2 templates."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from ...terminal import printable_lines
from ..boxes import Prediction, Record, check_ground_truth, check_predictions, number_images
from ..estimate import Estimate
from ..runs import Run
from .chart import Chart
from .gallery import ReadImage, build_gallery
from .hits import ImageHits, match_images
from .scored import Scored, ends, percent, score
from .sections import STEPS, build_sections, counts_by_class, headline_labels


@dataclass(frozen=True)
class Source:
    """What the figures of a report were made on.

    Attributes:
        name: of the data set.
        records: its ground truth.
        predictions: COCO's result list.
        class_names: by category_id.
        read_image: from file_name to RGB pixels (H, W, 3) in 0..255.
        estimate: all figures of the predictions.
        intervals: in words, how the intervals were drawn; "" without any.
        froc_hit: what finds a lesion: "iou" or "centre".
    """

    name: str
    records: Sequence[Record]
    predictions: Sequence[Prediction]
    class_names: Sequence[str]
    read_image: ReadImage
    estimate: Estimate
    intervals: str = ""
    froc_hit: Literal["iou", "centre"] = "iou"


def render_report(run: Run, source: Source, facts: Mapping[str, str]) -> str:
    """Return the page; it needs no other file and no network.

    Args:
        run: the run folder as read.
        source: what it was evaluated on.
        facts: what else is known of the run, such as versions and wall time, in words.

    Raises:
        UserError: predictions that do not belong to the records.
    """
    check_ground_truth(source.records, source.class_names)
    check_predictions(source.predictions, number_images(source.records), len(source.class_names))
    limit = source.estimate.metrics.max_detections
    images = match_images(source.records, source.predictions, limit)
    scored = score(
        source.records,
        source.predictions,
        source.class_names,
        source.estimate,
        froc_hit=source.froc_hit,
    )
    threshold = scored.best.score if scored.best else 0.5
    return (
        _environment()
        .get_template("report.html")
        .render(
            run=run,
            set_name=source.name,
            counts=_counts(images),
            headline=_headline(scored),
            intervals=source.intervals,
            sections=build_sections(run, scored, source.records, source.predictions),
            gallery=build_gallery(images, source.class_names, source.read_image),
            threshold=math.floor(threshold * STEPS) / STEPS,
            counts_at=_script_safe(counts_by_class(scored)),
            facts=facts,
            config=yaml.safe_dump(dict(run.config), allow_unicode=True),
        )
    )


def _counts(images: Sequence[ImageHits]) -> dict[str, int]:
    objects = sum(not thing.is_crowd for one in images for thing in one.objects)
    healthy = sum(not one.objects for one in images)
    return {"images": len(images), "objects": objects, "images without objects": healthy}


def _headline(scored: Scored) -> list[tuple[str, str, str]]:
    """Return label, figure and interval of what stands at the top."""
    drawn = scored.estimate.intervals
    return [
        (label, percent(scored.values[name]), ends(drawn[name]) if name in drawn else "")
        for name, label in headline_labels(scored.limit).items()
    ]


def render_chart(chart: Chart) -> str:
    """Return a chart as an SVG file of its own."""
    return _environment().get_template("chart.svg").render(chart=chart)


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    """Return what a template writes, without control characters; markup stays markup."""
    return type(value)(printable_lines(value)) if isinstance(value, str) else value


def _script_safe(value: Any) -> str:
    """Return JSON that no HTML parser can take for the end of its script element."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
