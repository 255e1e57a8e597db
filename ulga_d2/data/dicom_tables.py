"""What turns a DICOM frame's stored values into grey levels: rescaling, tables, windows.

They stand in the dataset itself, or (enhanced multi-frame objects) in its functional groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from .dicom_file import SEQUENCES, TABLES, check_sequence
from .image_file import undecodable
from .intensity import row_parts


@dataclass(frozen=True)
class _Macro:
    """A sequence of functional groups, and what it replaces of the dataset.

    Attributes:
        sequence: in a functional group; its one item has the elements.
        names: of the elements.
        table: a sequence of the dataset that has the same purpose.
        must_agree: a dataset that states other values itself is contradictory.
    """

    sequence: str
    names: tuple[str, ...]
    table: str
    must_agree: bool


_MACROS = (
    _Macro(
        "PixelValueTransformationSequence",
        ("RescaleSlope", "RescaleIntercept"),
        "ModalityLUTSequence",
        must_agree=True,
    ),
    _Macro(
        "FrameVOILUTSequence",
        ("WindowCenter", "WindowWidth", "VOILUTFunction"),
        "VOILUTSequence",
        must_agree=False,
    ),
)
_EACH = "PerFrameFunctionalGroupsSequence"
# The ends of a rescaled range must differ by so much, as a share of the larger one.
_MIN_SPREAD = 1e-10

Limits = tuple[float, float] | None


def described_by_frame(dataset: Dataset, path: str) -> frozenset[str]:
    """Return the sequences of `_MACROS` that stand in the functional groups of any frame.

    Raises:
        UserError: the groups are too large.
    """
    check_sequence(dataset, _EACH, path)
    each = dataset.get(_EACH) or ()
    names = [macro.sequence for macro in _MACROS]
    return frozenset(name for name in names if any(group.get(name) for group in each))


def tables_of_frame(dataset: Dataset, frame: int, path: str, described: frozenset[str]) -> Dataset:
    """Return the elements of `TABLES` that count for a frame.

    What its functional groups say replaces what the dataset says.

    Args:
        dataset: of the file.
        frame: its number, from 0.
        path: of the file, for messages.
        described: see `described_by_frame`, which looks at all frames.

    Raises:
        UserError: a sequence is too large or describes another number of frames, a value cannot be
            read, the functional groups describe other frames alone, or values contradict others.
    """
    for name in SEQUENCES:
        check_sequence(dataset, name, path)
    tables = Dataset()
    for name in TABLES:
        _take(name, dataset, tables, path)
    for macro in _MACROS:
        _apply_macro(macro, dataset, frame, tables, path, macro.sequence in described)
    return tables


def _take(name: str, source: Dataset, tables: Dataset, path: str) -> None:
    """Copy an element that has a value."""
    try:
        if source.get(name) is not None:
            tables[name] = source[name]
    except Exception:  # pydicom lets through whatever a damaged value causes
        raise undecodable(path, f"its {name} cannot be read") from None


def _apply_macro(
    macro: _Macro, dataset: Dataset, frame: int, tables: Dataset, path: str, is_of_frames: bool
) -> None:
    """Replace what the dataset says by what its functional groups say, if they say anything."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    each = dataset.get(_EACH) or ()
    frames = int(dataset.get("NumberOfFrames") or 1)
    if is_of_frames and len(each) != frames:
        raise undecodable(
            path,
            f"its functional groups describe {len(each):,} frames, and its header states "
            f"{frames:,}",
        )
    groups = [*shared[:1], *each[frame : frame + 1]]
    found = [_stated(macro, group, path) for group in groups if group.get(macro.sequence)]
    if not found and is_of_frames:
        raise undecodable(
            path, f"its functional groups lack {macro.sequence} of frame {frame:,} alone"
        )
    if not found:
        return
    replaced = Dataset({tag: tables[tag] for tag in tables.keys() if _is_of(macro, tables[tag])})
    if macro.must_agree and replaced:
        found.insert(0, replaced)
    if any(other != found[-1] for other in found):
        raise undecodable(path, f"it states {' and '.join(macro.names[:2])} twice, and differently")
    for element in replaced:
        del tables[element.tag]
    tables.update(found[-1])


def _is_of(macro: _Macro, element: DataElement) -> bool:
    return element.keyword in (*macro.names, macro.table)


def _stated(macro: _Macro, group: Dataset, path: str) -> Dataset:
    found = Dataset()
    for name in macro.names:
        _take(name, group[macro.sequence][0], found, path)
    return found


def has_own_window(dataset: Dataset, frame: int, path: str, described: frozenset[str]) -> bool:
    """Tell whether a dataset states a VOI window or table for a frame.

    Raises:
        UserError: see `tables_of_frame`.
    """
    tables = tables_of_frame(dataset, frame, path, described)
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
    slope, intercept = _rescale(tables, path)
    if tables.get("ModalityLUTSequence"):
        steps.append(lambda part: apply_modality_lut(part, tables))
        limits = _table_limits(tables.ModalityLUTSequence[0])
    elif (slope, intercept) != (1, 0):
        limits = _rescaled(limits, slope, intercept, path)
        steps.append(lambda part: apply_modality_lut(part, tables))
    if apply_voi and _has_voi_table(tables):
        steps.append(lambda part: apply_voi_lut(part, tables))
        limits = _table_limits(tables.VOILUTSequence[0])
    elif apply_voi and _has_window(tables, path):
        if limits is None:  # of floating point: what the window shows is the range
            limits = _window_ends(tables, path)
        else:
            # pydicom takes the ends of its output in the stored order.
            turned = sum(limits) if slope < 0 else None
            steps.append(lambda part: _windowed(part, tables, turned))
    return _in_parts(pixels, steps), limits


def _in_parts(pixels: np.ndarray, steps: list[Callable[[np.ndarray], np.ndarray]]) -> np.ndarray:
    """Return the result of all steps, computed for some rows at a time."""
    if not steps:
        return pixels
    result = None
    for rows in row_parts(pixels):
        part = pixels[rows]
        for step in steps:
            part = step(part)
        if result is None:
            result = np.empty(pixels.shape, part.dtype)
        result[rows] = part
    return result


def _windowed(part: np.ndarray, tables: Dataset, turned: float | None) -> np.ndarray:
    shown = apply_voi_lut(part, tables)
    return shown if turned is None else turned - shown


def _rescale(tables: Dataset, path: str) -> tuple[float, float]:
    """Return slope and intercept, 1 and 0 where there are none."""
    slope, intercept = (
        _number(tables, name, path) for name in ("RescaleSlope", "RescaleIntercept")
    )
    if slope is None and intercept is None:
        return 1.0, 0.0
    if slope is None or intercept is None:
        raise undecodable(path, "it has only one of RescaleSlope and RescaleIntercept")
    for name, value in (("RescaleSlope", slope), ("RescaleIntercept", intercept)):
        if not math.isfinite(value):
            raise undecodable(path, f"its {name} is not finite")
    if slope == 0:
        raise undecodable(path, "its RescaleSlope is 0, so all its pixels would be equal")
    return slope, intercept


def _rescaled(limits: Limits, slope: float, intercept: float, path: str) -> Limits:
    ends = sorted(end * slope + intercept for end in (limits or (0.0, 1.0)))
    largest = max(map(abs, ends))
    if not largest < float(np.finfo(np.float32).max):
        raise undecodable(path, "its RescaleSlope or RescaleIntercept is too large")
    # A number of 32 bits must tell the values apart.
    if not ends[1] - ends[0] > max(largest * _MIN_SPREAD, float(np.finfo(np.float32).tiny)):
        raise undecodable(path, "its RescaleSlope is too small to tell its values apart")
    return None if limits is None else (ends[0], ends[1])


def _has_voi_table(tables: Dataset) -> bool:
    found = tables.get("VOILUTSequence")
    return bool(found and found[0].get("LUTDescriptor") and found[0].get("LUTData"))


def _has_window(tables: Dataset, path: str) -> bool:
    """Tell whether there is a window; refuse one that shows nothing."""
    center, width = (_number(tables, name, path) for name in ("WindowCenter", "WindowWidth"))
    if center is None and width is None:
        return False
    fix = "INPUT.INTENSITY window or percentile reads it without"
    if center is None or width is None:
        raise undecodable(path, f"it has only one of WindowCenter and WindowWidth; {fix}")
    for name, value in (("WindowCenter", center), ("WindowWidth", width)):
        if not math.isfinite(value):
            raise undecodable(path, f"its {name} is not finite; {fix}")
    is_linear = str(tables.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR"
    if width < 1 if is_linear else width <= 0:
        least = "at least 1" if is_linear else "above 0"
        raise undecodable(path, f"its WindowWidth is {width:g}, and must be {least}; {fix}")
    return True


def _window_ends(tables: Dataset, path: str) -> tuple[float, float]:
    center, width = (_number(tables, name, path) for name in ("WindowCenter", "WindowWidth"))
    return center - width / 2, center + width / 2


def _number(tables: Dataset, name: str, path: str) -> float | None:
    """Return an element's number, or the first of several; None where there is none."""
    value = tables.get(name)
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise undecodable(path, f"its {name} is no number") from None


def _table_limits(table: Dataset) -> tuple[float, float]:
    return 0.0, 2.0 ** int(table.LUTDescriptor[2]) - 1
