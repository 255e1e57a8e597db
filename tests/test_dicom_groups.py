"""Enhanced multi-frame DICOM: rescaling and windows of its functional groups count by frame."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from dicom_files import dicom_of
from pydicom.dataset import Dataset
from pydicom.pixels import apply_rescale, apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from ulga_d2.data.image import count_frames, read_image
from ulga_d2.data.image_header import image_facts
from ulga_d2.data.intensity import Intensity
from ulga_d2.errors import UserError

FRAMES = np.random.default_rng(0).integers(0, 4096, (3, 9, 14)).astype(np.uint16)
RESCALES = [(1, -1024), (2.5, -1024), (-1, 4095)]
WINDOWS = [(40, 400), (-600, 1500), (2000, 3000)]
MACROS = {
    "rescale": ("PixelValueTransformationSequence", ("RescaleSlope", "RescaleIntercept")),
    "window": ("FrameVOILUTSequence", ("WindowCenter", "WindowWidth")),
}


def item(**elements: object) -> Dataset:
    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def group(**macros: tuple[float, float] | None) -> Dataset:
    """Return a functional group, such as `group(rescale=(1, -1024))`."""
    made = Dataset()
    for kind, values in macros.items():
        sequence, names = MACROS[kind]
        if values is not None:
            setattr(made, sequence, Sequence([item(**dict(zip(names, values, strict=True)))]))
    return made


def write(path, shared: Dataset | None, each: list[Dataset], **elements: object) -> str:
    dataset = dicom_of(FRAMES[0], NumberOfFrames=3, BitsStored=12, HighBit=11, **elements)
    dataset.PixelData = FRAMES.tobytes()
    if shared is not None:
        dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    if each:
        dataset.PerFrameFunctionalGroupsSequence = Sequence(each)
    dataset.save_as(path, enforce_file_format=True)
    return str(path)


def expected(frame: int, rescale: tuple[float, float], window: tuple[float, float] | None):
    """Return what pydicom makes of a frame once it has these values as a dataset of its own."""
    alone = dicom_of(FRAMES[frame], BitsStored=12, HighBit=11)
    alone.RescaleSlope, alone.RescaleIntercept = rescale
    values = apply_rescale(FRAMES[frame], alone)
    low, high = sorted(end * rescale[0] + rescale[1] for end in (0, 4095))
    if window is not None:
        center, width = window
        share = (values - (center - 0.5)) / (width - 1) + 0.5
        if rescale[0] > 0:  # of a negative slope, pydicom turns the window around
            alone.WindowCenter, alone.WindowWidth = window
            shown = apply_windowing(values, alone)
            np.testing.assert_allclose(
                (shown - low) / (high - low), np.clip(share, 0, 1), atol=1e-9
            )
        return 255 * np.clip(share, 0, 1)
    return 255 * (values - low) / (high - low)


def assert_frames(path: str, rescales: list, windows: list) -> None:
    assert count_frames(path) == 3
    for frame, (rescale, window) in enumerate(zip(rescales, windows, strict=True)):
        shown = read_image(path, frame=frame)[..., 0]
        assert np.abs(shown - expected(frame, rescale, window)).max() <= 1e-3
        assert image_facts(path, frame).has_window == (window is not None)
        values = FRAMES[frame].astype(np.float64) * rescale[0] + rescale[1]
        shown = read_image(path, Intensity("window", -160, 240), frame)[..., 0]
        assert np.abs(shown - 255 * np.clip((values + 160) / 400, 0, 1)).max() <= 1e-3


def test_values_of_each_frame_count_for_it_alone(tmp_path):
    each = [group(rescale=r, window=w) for r, w in zip(RESCALES, WINDOWS, strict=True)]
    assert_frames(write(tmp_path / "a.dcm", None, each), RESCALES, WINDOWS)


def test_shared_values_count_for_all_frames(tmp_path):
    shared = group(rescale=RESCALES[1], window=WINDOWS[1])
    path = write(tmp_path / "a.dcm", shared, [])
    assert_frames(path, [RESCALES[1]] * 3, [WINDOWS[1]] * 3)


def test_shared_rescaling_goes_with_windows_of_each_frame(tmp_path):
    each = [group(window=window) for window in WINDOWS]
    path = write(tmp_path / "a.dcm", group(rescale=RESCALES[1]), each)
    assert_frames(path, [RESCALES[1]] * 3, WINDOWS)


def test_rescaling_without_a_window_spreads_the_stored_range(tmp_path):
    path = write(tmp_path / "a.dcm", Dataset(), [group(rescale=rescale) for rescale in RESCALES])
    assert_frames(path, RESCALES, [None] * 3)


def test_windows_of_frames_replace_that_of_the_dataset(tmp_path):
    each = [group(rescale=(1, -1024), window=window) for window in WINDOWS]
    path = write(tmp_path / "a.dcm", None, each, WindowCenter=1, WindowWidth=2)
    assert_frames(path, [(1, -1024)] * 3, WINDOWS)


def test_the_same_values_twice_are_no_contradiction(tmp_path):
    shared = group(rescale=(2, -9), window=(40, 400))
    own = {"RescaleSlope": 2, "RescaleIntercept": -9}
    path = write(tmp_path / "a.dcm", shared, [shared] * 3, **own)
    assert_frames(path, [(2, -9)] * 3, [(40, 400)] * 3)


ONE = group(rescale=(1, -1024), window=(40, 400))
TWO = group(rescale=(2, -1024), window=(40, 400))
NARROW = group(rescale=(1, -1024), window=(40, 80))
NO_SLOPE = Dataset()
NO_SLOPE.PixelValueTransformationSequence = Sequence([item(RescaleIntercept=-1024)])
NO_WIDTH = Dataset()
NO_WIDTH.FrameVOILUTSequence = Sequence([item(WindowCenter=40)])
OWN = {"RescaleSlope": 1, "RescaleIntercept": 0}


@pytest.mark.parametrize(
    ("shared", "each", "own", "message"),
    [
        (ONE, [TWO] * 3, {}, "states RescaleSlope and RescaleIntercept twice, and differently"),
        (ONE, [NARROW] * 3, {}, "states WindowCenter and WindowWidth twice, and differently"),
        (ONE, [], OWN, "states RescaleSlope and RescaleIntercept twice, and differently"),
        (None, [ONE] * 2, {}, "groups describe 2 frames, and its header states 3"),
        (None, [ONE] * 4, {}, "groups describe 4 frames, and its header states 3"),
        (
            None,
            [group(window=(40, 400)), ONE, ONE],
            {},
            "groups lack PixelValueTransformationSequence of frame 0 alone",
        ),
        (
            None,
            [group(rescale=(1, 0)), ONE, ONE],
            {},
            "groups lack FrameVOILUTSequence of frame 0",
        ),
        (NO_SLOPE, [], {}, "has only one of RescaleSlope and RescaleIntercept"),
        (NO_WIDTH, [], {}, "has only one of WindowCenter and WindowWidth"),
        (group(rescale=(0, 1)), [], {}, "its RescaleSlope is 0"),
        (group(window=(40, 0)), [], {}, "its WindowWidth is 0, and must be at least 1"),
    ],
)
def test_groups_that_contradict_or_lack_values_are_refused_by_name(
    tmp_path, shared, each, own, message
):
    path = write(tmp_path / "a.dcm", shared, each, **own)
    with pytest.raises(UserError, match=rf"a\.dcm cannot be decoded \(.*{message}"):
        read_image(path, frame=0)


def test_a_frame_without_its_values_is_refused_where_it_is_asked_for(tmp_path):
    path = write(tmp_path / "a.dcm", None, [ONE, ONE, group(window=(40, 400))])
    assert read_image(path, frame=1).shape == (9, 14, 3)
    for read in (lambda: read_image(path, frame=2), lambda: image_facts(path, 2)):
        with pytest.raises(UserError, match=r"a\.dcm .*TransformationSequence of frame 2"):
            read()


def calls(function) -> int:
    """Return how many functions, of Python and of C, are called until this one is done."""
    found = []
    sys.setprofile(lambda frame, event, argument: found.append(event))
    try:
        function()
    finally:
        sys.setprofile(None)
    return sum(event in ("call", "c_call") for event in found)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_frame_takes_as_much_work_in_a_file_of_many_as_of_few(tmp_path, compressed):
    work = {}
    intensity = Intensity("window", 0, 2600)
    for count in (10, 400):
        pixels = np.arange(count, dtype=np.uint8)[:, None, None] + FRAMES[0].astype(np.uint8)
        dataset = dicom_of(pixels[0], NumberOfFrames=count)
        dataset.PixelData = pixels.tobytes()
        each = [group(rescale=(number + 1, 0)) for number in range(count)]
        dataset.PerFrameFunctionalGroupsSequence = Sequence(each)
        if compressed:
            dataset.compress(RLELossless)
        path = tmp_path / f"{count}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        assert count_frames(str(path)) == count
        for number in (0, 9):
            found = read_image(str(path), intensity, frame=number)[..., 0]
            values = np.clip(pixels[number] * (number + 1.0), 0, 2600)
            np.testing.assert_allclose(found, values * (255 / 2600), atol=1e-3)
        work[count] = calls(lambda path=path: read_image(str(path), intensity, frame=9))
    assert work[400] < (3 if compressed else 1.2) * work[10]
