"""What INPUT.INTENSITY auto changes: `python -m benchmarks.intensity docs/figures/intensity.png`.

Sample images are stored as 16-bit cameras and tools store them, and drawn as the network gets them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np

from ulga_d2.data.image import read_image
from ulga_d2.data.intensity import FULL_RANGE, Intensity
from ulga_d2.data.sample import write_sample
from ulga_d2.data.used_range import choose_intensity, measure_used_range
from ulga_d2.drawing.grid import fit, grid, header, png
from ulga_d2.drawing.marks import LINE_HEIGHT, WHITE, put_text

IMAGES = 8  # that decide
SIZE = 320
# Sample dataset, what it is stored as, and its stored values: black and white of the sample.
STORED = (
    ("ccellbio", "nuclei, 8-bit values in uint16 files", 0, 235),
    ("brain_tumor", "slices with an offset in uint16 files", 32978, 36863),
)


def stored_images(folder: Path, dataset: str, low: int, high: int) -> list[Path]:
    """Write sample images as 16-bit PNGs whose values lie between `low` and `high`."""
    write_sample(dataset, folder, num_train=IMAGES, num_val=1, size=SIZE, difficulty="easy", seed=0)
    sources = [path for path in sorted(folder.rglob("*")) if path.suffix in (".png", ".jpg")]
    written = []
    for source in sources[:IMAGES]:
        grey = cv2.imread(str(source), cv2.IMREAD_GRAYSCALE).astype(np.float32)
        if dataset == "ccellbio":  # nuclei glow under a fluorescence microscope
            grey = 255 - grey
        share = (grey - grey.min()) / np.ptp(grey)
        written.append(folder / f"stored_{source.stem}.png")
        cv2.imwrite(str(written[-1]), np.rint(low + share * (high - low)).astype(np.uint16))
    return written


def panel(path: Path, intensity: Intensity, words: str) -> np.ndarray:
    """Draw an image as the network gets it, over a line that says so."""
    image = read_image(str(path), intensity)
    picture = fit(image)[0]
    caption = np.zeros((LINE_HEIGHT, picture.shape[1], 3), np.uint8)
    put_text(caption, f"{words}: {image.min():.1f} to {image.max():.1f} of 255", 0, 0, WHITE)
    return np.concatenate([picture, caption])


def main() -> None:
    """Draw each kind of image with "full" at left and "auto" at right."""
    parser = argparse.ArgumentParser(description="Images under INPUT.INTENSITY full and auto.")
    parser.add_argument("picture", type=Path, metavar="FILE")
    args = parser.parse_args()
    panels, lines = [], [("INPUT.INTENSITY: full at left, auto at right", WHITE)]
    with tempfile.TemporaryDirectory() as folder:
        for dataset, what, low, high in STORED:
            paths = stored_images(Path(folder) / dataset, dataset, low, high)
            used = measure_used_range([{"file_name": str(path)} for path in paths])
            auto = choose_intensity(used)
            lines += [(f"{what}:", WHITE), (used.summary(), WHITE)]
            panels += [panel(paths[0], FULL_RANGE, "full"), panel(paths[0], auto, "auto")]
    pictures = grid(panels, 2)
    words = header([[line] for line in lines], pictures.shape[1])
    args.picture.write_bytes(png(np.concatenate([words, pictures])))


if __name__ == "__main__":
    main()
