"""`ulga predict`: detections of a trained detector on new images, in the formats of many tools."""

from __future__ import annotations

import argparse
import datetime
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, printable
from ..terminal import show

if TYPE_CHECKING:
    from ..inference.batch import Job, Totals
    from ..inference.files import InputFiles
    from ..inference.predictor import Prediction, Predictor

FORMATS = ("images", "json", "csv", "yolo", "voc", "coco", "label-studio")
FLAGS = {
    "--tile-whole": "beside tiles, show the whole image, too",
    "--tta": "test-time augmentation (TEST.AUG keys)",
    "--class-agnostic": "keep one box of an object, whatever the classes",
    "--half": "compute in bfloat16",
    "--recursive": "take folders in folders, too",
    "--resume": "continue an interrupted prediction",
    "--overwrite": "replace an earlier prediction",
    "--strict": "stop at the first image that cannot be read",
}


def prepare(words: Sequence[str]) -> list[str]:
    """Move MODEL and INPUT behind the options, for argparse takes them in one piece alone.

    Each other option than FLAGS has one value; --save has formats, --merge all that follows.
    """
    start = words.index("predict") + 1
    options, plain = list(words[:start]), []
    option, values = "", 0  # the last option, and how many values it has been given
    for number, word in enumerate(words[start:], start):
        if word == "--":
            plain += words[number + 1 :]
            break
        if word.startswith("--") or word == "-h":
            options.append(word)
            option, values = ("" if "=" in word or word in FLAGS else word), 0
        elif option and (values == 0 or option == "--merge" or _is_format(option, word)):
            options.append(word)
            values += 1
        else:
            plain.append(word)
            option = ""
    return [*options, "--", *plain] if plain else options


def _is_format(option: str, word: str) -> bool:
    """Tell whether a word belongs to --save, if only as a mistaken format."""
    is_path = any(letter in word for letter in "./\\*-:") or os.path.exists(word)
    return option == "--save" and (word in FORMATS or not is_path)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "predict",
        allow_abbrev=False,
        usage="ulga predict MODEL INPUT... [--out DIR] [options]",
        description="Detect objects on new images. MODEL is a run folder, a checkpoint (.pth), "
        "shared weights (.safetensors) or zoo://NAME. INPUT is a file, a folder, a quoted pattern "
        "such as 'scans/**/*.dcm', a list (.txt, a path a line), or - for paths on standard input. "
        "A file of several frames (DICOM, TIFF, video) gives a result a frame, NAME#0003.",
        epilog="example: ulga predict output/brain_tumor_swin_ulga_nano scans/ --out found "
        "--score 0.5 --save images json yolo",
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a trained detector")
    parser.add_argument("inputs", metavar="INPUT", nargs="*", help="images")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="output folder")
    parser.add_argument(
        "--save", nargs="+", metavar="FORMAT",
        help=f"what to write (default: images json): {' '.join(FORMATS)}",
    )  # fmt: skip
    parser.add_argument(
        "--score", help="lowest score, or best-f1 for the run's threshold (default: the model's)"
    )
    parser.add_argument(
        "--class-scores", metavar="S,S,...",
        help="lowest score of each class, beside --score, in the order of the model's classes",
    )  # fmt: skip
    parser.add_argument(
        "--nms", metavar="METHOD",
        help="hard, or soft-NMS: linear or gaussian (default: the model's, mostly hard)",
    )  # fmt: skip
    parser.add_argument("--max-detections", type=int, help="of an image (default: the model's)")
    parser.add_argument("--tile", type=int, help="cut large images into tiles of so many pixels")
    parser.add_argument("--overlap", type=float, help="share that neighboring tiles have in common")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch (default: 8)")
    parser.add_argument("--workers", type=int, default=2, help="threads that read images")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--every", type=int, default=1, help="of a video, every Nth frame")
    for flag, text in FLAGS.items():
        parser.add_argument(flag, action="store_true", help=text)
    parser.add_argument(
        "--shard", metavar="I/N", help="predict part I of N (from 1), to be joined by --merge"
    )
    parser.add_argument(
        "--merge", nargs="+", type=Path, metavar="DIR", help="join the parts in these folders"
    )


def run(args: argparse.Namespace) -> int:
    """Predict, or join what shards have predicted; return 1 if an image was skipped."""
    _check(args)
    from ..engine.signals import StopSignals, stop_now
    from ..folder_lock import release_locks

    try:
        with StopSignals(grace=5) as signals, signals.at_once(stop_now):
            return _run(args)
    finally:
        release_locks()


def _run(args: argparse.Namespace) -> int:
    from ..inference.batch import (
        closing_line,
        find_parts,
        join_parts,
        lock_output,
        prepare_output,
    )

    start = time.perf_counter()
    if args.merge:
        find_parts(args.merge)  # before the output folder is touched
        if args.out.resolve() in [folder.resolve() for folder in args.merge]:
            lock_output(args.out)
        else:
            prepare_output(args.out, overwrite=args.overwrite)
        totals, images = join_parts(args.out, args.merge, keep_parts=True), 0
    else:
        totals, images = _predict(args)
        if totals is None:
            return 0
    show(closing_line(totals, images, time.perf_counter() - start, args.out))
    return 1 if totals.skipped else 0


def _check(args: argparse.Namespace) -> None:
    unknown = [kind for kind in args.save or () if kind not in FORMATS]
    if unknown:
        raise UserError(f"--save {' '.join(unknown)}: there are {' '.join(FORMATS)}")
    if args.merge and args.save:
        raise UserError(
            "--merge writes the formats that the parts were made with; leave --save out"
        )
    if args.merge and args.model:
        raise UserError("--merge takes folders alone; the model and the images are in their parts")
    if not args.merge and not (args.model and args.inputs):
        raise UserError("give MODEL and at least one INPUT; see ulga predict --help")
    if args.resume and args.overwrite:
        raise UserError("--resume continues an output and --overwrite replaces it; give one")
    if args.shard and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(
            "--shard is for processes that are started one by one; those of torchrun share the "
            "images without it"
        )
    if args.every < 1:
        raise UserError(f"--every is {args.every}; give 1 or more")


def _predict(args: argparse.Namespace) -> tuple[Totals | None, int]:
    """Predict this process's shard.

    Returns:
        the totals, or None where another process joins; the number of images predicted here.
    """
    from ..inference.batch import (
        Job,
        check_output,
        finished,
        join_parts,
        make_header,
        prepare_output,
    )
    from ..inference.files import find_files

    ranks = _Ranks()
    shard = _shard(args) or ranks.shard
    folder = {"is_shared": bool(args.shard), "resume": args.resume, "overwrite": args.overwrite}

    def find() -> InputFiles:
        check_output(args.out, shard, **folder)
        return find_files(args.inputs, recursive=args.recursive, leave_out=args.out)

    found = ranks.once(find)
    if ranks.is_first:
        _report_others(found)
    if found.skipped and args.strict:
        raise UserError(f"--strict: {': '.join(found.skipped[0])}")
    predictor = _open(args, ranks.device)
    ranks.once(lambda: prepare_output(args.out, shard, **folder))
    job = Job(
        found.files,
        args.out,
        tuple(dict.fromkeys(args.save or ("images", "json"))),
        shard,
        args.every,
        args.strict,
        found.skipped,
    )
    totals = finished(args.out, make_header(predictor, job)) if args.resume else None
    if totals is not None:
        if ranks.is_first:
            show("--resume: the prediction was complete", file=sys.stderr)
        return (totals if ranks.is_first else None), 0
    images = ranks.total(_run_with_progress(predictor, job))
    if _shard(args):
        show(f"part {args.shard} is complete; join all parts with ulga predict --merge DIR...")
        return None, images
    return (join_parts(args.out, [args.out]) if ranks.is_first else None), images


def _report_others(found: InputFiles) -> None:
    """Report what the user pointed at and is no image."""
    for name, reason in found.skipped:
        show(f"skipped: {name}: {printable(reason)}", file=sys.stderr)
    if found.others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in found.others.most_common(8))
        show(f"files that are no images: {kinds}", file=sys.stderr)


def _open(args: argparse.Namespace, device: str | None) -> Predictor:
    from ..inference.predictor import Predictor

    return Predictor(
        args.model,
        device=device if device and args.device == "auto" else args.device,
        batch_size=args.batch,
        score=_score(args.score),
        max_detections=args.max_detections,
        half_precision=args.half,
        tile=args.tile,
        overlap=args.overlap,
        tile_whole=args.tile_whole or None,
        tta=args.tta or None,
        nms=args.nms,
        class_agnostic=args.class_agnostic or None,
        class_scores=_class_scores(args.class_scores),
        workers=args.workers,
    )


def _score(text: str | None) -> Any:
    if text in (None, "best-f1", "best_f1"):
        return text and "best_f1"
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--score is {text}; give 0 to 1, or best-f1") from None


def _class_scores(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"--class-scores is {text}; give a number from 0 to 1 a class, such as 0.3,0.5"
        ) from None


def _shard(args: argparse.Namespace) -> tuple[int, int] | None:
    if not args.shard:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", args.shard)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard is {args.shard}; give I/N, from 1/N to N/N")
    return int(match[1]) - 1, int(match[2])


def _run_with_progress(predictor: Predictor, job: Job) -> int:
    """Predict a shard's files; return the number of images."""
    from tqdm import tqdm

    from ..inference.batch import run_shard

    number, count = job.shard
    size = predictor.images_per_batch
    own = [file for at, file in enumerate(job.files) if at // size % count == number]
    seen: set[int] = set()
    images = 0
    interval = 0.5 if sys.stderr.isatty() else 10.0
    with tqdm(total=len(own), unit="image", mininterval=interval, file=sys.stderr) as bar:

        def begin(done: int) -> None:
            bar.initial = bar.n = done
            bar.refresh()

        def report(prediction: Prediction) -> None:
            nonlocal images
            images += prediction.detections is not None
            if prediction.number in seen:  # a frame: only the files can be counted before
                bar.set_postfix_str(f"{images:,} images with all frames", refresh=False)
            bar.update(prediction.number not in seen)
            seen.add(prediction.number)
            if prediction.detections is None:
                bar.write(f"skipped: {printable(prediction.fault)}", file=sys.stderr)

        run_shard(predictor, job, report, begin)
    return images


class _Ranks:
    """The processes of torchrun, if it has started this one; each takes a shard."""

    def __init__(self) -> None:
        rank, size = (int(os.environ.get(name, default)) for name, default in
                      (("RANK", 0), ("WORLD_SIZE", 1)))  # fmt: skip
        self.shard = rank, size
        self.is_first = rank == 0
        self.device = None
        if size == 1:
            return
        import torch
        import torch.distributed as dist

        if torch.cuda.is_available():
            self.device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        dist.init_process_group("gloo", timeout=datetime.timedelta(days=7))

    def once(self, call: Callable[[], Any]) -> Any:
        """Call on the first process, and return on all of them what it returned.

        Raises:
            UserError: on all of them, where it was raised on the first.
        """
        if self.shard[1] == 1:
            return call()
        import torch.distributed as dist

        outcome: list[Any] = [None]
        if self.is_first:
            try:
                outcome = [call()]
            except UserError as error:
                outcome = [error]
        dist.broadcast_object_list(outcome)
        if isinstance(outcome[0], UserError):
            raise outcome[0]
        return outcome[0]

    def total(self, number: int) -> int:
        """Wait for all processes, and return the sum of their numbers."""
        if self.shard[1] == 1:
            return number
        import torch
        import torch.distributed as dist

        numbers = torch.tensor(number)
        dist.all_reduce(numbers)
        return int(numbers)
