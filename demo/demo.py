"""Draw detections on images, with the flags of detectron2's demo.

Example::

    python demo/demo.py --config-file output/demo/inference/config.yaml \
        --input a.png b.dcm --output drawn --confidence-threshold 0.5

`ulga predict` does more: many formats, tiles, resuming, several processes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ulga_d2 import Predictor
from ulga_d2.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Draw detections on each input; return 0, or 2 for an error that the user can fix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a run's config")
    parser.add_argument("--input", nargs="+", required=True, help="images of any kind")
    parser.add_argument("--output", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--confidence-threshold", type=float, default=0.5, help="lowest score")
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config overrides, such as MODEL.WEIGHTS model_final.pth",
    )
    args = parser.parse_args(argv)
    try:
        overrides = _pairs(args.opts)
        weights = overrides.pop("MODEL.WEIGHTS", None)
        device = overrides.pop("MODEL.DEVICE", "auto")
        predictor = Predictor(
            args.config_file,
            weights,
            score=args.confidence_threshold,
            device=device,
            overrides=overrides,
        )
        args.output.mkdir(parents=True, exist_ok=True)
        for number, result in enumerate(predictor(args.input)):
            path = args.output / f"{number:04d}_{Path(result.source).name}.png"
            result.draw().save(path)
            print(f"{result.source}: {len(result)} detections, {path}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _pairs(opts: Sequence[str]) -> dict[str, str]:
    if len(opts) % 2:
        raise UserError(f"--opts takes pairs of KEY VALUE, but {len(opts)} words were given")
    return dict(zip(opts[::2], opts[1::2], strict=True))


if __name__ == "__main__":
    sys.exit(main())
