"""Head parameters with rows per class, moved from one class list to another by class name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Layout:
    """How the rows of a head's parameter follow from K classes.

    The rows are (groups, K or K + 1, rows_per_class), flattened. RetinaNet's classifier has one
    group for each anchor; in all other heads there is one group.
    """

    module: str
    rows_per_class: int = 1
    has_background: bool = False


BOX_REGRESSION = r"roi_heads\.box_predictor\.bbox_pred"
MASKS = r"roi_heads\.mask_head\.predictor"
_LAYOUTS = (
    _Layout(r"head\.cls_score"),
    _Layout(r"roi_heads\.box_predictor(\.\d+)?\.cls_score", has_background=True),
    _Layout(BOX_REGRESSION, rows_per_class=4),
    _Layout(MASKS),
)


@dataclass(frozen=True)
class ClassReport:
    """What happened to the parameters that have rows per class.

    Attributes:
        kept: classes of both lists; they keep their rows.
        added: classes of the new list alone; their rows keep their initial values.
        dropped: classes of the old list alone; their rows are not used.
        partly_kept: parameters in which some rows are kept and some have their initial values.
        reset: parameters in which all rows have their initial values.
    """

    kept: tuple[str, ...]
    added: tuple[str, ...]
    dropped: tuple[str, ...]
    partly_kept: tuple[str, ...]
    reset: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Yield the report, one fact per line."""
        for what, names in (
            ("classes that keep their rows", self.kept),
            ("classes with initial rows", self.added),
            ("classes of the checkpoint that are not used", self.dropped),
            ("parameters kept in part", self.partly_kept),
            ("parameters reset to their initial values", self.reset),
        ):
            yield f"{what}: {', '.join(names) or 'none'}"


def move_class_rows(
    given: Mapping[str, Tensor],
    initial: Mapping[str, Tensor],
    old: Sequence[str],
    new: Sequence[str],
    *,
    class_agnostic: Collection[str] = (),
) -> tuple[dict[str, Tensor], ClassReport]:
    """Give a checkpoint's parameters the rows that another class list needs.

    A class of both lists keeps its rows, wherever it stands; a class of the new list alone has the
    rows of `initial`. The background's row is kept. A parameter whose shape does not follow from
    the class list is returned as it is, so that strict loading can name it.

    Args:
        given: the checkpoint's parameters.
        initial: the model's parameters, with their initial values.
        old: the checkpoint's class names.
        new: the model's class names.
        class_agnostic: heads that have the same rows for all classes: BOX_REGRESSION, MASKS.

    Returns:
        all parameters of `given`, and what happened to those with rows per class.
    """
    kept = tuple(name for name in new if name in old)
    sources = [old.index(name) for name in kept]
    targets = [new.index(name) for name in kept]
    moved, partly_kept, reset = dict(given), [], []
    for name in sorted(given.keys() & initial.keys()):
        layout = _layout_of(name, class_agnostic)
        if layout is None:
            continue
        before = _by_class(given[name], layout, len(old))
        after = _by_class(initial[name].detach().cpu().clone(), layout, len(new))
        if before is None or after is None or _other_axes(before) != _other_axes(after):
            continue
        before = before.to(after.dtype)
        after[:, targets] = before[:, sources]
        if layout.has_background:
            after[:, -1] = before[:, -1]
        moved[name] = after.reshape(initial[name].shape)
        if len(kept) < len(new):
            (partly_kept if kept or layout.has_background else reset).append(name)
    report = ClassReport(
        kept=kept,
        added=tuple(name for name in new if name not in old),
        dropped=tuple(name for name in old if name not in new),
        partly_kept=tuple(partly_kept),
        reset=tuple(reset),
    )
    return moved, report


def _layout_of(name: str, class_agnostic: Collection[str]) -> _Layout | None:
    module = name.rpartition(".")[0]
    for layout in _LAYOUTS:
        if layout.module not in class_agnostic and re.fullmatch(layout.module, module):
            return layout
    return None


def _by_class(tensor: Tensor, layout: _Layout, num_classes: int) -> Tensor | None:
    """Return a view as (groups, classes, rows_per_class, ...), or None where the rows do not fit.

    With a background, its row is the last of the classes.
    """
    if not isinstance(tensor, Tensor) or not tensor.ndim:
        return None  # a damaged checkpoint, which strict loading refuses
    classes = num_classes + layout.has_background
    groups, rest = divmod(tensor.shape[0], classes * layout.rows_per_class)
    if rest or not groups:
        return None
    return tensor.reshape(groups, classes, layout.rows_per_class, *tensor.shape[1:])


def _other_axes(by_class: Tensor) -> tuple[int, torch.Size]:
    return by_class.shape[0], by_class.shape[2:]
