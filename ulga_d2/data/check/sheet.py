"""The data doctor's picture: classes, box sizes over the anchors, and a sample of the images."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...drawing.grid import BACKGROUND, MARGIN, PANEL, blank
from ...drawing.marks import PALETTE
from ...errors import printable
from ..sheet import COLUMNS, SHOWN_NAME, contact_sheet, sample_of
from .boxes import NEGATIVE, POSITIVE, Anchors, box_table, scaled_sizes
from .doctor import Checkup, Settings

IMAGES = 12
DPI = 100
CHART_HEIGHT = 400
MAX_CLASSES = 20
INK, GROUND = "white", f"#{BACKGROUND:02x}{BACKGROUND:02x}{BACKGROUND:02x}"
COLORS = ["#{:02x}{:02x}{:02x}".format(*color) for color in PALETTE]


def check_sheet(name: str, checkup: Checkup, settings: Settings) -> np.ndarray:
    """Draw the charts of a checkup over a sample of the first split's images.

    Returns:
        an RGB picture (H, W, 3).
    """
    split, loaded = next(iter(checkup.splits.items()))
    charts = _charts(checkup, settings.anchors)
    if not loaded.records:
        return charts
    names = (record["file_name"] for record in checkup.shown[split].records)
    records = [
        {**record, SHOWN_NAME: name} for record, name in zip(loaded.records, names, strict=True)
    ]
    chosen = sample_of(records, IMAGES, seed=0)
    title = f"{name}: {len(chosen)} of {len(loaded.records):,} images of {split}"
    images = contact_sheet(title, chosen, loaded.class_names, checkup.intensity)
    room = blank(len(images), charts.shape[1] - images.shape[1])
    return np.concatenate([charts, np.concatenate([images, room], axis=1)])


def _charts(checkup: Checkup, anchors: Anchors | None) -> np.ndarray:
    width = COLUMNS * (PANEL + MARGIN) + MARGIN
    figure = Figure((width / DPI, CHART_HEIGHT / DPI), dpi=DPI, facecolor=GROUND)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3 if anchors else 2)
    for axis in axes:
        axis.set_facecolor(GROUND)
        axis.tick_params(which="both", colors=INK, labelsize=8)
        for spine in axis.spines.values():
            spine.set_color(INK)
    _draw_classes(axes[0], checkup)
    _draw_sizes(axes[1], checkup, anchors)
    if anchors:
        _draw_ious(axes[2], checkup)
    figure.tight_layout()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _legend(axis: Axes) -> None:
    legend = axis.legend(fontsize=8, facecolor=GROUND, edgecolor=INK, labelcolor=INK)
    for handle in legend.legend_handles:
        handle.set_alpha(1)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_classes(axis: Axes, checkup: Checkup) -> None:
    counts = {name: split.report.boxes for name, split in checkup.splits.items()}
    names = list(dict.fromkeys(key for boxes in counts.values() for key in boxes))
    shown = sorted(names, key=lambda n: -sum(boxes[n] for boxes in counts.values()))[:MAX_CLASSES]
    height = 0.8 / len(counts)
    for number, (split, boxes) in enumerate(counts.items()):
        places = np.arange(len(shown)) + (number - (len(counts) - 1) / 2) * height
        values = [boxes[name] for name in shown]
        axis.barh(places, values, height, label=split, color=COLORS[number % len(COLORS)])
    axis.set_yticks(range(len(shown)), map(printable, shown), parse_math=False)
    axis.invert_yaxis()
    rest = f", the {len(shown)} largest of {len(names)}" if len(shown) < len(names) else ""
    axis.set_title(f"boxes by class{rest}", color=INK, fontsize=10)
    _legend(axis)


def _draw_sizes(axis: Axes, checkup: Checkup, anchors: Anchors | None) -> None:
    has_boxes = anchors is not None
    for number, (split, loaded) in enumerate(checkup.splits.items()):
        table = box_table(loaded.records, anchors.tiles if anchors else None)
        size = scaled_sizes(table, anchors.square_size) if anchors else table[:, 2:4] - table[:, :2]
        has_boxes |= bool((size > 0).all(1).any())
        color = COLORS[number % len(COLORS)]
        axis.scatter(*size.T, s=6, alpha=0.3, color=color, linewidths=0, label=split)
    unit = f"pixels of the {anchors.square_size} px input" if anchors else "pixels"
    if anchors:
        widths, heights, _ = zip(*anchors.shapes(), strict=True)
        axis.scatter(widths, heights, s=30, marker="+", color=INK, linewidths=1, label="anchors")
    if has_boxes:  # an axis without a value cannot be logarithmic
        axis.set(xscale="log", yscale="log")
    axis.set_xlabel(f"width, {unit}", color=INK, fontsize=8)
    axis.set_ylabel("height", color=INK, fontsize=8)
    axis.set_title("box sizes", color=INK, fontsize=10)
    _legend(axis)


def _draw_ious(axis: Axes, checkup: Checkup) -> None:
    for number, (split, ious) in enumerate(checkup.anchor_ious.items()):
        weights = np.full(len(ious), 1 / max(1, len(ious)))
        axis.hist(
            ious,
            bins=np.linspace(0, 1, 41),
            weights=weights,
            histtype="step",
            color=COLORS[number % len(COLORS)],
            label=split,
        )
    for limit in (NEGATIVE, POSITIVE):
        axis.axvline(limit, color=INK, linewidth=0.8, linestyle=":")
    axis.set_xlabel(
        f"IoU of a box's best anchor (background below {NEGATIVE}, target from {POSITIVE})",
        color=INK,
        fontsize=8,
    )
    axis.set_ylabel("share of the boxes", color=INK, fontsize=8)
    axis.set_title("what the anchors reach", color=INK, fontsize=10)
    _legend(axis)
