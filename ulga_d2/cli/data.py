"""`ulga data`: check, show, convert or split a data set."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..terminal import log_to_stderr, show, table
from .draws import add_anonymize_option
from .settings import add_set_option, set_trailing, words_of

WHAT = "a config, a data set (brain_tumor), one split (brain_tumor_val), or an own set's YAML"


def prepare(words: Sequence[str]) -> list[str]:
    """Take KEY VALUE at the end of the command line, as training does."""
    return set_trailing(words)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's actions and their arguments."""
    parser = subparsers.add_parser(
        "data", description="Check, show, convert or split a data set before training on it."
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_check(actions)
    _add_show(actions)
    _add_convert(actions)
    _add_split(actions)


def run(args: argparse.Namespace) -> int:
    """Do what was asked for; return its exit code."""
    log_to_stderr()
    return args.action(args)


def _add(
    actions: argparse._SubParsersAction,
    name: str,
    action: Callable[[argparse.Namespace], int],
    description: str,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, description=description, help=description)
    parser.add_argument("what", metavar="WHAT", help=WHAT)
    add_set_option(parser)
    parser.set_defaults(action=action)
    return parser


def _add_check(actions: argparse._SubParsersAction) -> None:
    parser = _add(
        actions,
        "check",
        _check,
        "Decode every image and look for all that would spoil a training. Exit code 1 with errors, "
        "and with --strict also with problems.",
    )
    parser.add_argument("--strict", action="store_true", help="problems count as errors")
    parser.add_argument(
        "--headers", action="store_true", help="read the headers alone: no damage, no duplicates"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="write the picture (PNG)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write both, as data_report.json and data_sheet.png"
    )
    parser.add_argument(
        "--folds",
        type=Path,
        metavar="FILE",
        help="a file of `ulga data split`, whose folds should share no image (default: the "
        "config's DATASETS.FOLDS_FILE)",
    )
    add_anonymize_option(parser)


def _check(args: argparse.Namespace) -> int:
    from ..data.check.doctor import check_splits
    from ..data.check.report import as_dict, as_text, verdict
    from ..data.check.sheet import check_sheet
    from ..data.folds import read_folds
    from ..drawing.grid import png
    from .data_sets import find_data_set

    data_set = find_data_set(args.what, words_of(args))
    settings = replace(data_set.settings, decode=not args.headers, anonymize=args.anonymize)
    if args.folds:
        settings = replace(settings, folds=read_folds(str(args.folds)))
    is_file = Path(data_set.name).suffix in (".yaml", ".yml")
    name = "a config" if args.anonymize and is_file else data_set.name
    checkup = check_splits(data_set.load(), settings)
    show(as_text(name, checkup))
    if args.out:
        args.json = args.json or args.out / "data_report.json"
        args.sheet = args.sheet or args.out / "data_sheet.png"
    if args.json:
        report = json.dumps(as_dict(name, checkup), indent=1, ensure_ascii=False)
        _write(args.json, f"{report}\n".encode())
    if args.sheet:
        _write(args.sheet, png(check_sheet(name, checkup, settings)))
    bad = {"errors", "problems"} if args.strict else {"errors"}
    return int(verdict(checkup) in bad)


def _add_show(actions: argparse._SubParsersAction) -> None:
    parser = _add(actions, "show", _show, "Draw images with their boxes and masks.")
    parser.add_argument(
        "--split", help="which split, such as val or cells_val (default: the first)"
    )
    parser.add_argument("--num", type=int, default=12, help="how many images (default 12)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other images")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--sheet", type=Path, metavar="FILE", help="all on one sheet (PNG)")
    place.add_argument("--out", type=Path, metavar="DIR", help="one PNG each, in this folder")


def _show(args: argparse.Namespace) -> int:
    from ..data.sheet import annotated, contact_sheet, sample_of
    from ..drawing.grid import png
    from ..errors import UserError
    from .data_sets import find_data_set

    for name, value, least in (("--num", args.num, 1), ("--seed", args.seed, 0)):
        if value < least:
            raise UserError(f"{name} is {value}; give {least} or more")
    data_set = find_data_set(args.what, words_of(args))
    split = data_set.split(args.split) if args.split else next(iter(data_set.loaders))
    loaded = data_set.loaders[split]()
    if not loaded.records:
        raise UserError(f"{split} of {data_set.name} has no image")
    chosen = sample_of(loaded.records, args.num, args.seed)
    intensity = data_set.intensity({split: loaded})
    if args.sheet:
        title = f"{data_set.name}: {len(chosen)} of {len(loaded.records):,} images of {split}"
        _write(args.sheet, png(contact_sheet(title, chosen, loaded.class_names, intensity)))
        return 0
    for number, record in enumerate(chosen):
        file = args.out / f"{number:03d}_{Path(record['file_name']).stem}.png"
        _write(file, png(annotated(record, loaded.class_names, intensity)))
    return 0


def _add_convert(actions: argparse._SubParsersAction) -> None:
    parser = _add(
        actions, "convert", _convert, "Write the data set anew as clean COCO, YOLO or VOC."
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write; new or empty")
    parser.add_argument("--to", required=True, choices=["coco", "yolo", "voc"], help="the format")


def _convert(args: argparse.Namespace) -> int:
    from ..data.convert import convert
    from .data_sets import find_data_set

    data_set = find_data_set(args.what, words_of(args))
    splits = data_set.load_all()
    name = Path(data_set.name).stem
    left_out = convert(name, splits, args.out, args.to, data_set.intensity(splits))
    description = args.out / "dataset.yaml"
    for split, loaded in splits.items():
        groups = f", without {left_out[split]:,} boxes around groups" if left_out[split] else ""
        show(f"{split}: {loaded.report.summary()}{groups}")
    show(f"wrote {args.out} as {args.to}; train on it with DATASETS.CUSTOM {description}")
    return 0


def _add_split(actions: argparse._SubParsersAction) -> None:
    parser = _add(
        actions,
        "split",
        _split,
        "Divide the images of train and val anew into folds, and write the file that "
        "DATASETS.FOLDS_FILE names. A patient's fold is a hash of seed and patient.",
    )
    parser.add_argument("--folds", type=int, default=5, help="how many (default 5)")
    parser.add_argument(
        "--group",
        choices=["patient", "image"],
        default="patient",
        help="what stays together (default patient)",
    )
    parser.add_argument(
        "--stratify", choices=["class"], help="even out the classes, by scikit-learn"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, other folds")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: WHAT_folds.json")


def _split(args: argparse.Namespace) -> int:
    from ..data.folds import to_json
    from ..data.make_folds import balance, make_folds, uneven
    from ..errors import UserError
    from .data_sets import find_data_set

    data_set = find_data_set(args.what, words_of(args))
    pooled = {
        name: data_set.loaders[name]() for name in ("train", "val") if name in data_set.loaders
    }
    if not pooled:
        raise UserError(f"{args.what} has no split train or val; name a whole data set")
    folds = make_folds(
        data_set.name,
        pooled,
        k=args.folds,
        group=args.group,
        stratify=args.stratify is not None,
        seed=args.seed,
    )
    counts = balance(pooled, folds)
    _print_balance(counts)
    for line in uneven(counts):
        show(f"warning: {line}")
    path = args.out or Path(f"{data_set.name}_folds.json")
    code = _write_once(path, to_json(folds))
    show(f"to look for copies across folds: ulga data check {args.what} --folds {path}")
    return code


def _print_balance(counts: list[Counter[str]]) -> None:
    labels = sorted(sum(counts, Counter()))
    rows = [[fold, *(count[label] for label in labels)] for fold, count in enumerate(counts)]
    show(table(rows, ["fold", *labels], intfmt=","))


def _write_once(path: Path, content: str) -> int:
    """Write a fold file, unless it is there already; another one is never overwritten."""
    from ..data.formats.text import read_text
    from ..errors import UserError

    if not path.exists():
        _write(path, content.encode())
    elif read_text(str(path)) == content:
        show(f"{path} holds these folds already; nothing to do")
    else:
        raise UserError(
            f"{path} holds other folds, which results may rest on; name another file with --out"
        )
    return 0


def _write(path: Path, content: bytes) -> None:
    from ..errors import UserError
    from ..evaluation.atomic import write_atomically

    try:
        write_atomically(str(path), content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
    show(f"wrote {path}")
