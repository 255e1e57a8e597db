"""What turns a DICOM frame's stored values into grey levels: rescaling, tables, windows.

They stand in the dataset itself, or (enhanced multi-frame objects) in its functional groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from .dicom_file import SEQUENCES, TABLES, check_sequence
from .image_file import undecodable

_RESCALE = ("RescaleSlope", "RescaleIntercept")
_WINDOW = ("WindowCenter", "WindowWidth", "VOILUTFunction")
# Rows are mapped in parts of about so many pixels, since each takes several float64 for a moment.
_PART = 2**20
# The ends of a rescaled range must differ by so much, as a share of the larger one.
_MIN_SPREAD = 1e-10

Limits = tuple[float, float] | None


def tables_of_frame(dataset: Dataset, frame: int, path: str) -> Dataset:
    """Return the elements of `TABLES` that count for a frame.

    What its functional groups say replaces what the dataset says, and what they say of the frame
    alone what they say of all.

    Raises:
        UserError: a sequence is too large, or describes fewer frames.
    """
    for name in SEQUENCES:
        check_sequence(dataset, name, path)
    tables = Dataset()
    for name in TABLES:
        if dataset.get(name) is not None:
            tables[name] = dataset[name]
    for group in _functional_groups(dataset, frame, path):
        rescale = group.get("PixelValueTransformationSequence")
        if rescale:
            _replace(tables, rescale[0], _RESCALE, "ModalityLUTSequence")
        window = group.get("FrameVOILUTSequence")
        if window:
            _replace(tables, window[0], _WINDOW, "VOILUTSequence")
    return tables


def _functional_groups(dataset: Dataset, frame: int, path: str) -> list[Dataset]:
    shared = dataset.get("SharedFunctionalGroupsSequence")
    each = dataset.get("PerFrameFunctionalGroupsSequence")
    if each and frame >= len(each):
        raise undecodable(
            path, f"its functional groups describe {len(each):,} frames, and not frame {frame:,}"
        )
    return [*(shared[:1] if shared else []), *([each[frame]] if each else [])]


def _replace(tables: Dataset, source: Dataset, names: tuple[str, ...], table: str) -> None:
    for name in (*names, table):
        if name in tables:
            del tables[name]
    for name in names:
        if source.get(name) is not None:
            tables[name] = source[name]


def has_own_window(dataset: Dataset, path: str) -> bool:
    """Tell whether a dataset states a VOI window or table, for its first frame at least.

    Raises:
        UserError: see `tables_of_frame`.
    """
    tables = tables_of_frame(dataset, 0, path)
    return bool(tables.get("VOILUTSequence") or tables.get("WindowCenter") not in (None, ""))


def apply_tables(
    pixels: np.ndarray, tables: Dataset, limits: Limits, path: str, *, apply_voi: bool
) -> tuple[np.ndarray, Limits]:
    """Apply the modality LUT (rescaling, or a table), and the VOI LUT or window if asked for.

    Args:
        pixels: (H, W) as stored.
        tables: see `tables_of_frame`.
        limits: what `pixels` can hold; None where their type declares no range.
        path: of the file, for messages.
        apply_voi: with the file's first VOI LUT or window, if it has any.

    Returns:
        The values, and the limits of these.

    Raises:
        UserError: the rescaling or the window is none.
    """
    steps: list[Callable[[np.ndarray], np.ndarray]] = []
    slope, intercept = tables.get("RescaleSlope"), tables.get("RescaleIntercept")
    if tables.get("ModalityLUTSequence"):
        steps.append(lambda part: apply_modality_lut(part, tables))
        limits = _table_limits(tables.ModalityLUTSequence[0])
    elif slope is not None and intercept is not None and (slope, intercept) != (1, 0):
        limits = _rescaled(limits, float(slope), float(intercept), path)
        steps.append(lambda part: apply_modality_lut(part, tables))
    if apply_voi and _has_voi_table(tables):
        steps.append(lambda part: apply_voi_lut(part, tables))
        limits = _table_limits(tables.VOILUTSequence[0])
    elif apply_voi and _has_window(tables, path):
        if limits is None:  # of floating point: what the window shows is the range
            limits = _window_ends(tables)
        else:
            # pydicom takes the ends of its output in the stored order.
            turned = sum(limits) if (slope or 0) < 0 else None
            steps.append(lambda part: _windowed(part, tables, turned))
    return _in_parts(pixels, steps), limits


def _in_parts(pixels: np.ndarray, steps: list[Callable[[np.ndarray], np.ndarray]]) -> np.ndarray:
    """Return the result of all steps, computed for some rows at a time."""
    if not steps:
        return pixels
    height, width = pixels.shape
    rows = max(1, _PART // width)
    result = None
    for start in range(0, height, rows):
        part = pixels[start : start + rows]
        for step in steps:
            part = step(part)
        if result is None:
            result = np.empty(pixels.shape, part.dtype)
        result[start : start + rows] = part
    return result


def _windowed(part: np.ndarray, tables: Dataset, turned: float | None) -> np.ndarray:
    shown = apply_voi_lut(part, tables)
    return shown if turned is None else turned - shown


def _rescaled(limits: Limits, slope: float, intercept: float, path: str) -> Limits:
    ends = sorted(end * slope + intercept for end in (limits or (0.0, 1.0)))
    largest = max(map(abs, ends))
    # Also false of NaN, and of a slope too small for a number of 32 bits.
    is_usable = ends[1] - ends[0] > max(largest * _MIN_SPREAD, float(np.finfo(np.float32).tiny))
    if not (is_usable and largest < float(np.finfo(np.float32).max)):
        raise undecodable(
            path,
            "its RescaleSlope is 0, not finite, or too small or large to tell its values apart",
        )
    return None if limits is None else (ends[0], ends[1])


def _has_voi_table(tables: Dataset) -> bool:
    found = tables.get("VOILUTSequence")
    return bool(found and found[0].get("LUTDescriptor") and found[0].get("LUTData"))


def _has_window(tables: Dataset, path: str) -> bool:
    """Tell whether there is a window; refuse one that shows nothing."""
    center, width = (_first(tables.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is None and width is None:
        return False
    fix = "INPUT.INTENSITY window or percentile reads it without"
    if center is None or width is None:
        raise undecodable(path, f"it has only one of WindowCenter and WindowWidth; {fix}")
    is_linear = str(tables.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR"
    if not math.isfinite(center):
        raise undecodable(path, f"its WindowCenter is not finite; {fix}")
    if not (math.isfinite(width) and (width >= 1 if is_linear else width > 0)):
        least = "at least 1" if is_linear else "above 0"
        raise undecodable(path, f"its WindowWidth is 0, negative or not finite, not {least}; {fix}")
    return True


def _window_ends(tables: Dataset) -> tuple[float, float]:
    center, width = _first(tables.WindowCenter), _first(tables.WindowWidth)
    return center - width / 2, center + width / 2


def _first(value: object) -> float | None:
    """Return the first of one or several numbers; None where there is none."""
    if value is None or value == "":
        return None
    if isinstance(value, (str, int, float)):
        return float(value)
    values = list(value)  # type: ignore[call-overload]
    return float(values[0]) if values else None


def _table_limits(table: Dataset) -> tuple[float, float]:
    return 0.0, 2.0 ** int(table.LUTDescriptor[2]) - 1
