"""Write a sample data set into a folder, once, without touching what is not ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import UserError
from ..release import SAMPLE_FILE
from .brain_tumor import write_roboflow, write_via, write_yolo, write_yolo_old
from .ccellbio import write_ccellbio
from .cheng import write_cheng
from .cod10k import write_cod10k_kaggle, write_cod10k_v2, write_cod10k_v3
from .defects import check_defects, write_defects
from .difficulty import DIFFICULTIES
from .layout import Request, Written
from .nih_chest_xray import write_nih_chest_xray
from .rsna_pneumonia import write_rsna_pneumonia
from .tasks import TASKS

# The forms in which each data set is distributed; the first is written unless another is named.
WRITERS: dict[str, dict[str, Callable[[Path, Request], Written]]] = {
    "brain_tumor": {
        "yolo": write_yolo,
        "yolo_old": write_yolo_old,
        "roboflow": write_roboflow,
        "cheng": write_cheng,
        "via": write_via,
    },
    "nih_chest_xray": {"nih": write_nih_chest_xray},
    "rsna_pneumonia": {"rsna": write_rsna_pneumonia},
    "cod10k": {"v2": write_cod10k_v2, "v3": write_cod10k_v3, "kaggle": write_cod10k_kaggle},
    "ccellbio": {"ours": write_ccellbio},
}
MANIFEST = SAMPLE_FILE
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
    layout: str | None = None,
    defects: Sequence[str] = (),
    task: str = "",
) -> bool:
    """Write a sample of a data set; complete it where an earlier writing was interrupted.

    Args:
        dataset: the data set whose layout is written, a key of `WRITERS`.
        out: the folder to write; new, empty, or a sample of the same parameters.
        num_train: images in the training split.
        num_val: images in the validation split, and in the test split if there is one.
        size: width of an image in pixels.
        difficulty: "easy", "medium" or "hard".
        seed: every image is a function of this, its split and its number.
        layout: the form of the data set, where there are several; None for the first.
        defects: names of faults to put in; `defects.json` then says what should be reported.
        task: what the sample is made to ask, of `TASKS`; "" for the data set's usual question.

    Returns:
        Whether anything was written; False where the folder holds this sample already.

    Raises:
        UserError: a parameter out of range, a folder that holds anything else, or no space.
    """
    parameters = {"dataset": dataset, "num_train": num_train, "num_val": num_val, "size": size}
    parameters = _checked(parameters | {"difficulty": difficulty, "seed": seed, "version": VERSION})
    layout = _checked_layout(dataset, layout)
    parameters |= _unusual(parameters, layout, defects, task)
    if _is_complete(Path(out), parameters):
        return False
    _write(Path(out), parameters, WRITERS[dataset][layout], layout)
    return True


def _checked_layout(dataset: str, layout: str | None) -> str:
    known = list(WRITERS[dataset])
    if layout is not None and layout not in known:
        raise UserError(f"format {layout!r} of {dataset} is unknown; take {' or '.join(known)}")
    return layout or known[0]


def _unusual(parameters: dict, layout: str, defects: Sequence[str], task: str) -> dict:
    """Return what the manifest says of another form or task than the usual, and of faults."""
    unusual: dict[str, object] = {}
    dataset = parameters["dataset"]
    first = next(iter(WRITERS[dataset]))
    if layout != first:
        unusual["format"] = layout
    if task:
        known = TASKS.get(dataset, ())
        if task not in known:
            cure = f"take {' or '.join(known)}" if known else "it has none"
            raise UserError(f"task {task!r} of {dataset} is unknown; {cure}")
        if layout != first:
            raise UserError(f"task {task!r} is written as {first!r} alone, not as {layout!r}")
        unusual["task"] = task
    if defects:
        unusual["defects"] = check_defects(defects, layout, parameters["num_train"])
    return unusual


def _write(
    out: Path, parameters: dict, write: Callable[[Path, Request], Written], layout: str
) -> None:
    num_train, num_val = parameters["num_train"], parameters["num_val"]
    request = Request(
        counts={"train": num_train, "val": num_val, "test": num_val},
        size=parameters["size"],
        difficulty=parameters["difficulty"],
        seed=parameters["seed"],
        task=parameters.get("task", ""),
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_manifest(out, parameters, complete=False)
        written = write(out, request)
        written.annotate(written.images)
        if defects := parameters.get("defects"):
            write_defects(out, written, defects, layout, request.seed)
        _write_manifest(out, parameters, complete=True)
    except OSError as error:
        raise _unwritable(out, error) from None


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(
        f"{out} cannot be written: {error.strerror or error}; name a folder on a disk that has "
        "space and can be written"
    )


def _checked(parameters: dict) -> dict:
    for key, known in (("dataset", WRITERS), ("difficulty", DIFFICULTIES)):
        if parameters[key] not in known:
            raise UserError(f"{key} {parameters[key]!r} is unknown; take {' or '.join(known)}")
    for key, least in (("num_train", 1), ("num_val", 1), ("size", MIN_SIZE), ("seed", 0)):
        if parameters[key] < least:
            raise UserError(f"{key} is {parameters[key]}, but must be at least {least}")
    return parameters


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
            f"{key} {found.get(key)} there, {parameters.get(key)} now"
            for key in {**parameters, **found}
            if found.get(key) != parameters.get(key)
        )
        raise UserError(f"{out} holds a sample of other parameters ({changes}); {refusal}")
    return complete
