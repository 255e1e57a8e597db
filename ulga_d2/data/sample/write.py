"""Write a sample data set into a folder, once, without touching what is not ours."""

from __future__ import annotations

import json
from pathlib import Path

from ...errors import UserError
from . import brain_tumor
from .difficulty import DIFFICULTIES

WRITERS = {"brain_tumor": brain_tumor.write_images}
MANIFEST = "sample.json"
# Raised when equal parameters give other images, so that an old folder is not taken for new.
VERSION = 1
MIN_SIZE = 32


def write_sample(
    dataset: str,
    out: str | Path,
    num_train: int,
    num_val: int,
    size: int,
    difficulty: str,
    seed: int,
) -> bool:
    """Write a sample of a data set; complete it where an earlier writing was interrupted.

    Args:
        dataset: the data set whose layout is written, "brain_tumor".
        out: the folder to write; new, empty, or a sample of the same parameters.
        num_train: images in the training split.
        num_val: images in the validation split.
        size: side of an image in pixels.
        difficulty: "easy", "medium" or "hard".
        seed: every image is a function of this, its split and its number.

    Returns:
        Whether anything was written; False where the folder holds this sample already.

    Raises:
        UserError: a parameter out of range, a folder that holds anything else, or no space.
    """
    parameters = {
        "dataset": dataset,
        "num_train": num_train,
        "num_val": num_val,
        "size": size,
        "difficulty": difficulty,
        "seed": seed,
        "version": VERSION,
    }
    _check(parameters)
    if _is_complete(Path(out), parameters):
        return False
    _write(Path(out), parameters)
    return True


def _write(out: Path, parameters: dict) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_manifest(out, parameters, complete=False)
        WRITERS[parameters["dataset"]](
            out,
            counts={"train": parameters["num_train"], "val": parameters["num_val"]},
            size=parameters["size"],
            difficulty=DIFFICULTIES[parameters["difficulty"]],
            seed=parameters["seed"],
        )
        _write_manifest(out, parameters, complete=True)
    except OSError as error:
        raise _unwritable(out, error) from None


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(
        f"{out} cannot be written: {error.strerror or error}; name a folder on a disk that has "
        "space and can be written"
    )


def _check(parameters: dict) -> None:
    for key, known in (("dataset", WRITERS), ("difficulty", DIFFICULTIES)):
        if parameters[key] not in known:
            raise UserError(f"{key} {parameters[key]!r} is unknown; take {' or '.join(known)}")
    for key, least in (("num_train", 1), ("num_val", 1), ("size", MIN_SIZE), ("seed", 0)):
        if parameters[key] < least:
            raise UserError(f"{key} is {parameters[key]}, but must be at least {least}")


def _write_manifest(out: Path, parameters: dict, *, complete: bool) -> None:
    text = json.dumps(parameters | {"complete": complete}, indent=2) + "\n"
    (out / MANIFEST).write_text(text, encoding="utf-8")


def _is_complete(out: Path, parameters: dict) -> bool:
    """Return whether `out` holds the whole sample; refuse a folder that holds anything else."""
    try:
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return False
    except OSError as error:
        raise _unwritable(out, error) from None
    refusal = "nothing was written. Name another folder, or remove this one yourself"
    try:
        found = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        complete = found.pop("complete")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{out} is not empty and holds no sample of ours; {refusal}") from None
    if found != parameters:
        changes = ", ".join(
            f"{key} {found.get(key)} there, {value} now"
            for key, value in parameters.items()
            if found.get(key) != value
        )
        raise UserError(f"{out} holds a sample of other parameters ({changes}); {refusal}")
    return complete
