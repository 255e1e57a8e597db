"""Predict on many files: parts that survive a kill, shards, and the joining of what they wrote.

A part is a file of JSON lines in `OUT/.predict`: a header, a line an image, and a line after each
block of files. A block is what goes through the network together, so detections do not depend on
how the files were shared out or how often the work was interrupted. When all parts are complete,
they are joined in the order of the files, and the output's files are written from them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from ..drawing.detections import contact_cell, contact_sheet
from ..drawing.grid import png
from ..errors import UserError, printable
from ..evaluation.atomic import final_name, remove_unfinished, write_atomically
from ..folder_lock import LOCK, LOCK_PREFIX, check_not_locked, lock_folder
from ..version import __version__
from .detections import Category, Detections
from .files import InputFile
from .inputs import frame_name
from .model import box_settings
from .predictor import Prediction, Predictor
from .writers import FILE_NAMES, WRITERS, Output, OutputNames, open_writers, save_annotated

logger = logging.getLogger(__name__)

STATE_FOLDER = ".predict"
COMPLETE = "complete.json"
CELLS = "cells"
IMAGES = "images"
CONTACT_SHEET = "contact_sheet.png"
MAX_CELLS = 24
KINDS = (IMAGES, *WRITERS)
OUTPUT_NAMES = frozenset([STATE_FOLDER, CONTACT_SHEET, IMAGES, *FILE_NAMES])
END_OF_BLOCK = b'{"block": true}\n'
END_OF_PART = b'{"complete": true}\n'


@dataclass(frozen=True)
class Job:
    """What is to be predicted, and written where.

    Attributes:
        files: of all shards.
        out: the output folder.
        kinds: of files to write, from `KINDS`.
        shard: (number from 0, count).
        every: of a video, every so many-th frame.
        strict: stop at the first image that cannot be read.
        skipped: (name, reason) of what was pointed at and is no file to read.
    """

    files: Sequence[InputFile]
    out: Path
    kinds: Sequence[str]
    shard: tuple[int, int] = (0, 1)
    every: int = 1
    strict: bool = False
    skipped: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Totals:
    """What came out.

    Attributes:
        images: with detections or without.
        detections: on all of them.
        skipped: (name, reason) of images that could not be read.
    """

    images: int
    detections: int
    skipped: tuple[tuple[str, str], ...]


def describe(predictor: Predictor) -> dict[str, Any]:
    """Return the settings that change boxes, for the header of the output."""
    settings = json.loads(json.dumps(box_settings(predictor.loaded.cfg)))  # tuples become lists
    return {
        "ulga_d2": __version__,
        "model_sha256": predictor.loaded.sha256,
        "score_threshold": predictor.score_threshold,
        "max_detections": predictor.max_detections,
        "half_precision": predictor.options.half_precision,
        "settings": settings,
    }


def check_output(
    out: Path,
    shard: tuple[int, int] = (0, 1),
    *,
    is_shared: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Refuse an output folder that is in use or whose content is in the way.

    See `prepare_output`.
    """
    check_not_locked(out, "--out", pattern=LOCK)
    own_lock = _lock_name(shard, is_shared)
    check_not_locked(out, "--out", pattern=own_lock if is_shared else _lock_name(None, True))
    content = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if not any(map(_is_content, content)):
        return
    state, own = out / STATE_FOLDER, _part_path(out, shard)
    if not state.is_dir():
        raise UserError(f"--out {out} holds other files; name a new folder")
    foreign = sorted(
        name for name in content if _is_content(name) and final_name(name) not in OUTPUT_NAMES
    )
    is_removed = overwrite and not is_shared
    if is_removed and foreign:
        raise UserError(
            f"--overwrite would remove files that no prediction has written: "
            f"{printable(', '.join(foreign[:5]))} in {out}; move them, or name a new folder"
        )
    is_taken = not is_shared or own.exists() or (state / COMPLETE).exists()
    if is_taken and not resume and not overwrite:
        raise UserError(
            f"--out {out} holds an earlier prediction; --resume continues it, --overwrite "
            "replaces it"
        )
    counts = {_place_of(path)[1] for path in _parts_in(out)} - {shard[1]}
    if counts and not is_removed:
        raise UserError(
            f"--out {out} holds parts of {min(counts)}, and not of {shard[1]}; give the same "
            "number of shards or processes, or a new folder"
        )


def prepare_output(
    out: Path,
    shard: tuple[int, int] = (0, 1),
    *,
    is_shared: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Make the output folder, or refuse one whose content is in the way.

    Args:
        out: the folder.
        shard: (number from 0, count) of this process.
        is_shared: shards that were started on their own may write into it, too; each of them
            answers for its own part alone.
        resume: an earlier output is continued.
        overwrite: an earlier output is removed.

    Raises:
        UserError: it cannot be written; another process writes into it; it holds other files, or
            an earlier output that is neither resumed nor overwritten.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock_output(out, shard, is_shared=is_shared)
        check_output(out, shard, is_shared=is_shared, resume=resume, overwrite=overwrite)
        if overwrite and is_shared:
            _part_path(out, shard).unlink(missing_ok=True)
            (out / STATE_FOLDER / COMPLETE).unlink(missing_ok=True)
        elif overwrite and out.is_dir():
            _remove_output(out)
        (out / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}") from None


def lock_output(out: Path, shard: tuple[int, int] = (0, 1), *, is_shared: bool = False) -> None:
    """Lock an output folder, or a shard's part of it, until the end of the process.

    Raises:
        UserError: another process writes into it.
    """
    taken_over = lock_folder(out, "--out", name=_lock_name(shard, is_shared))
    if taken_over:
        logger.warning("%s", taken_over)
    if not is_shared:
        check_not_locked(out, "--out", pattern=_lock_name(None, True))
        remove_unfinished(out)


def _lock_name(shard: tuple[int, int] | None, is_shared: bool) -> str:
    """Return the name of a lock file; None stands for the pattern of all shards."""
    if not is_shared:
        return LOCK
    stem, _, suffix = LOCK.rpartition(".")
    part = f"{shard[0] + 1}-of-{shard[1]}" if shard else "*-of-*"
    return f"{stem}-{part}.{suffix}"


def _is_content(name: str) -> bool:
    """Tell whether a file is more than a lock, or what taking one leaves."""
    return not name.startswith(LOCK_PREFIX)


def _remove_output(out: Path) -> None:
    """Remove a folder's content, all of which `ulga predict` has written; last what says so."""
    content = [path for path in out.iterdir() if _is_content(path.name)]
    for path in sorted(content, key=lambda path: path.name == STATE_FOLDER):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def run_shard(
    predictor: Predictor,
    job: Job,
    report: Callable[[Prediction], None] = lambda _: None,
    begin: Callable[[int], None] = lambda _: None,
) -> None:
    """Predict on a shard's files, from where an earlier call was interrupted; write its part.

    Args:
        predictor: the detector.
        job: what to do.
        report: is called with each image.
        begin: is called first, with the number of files that an earlier call has done.

    Raises:
        UserError: the folder holds a part of another job, the disk is full, or with `job.strict`
            an image cannot be read.
    """
    size = predictor.images_per_batch
    blocks = [
        range(start, min(start + size, len(job.files))) for start in range(0, len(job.files), size)
    ][job.shard[0] :: job.shard[1]]
    try:
        with _open_part(job.out, job.shard, make_header(predictor, job)) as part:
            done = _complete_blocks(part)
            begin(sum(map(len, blocks[:done])))
            _run_blocks(predictor, job, part, blocks[done:], report)
            part.write(END_OF_PART)
    except OSError as error:
        raise UserError(
            f"--out {job.out}: {error.strerror or error}; make room, and --resume continues"
        ) from None


def _run_blocks(
    predictor: Predictor,
    job: Job,
    part: BinaryIO,
    blocks: Sequence[range],
    report: Callable[[Prediction], None],
) -> None:
    numbers = [number for block in blocks for number in block]
    last_of_block = {block[-1] for block in blocks}
    names = OutputNames([file.name for file in job.files])
    files = [job.files[number].path for number in numbers]
    cells = _cells(len(job.files))
    with_images = IMAGES in job.kinds or not cells.isdisjoint(numbers)
    current = 0  # position in `numbers` of the file whose images are written
    for prediction in predictor.stream(files, every=job.every, with_images=with_images):
        while current < prediction.number:
            _end_file(part, numbers[current] in last_of_block)
            current += 1
        number = numbers[current]
        _write(part, job, names, number, prediction, is_shown=number in cells)
        report(prediction)
    while current < len(numbers):
        _end_file(part, numbers[current] in last_of_block)
        current += 1


def _end_file(part: BinaryIO, is_last_of_block: bool) -> None:
    if is_last_of_block:
        part.write(END_OF_BLOCK)
        part.flush()


def make_header(predictor: Predictor, job: Job) -> dict[str, Any]:
    """Return what tells a job from others: its files, settings and formats, without its shard."""
    listed = json.dumps([[file.name, _size(file.path)] for file in job.files]).encode()
    return {
        "info": describe(predictor),
        "categories": [list(category) for category in predictor.categories],
        "files": [len(job.files), hashlib.sha256(listed).hexdigest()],
        "block": predictor.images_per_batch,
        "kinds": list(job.kinds),
        "every": job.every,
        "skipped": [list(pair) for pair in job.skipped],
    }


def _size(path: str) -> int | None:
    """Return a file's size in bytes: another folder of equal names is another job."""
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def _part_path(out: Path, shard: tuple[int, int]) -> Path:
    return out / STATE_FOLDER / f"part-{shard[0] + 1}-of-{shard[1]}.jsonl"


def _parts_in(folder: Path) -> list[Path]:
    return sorted((folder / STATE_FOLDER).glob("part-*-of-*.jsonl"))


def _place_of(part: Path) -> tuple[int, int]:
    """Return (number from 1, count) of a part."""
    _, number, _, count = part.stem.split("-")
    return int(number), int(count)


def _open_part(out: Path, shard: tuple[int, int], header: dict[str, Any]) -> BinaryIO:
    """Open a shard's part for appending, after checking that it belongs to the same job."""
    path = _part_path(out, shard)
    line = (json.dumps({"header": header}) + "\n").encode()
    if not path.is_file():
        file = path.open("w+b")
        file.write(line)
        file.flush()
        return file
    file = path.open("r+b")
    found = file.readline()
    if not found.endswith(b"\n"):  # cut in its first line
        file.seek(0)
        file.truncate()
        file.write(line)
    elif found != line:
        file.close()
        raise _other_job(out, _read_header(path), header)
    return file


def _read_header(path: Path) -> dict[str, Any]:
    """Return the header of a part, or raise the error for a part without one."""
    with path.open("rb") as file:
        line = file.readline()
    try:
        return json.loads(line)["header"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _incomplete(path) from None


def _incomplete(path: Path) -> UserError:
    return UserError(f"{path} is not complete; run its shard again with --resume")


def _other_job(out: Path, before: dict[str, Any], now: dict[str, Any]) -> UserError:
    """Return the error for a job that differs from the one that an output was begun with."""
    lists = {"files": "list of images", "skipped": "list of images", "categories": "classes"}
    settings = {"block": "--batch", "kinds": "--save", "every": "--every"}
    differing = {name: None for key, name in lists.items() if before.get(key) != now[key]}
    pairs = {name: (before.get(key), now[key]) for key, name in settings.items()}
    old = before.get("info", {})
    pairs.update({key: (old.get(key), value) for key, value in now["info"].items()})
    differing.update({f"{key} ({a}, now {b})": None for key, (a, b) in pairs.items() if a != b})
    return UserError(
        f"--resume: {out} was begun with another {', '.join(differing)}; give the same command, or "
        "--overwrite"
    )


def _complete_blocks(part: BinaryIO) -> int:
    """Count the complete blocks of a part, and cut off what comes after the last of them."""
    count, end = 0, part.tell()
    for line in iter(part.readline, b""):
        if line == END_OF_BLOCK:
            count, end = count + 1, part.tell()
    part.seek(end)
    part.truncate()
    return count


def _write(
    part: BinaryIO,
    job: Job,
    names: OutputNames,
    number: int,
    prediction: Prediction,
    *,
    is_shown: bool,
) -> None:
    file = job.files[number]
    frame = prediction.source.removeprefix(file.path).removeprefix("#")
    name = frame_name(file.name, int(frame)) if frame.isdecimal() else file.name
    if prediction.detections is None:
        reason = prediction.fault.replace(file.path, file.name)
        if job.strict:
            raise UserError(f"--strict: {prediction.fault}")
        line = {"file": number, "frame": frame, "name": name, "skipped": reason}
    else:
        found = prediction.detections
        line = {
            "file": number,
            "frame": frame,
            "name": name,
            "size": list(found.image_size),
            "boxes": found.boxes.tolist(),
            "scores": found.scores.tolist(),
            "classes": found.class_ids.tolist(),
            "masks": found.masks,
        }
        if IMAGES in job.kinds:
            save_annotated(job.out / IMAGES / names.stem(name), prediction.image, found)
        if is_shown and int(frame or 0) == 0:
            data = png(contact_cell(prediction.image, found, name), compression=1)
            write_atomically(str(_cell_path(job.out, number)), data)
    part.write((json.dumps(line) + "\n").encode())


def _cells(count: int) -> set[int]:
    """Return the numbers of the files that the contact sheet shows, evenly spread."""
    shown = min(count, MAX_CELLS)
    return {int((place + 0.5) * count / shown) for place in range(shown)}


def _cell_path(out: Path, number: int) -> Path:
    return out / STATE_FOLDER / CELLS / f"{number:08d}.png"


def join_parts(out: Path, folders: Sequence[Path], *, keep_parts: bool = False) -> Totals:
    """Join the parts in some folders, and write the output's files.

    Args:
        out: the output folder.
        folders: that hold all parts of one job, each once; possibly `out` alone.
        keep_parts: leave the parts where they are, to be joined again.

    Raises:
        UserError: a part is missing, incomplete, there twice, or of another job.
    """
    header, parts = find_parts(folders)
    index = _index(parts)
    categories = tuple(Category(*pair) for pair in header["categories"])
    files = list(dict.fromkeys(_file_name(line) for line in _lines(parts, index)))
    unread = [(line["name"], line["skipped"]) for line in _lines(parts, index) if "skipped" in line]
    skipped = (*map(tuple, header["skipped"]), *unread)
    listed = [{"file_name": name, "reason": reason} for name, reason in skipped]
    info = {**header["info"], "skipped": listed}
    kinds = [kind for kind in header["kinds"] if kind != IMAGES]
    try:
        _bring(out, folders, header)
        writers = open_writers(Output(out, categories, info, OutputNames(files)), kinds)
        images = detections = 0
        for line in _lines(parts, index):
            if "skipped" in line:
                continue
            images += 1
            found = _detections(line, categories)
            detections += len(found)
            for writer in writers:
                writer.add(images, line["name"], found)
        for writer in writers:
            writer.close()
        _write_contact_sheet(out, header["files"][0])
        totals = Totals(images, detections, skipped)
        state = {
            "header": header,
            "images": images,
            "detections": detections,
            "skipped": listed,
        }
        write_atomically(str(out / STATE_FOLDER / COMPLETE), json.dumps(state).encode())
        if not keep_parts:
            for path in parts:
                path.unlink()
            shutil.rmtree(out / STATE_FOLDER / CELLS, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"--out {out}: {error.strerror or error}; make room, and --resume"
        ) from None
    return totals


def finished(out: Path, header: dict[str, Any]) -> Totals | None:
    """Return what a complete output holds, or None where it is not complete.

    Raises:
        UserError: it is of another job than `header` describes.
    """
    path = out / STATE_FOLDER / COMPLETE
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_bytes())
        found = state["header"]
        skipped = tuple((item["file_name"], item["reason"]) for item in state["skipped"])
        totals = Totals(int(state["images"]), int(state["detections"]), skipped)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(f"{path} is damaged; give --overwrite to predict anew") from None
    if found != header:
        raise _other_job(out, found, header)
    return totals


def find_parts(folders: Sequence[Path]) -> tuple[dict[str, Any], list[Path]]:
    """Return the header of a job and its parts, in order.

    Args:
        folders: that hold all parts, each once.

    Raises:
        UserError: a part is missing, incomplete, there twice, or of another job.
    """
    unique = {folder.resolve(): folder for folder in reversed(folders)}
    parts = []
    for folder in reversed(unique.values()):
        own = _parts_in(folder)
        if not own:
            raise UserError(f"{folder} holds no part of a prediction")
        parts += own
    numbers: dict[int, Path] = {}
    header, (_, count) = _read_header(parts[0]), _place_of(parts[0])
    for path in parts:
        number, own_count = _place_of(path)
        if _read_header(path) != header or own_count != count:
            raise UserError(f"{path} belongs to another prediction than {parts[0]}")
        if number in numbers:
            raise UserError(f"{path} and {numbers[number]} are the same part")
        numbers[number] = path
        if not _ends(path):
            raise _incomplete(path)
    missing = sorted(set(range(1, count + 1)) - set(numbers))
    if missing:
        raise UserError(f"parts {', '.join(map(str, missing))} of {count} are missing")
    return header, [numbers[number] for number in sorted(numbers)]


def _ends(path: Path) -> bool:
    """Tell whether the last line of a part says that it is complete."""
    with path.open("rb") as file:
        file.seek(max(0, os.path.getsize(path) - len(END_OF_PART)))
        return file.read() == END_OF_PART


def _index(parts: Sequence[Path]) -> list[tuple[int, int, int, int]]:
    """Return (file, frame, part, offset) of every image of all parts, in order."""
    index = []
    for number, path in enumerate(parts):
        with path.open("rb") as file:
            offset = file.tell()
            for line in iter(file.readline, b""):
                if line.startswith(b'{"file"'):
                    try:
                        content = json.loads(line)
                        place = content["file"], int(content["frame"] or 0)
                    except (ValueError, TypeError, KeyError, RecursionError):
                        raise _incomplete(path) from None
                    index.append((*place, number, offset))
                offset = file.tell()
    return sorted(index)


def _lines(
    parts: Sequence[Path], index: Iterable[tuple[int, int, int, int]]
) -> Iterator[dict[str, Any]]:
    files = [path.open("rb") for path in parts]
    try:
        for _, _, part, offset in index:
            files[part].seek(offset)
            yield json.loads(files[part].readline())
    finally:
        for file in files:
            file.close()


def _file_name(line: dict[str, Any]) -> str:
    return line["name"].removesuffix(f"#{line['frame']}") if line["frame"] else line["name"]


def _detections(line: dict[str, Any], categories: tuple[Category, ...]) -> Detections:
    return Detections(
        boxes=np.array(line["boxes"], np.float32).reshape(-1, 4),
        scores=np.array(line["scores"], np.float32),
        class_ids=np.array(line["classes"], np.int64),
        categories=categories,
        image_size=tuple(line["size"]),
        source=line["name"],
        masks=line["masks"],
    )


def _bring(out: Path, folders: Sequence[Path], header: dict[str, Any]) -> None:
    """Copy the pictures of other folders' parts to the output folder."""
    for folder in folders:
        if folder.resolve() == out.resolve():
            continue
        wanted = [IMAGES] if IMAGES in header["kinds"] else []
        for name in [*wanted, f"{STATE_FOLDER}/{CELLS}"]:
            if (folder / name).is_dir():
                shutil.copytree(folder / name, out / name, dirs_exist_ok=True)


def _write_contact_sheet(out: Path, count: int) -> None:
    paths = [_cell_path(out, number) for number in sorted(_cells(count))]
    cells = [
        cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths if path.is_file()
    ]
    if cells:
        write_atomically(str(out / CONTACT_SHEET), png(contact_sheet(cells), compression=2))


def closing_line(totals: Totals, images: int, seconds: float, out: Path) -> str:
    """Return the closing line of a run: images, detections, and what was skipped for what reason.

    Args:
        totals: of the output.
        images: that were predicted in `seconds`, without those of an earlier call.
        seconds: that it took.
        out: the output folder.
    """
    rate = f", {images / seconds:.1f} images/s" if images and seconds else ""
    reasons = Counter(_reason(name, reason) for name, reason in totals.skipped)
    listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
    more = "; ..." if len(reasons) > 3 else ""
    skipped = f", {len(totals.skipped):,} skipped ({listed}{more})" if totals.skipped else ""
    return (
        f"{totals.images:,} images, {totals.detections:,} detections{skipped}{rate}: "
        f"{printable(str(out))}"
    )


def _reason(name: str, reason: str) -> str:
    """Return why a file was skipped, without its name and what to do."""
    return printable(reason.replace(name, "").split(";")[0].replace("image  ", "").strip(" :"))
