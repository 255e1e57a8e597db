"""Small files that stand for gigabytes end in a message, in bounded memory and time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_images import HOSTILE, LARGEST, black_png, jpeg, write_all, ybr_dicom

from ulga_d2.data.image_header import image_facts

# Reads each file in one process; the peak of resident memory is set back before each.
CHILD = """
import json, sys, time
import ulga_d2.data.dicom, ulga_d2.data.formats.cheng
from ulga_d2.data.image import read_image
from ulga_d2.data.image_header import image_facts
from ulga_d2.data.intensity import Intensity
from ulga_d2.errors import UserError

def stretched(path):
    return read_image(path, Intensity("percentile", 1, 99))

def resident(kind):
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) * 1024

for path in sys.argv[1:]:
    for read in (image_facts, read_image, stretched):
        open("/proc/self/clear_refs", "w").write("5")
        before, start = resident("VmRSS"), time.perf_counter()
        try:
            read(path)
            message = "read"
        except UserError as error:
            message = str(error)
        seconds, peak = time.perf_counter() - start, resident("VmHWM")
        print(json.dumps([path, message, seconds, peak - before]), flush=True)
"""
SECONDS = 20
# The process itself takes up to 0.8 GB, most of it torch.
MOST_BYTES = 750_000_000


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, list[tuple[str, float, int]]]:
    """Return what reading the header and the pixels of each file gave: words, seconds, bytes."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("peak memory is set back through /proc of Linux")
    folder = tmp_path_factory.mktemp("hostile")
    paths = [str(path) for path in write_all(folder, HOSTILE | LARGEST)]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *paths],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found: dict[str, list[tuple[str, float, int]]] = {}
    for line in child.stdout.splitlines():
        path, *outcome = json.loads(line)
        found.setdefault(Path(path).name, []).append(tuple(outcome))
    assert child.returncode == 0, child.stderr[-2000:]
    found["stderr"] = [(child.stderr, 0, 0)]
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_a_small_hostile_file_ends_in_its_message_within_limits(outcomes, name):
    (_, *header), (message, *pixels), (_, *again) = outcomes[name]
    assert re.search(HOSTILE[name][1], message)
    assert message == "read" or name in message
    for seconds, used in (header, pixels, again):
        assert seconds < SECONDS and used < MOST_BYTES


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_images_that_are_read_stay_within_limits(outcomes, name):
    (_, *header), (message, *pixels), (stretched, *again) = outcomes[name]
    assert message == "read"
    assert header[1] < 50_000_000
    assert stretched == "read" or "bytes in memory" in stretched
    for seconds, used in (pixels, again):
        assert seconds < SECONDS and used < MOST_BYTES


def test_sizes_that_cameras_and_scanners_have_are_read(tmp_path):
    sizes = {
        "lesion.dcm": (ybr_dicom(6_000, 4_000), (4_000, 6_000)),
        "photograph.jpg": (jpeg(7_000, 5_000, progressive=True), (5_000, 7_000)),
        "plate.png": (black_png(6_500, 6_500, 16, 0), (6_500, 6_500)),
        "large.jpg": (jpeg(10_000, 10_000), (10_000, 10_000)),
    }
    for name, (data, size) in sizes.items():
        (tmp_path / name).write_bytes(data)
        facts = image_facts(str(tmp_path / name))
        assert (facts.height, facts.width) == size


def test_nothing_but_the_messages_is_printed(outcomes):
    lines = outcomes["stderr"][0][0].splitlines()
    assert [line for line in lines if re.search("libpng|JPEG|TIFF|OpenCV|HDF5", line)] == []
