"""`ulga sample`: write a synthetic data set in a real one's layout."""

from __future__ import annotations

import argparse
import logging
import sys

# Of each data set, the forms in which it is distributed; the first is the usual one.
FORMATS = {
    "brain_tumor": ("yolo", "yolo_old", "roboflow", "cheng", "via"),
    "nih_chest_xray": ("nih",),
    "rsna_pneumonia": ("rsna",),
    "cod10k": ("v2", "v3", "kaggle"),
    "ccellbio": ("ours",),
}
ALL_DEFECTS = "all"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "sample",
        description="Write a synthetic data set, without medical meaning, in a real one's layout.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("dataset", choices=list(FORMATS), help="whose layout to write")
    parser.add_argument("out", help="the folder to write; new or empty")
    parser.add_argument("--num-train", type=int, default=400, help="training images")
    parser.add_argument(
        "--num-val", type=int, default=100, help="validation images, and test images if any"
    )
    parser.add_argument("--size", type=int, default=128, help="width of an image in pixels")
    parser.add_argument(
        "--difficulty",
        choices=["easy", "medium", "hard"],
        default="easy",
        help="how clearly objects stand out from their surroundings and from look-alikes",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, other images")
    several = "; ".join(
        f"{name}: {', '.join(forms)}" for name, forms in FORMATS.items() if len(forms) > 1
    )
    parser.add_argument(
        "--format",
        default=argparse.SUPPRESS,
        help=f"the form of the data set ({several}; default: the first)",
    )
    parser.add_argument(
        "--defects",
        default=argparse.SUPPRESS,
        metavar="LIST",
        help="put in faults, such as box_outside,missing_image, or all that fit the form; "
        "defects.json then says what should be reported",
    )


def run(args: argparse.Namespace) -> int:
    """Write the sample and say where it is."""
    from ..data.sample import write_sample
    from ..data.sample.defects import defects_of

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    layout = getattr(args, "format", FORMATS[args.dataset][0])
    defects = [name for name in getattr(args, "defects", "").split(",") if name]
    written = write_sample(
        args.dataset,
        args.out,
        num_train=args.num_train,
        num_val=args.num_val,
        size=args.size,
        difficulty=args.difficulty,
        seed=args.seed,
        layout=layout,
        defects=defects_of(layout) if defects == [ALL_DEFECTS] else defects,
    )
    if written:
        print(f"wrote {args.num_train} training and {args.num_val} validation images to {args.out}")
    else:
        print(f"{args.out} already holds this sample; nothing to do")
    return 0
