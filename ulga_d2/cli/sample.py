"""`ulga sample`: write a synthetic data set in a real one's layout."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from ..terminal import log_to_stderr, show

# Of each data set, the forms in which it is distributed; the first is the usual one.
FORMATS = {
    "brain_tumor": ("yolo", "yolo_old", "roboflow", "cheng", "via"),
    "nih_chest_xray": ("nih",),
    "rsna_pneumonia": ("rsna",),
    "cod10k": ("v2", "v3", "kaggle"),
    "ccellbio": ("ours",),
}
# Of each data set, what it can be made to ask besides its usual question.
TASKS = {
    "brain_tumor": ("context", "small", "medium", "large"),
    "cod10k": tuple(f"similarity_{percent}" for percent in (0, 20, 40, 60, 80)),
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
    parser.add_argument(
        "--format",
        default=argparse.SUPPRESS,
        help=f"the form of the data set ({_listed(FORMATS)}; default: the first)",
    )
    parser.add_argument(
        "--task",
        default=argparse.SUPPRESS,
        help=f"what the sample is made to ask, instead of the usual question ({_listed(TASKS)})",
    )
    parser.add_argument(
        "--defects",
        default=argparse.SUPPRESS,
        metavar="LIST",
        help="put in faults, such as box_outside,missing_image, or all that fit the form; "
        "defects.json then says what should be reported",
    )


def _listed(known: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name}: {', '.join(one)}" for name, one in known.items() if len(one) > 1)


def run(args: argparse.Namespace) -> int:
    """Write the sample and say where it is."""
    from ..data.sample import write_sample
    from ..data.sample.defects import defects_of

    log_to_stderr()
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
        task=getattr(args, "task", ""),
    )
    if written:
        show(f"wrote {args.num_train} training and {args.num_val} validation images to {args.out}")
    else:
        show(f"{args.out} already holds this sample; nothing to do")
    return 0
