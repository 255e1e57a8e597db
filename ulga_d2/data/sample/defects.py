"""Put the faults of real data into a sample, and write down what should be reported of them.

Each fault goes into a training image of its own. `defects.json` holds what the reader should count,
where it should stop, and what the data doctor should find besides.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from numpy.random import PCG64, Generator, SeedSequence

from ...errors import UserError
from ..formats.policy import MAX_MISSING
from ..record import EMPTIED
from .file_faults import FILE_DEFECTS
from .layout import SampleImage, Written
from .outcome import Outcome
from .row_faults import ROW_DEFECTS
from .text_faults import TEXT_DEFECTS

# In the order in which they are put in: boxes, then the files that hold them, then images.
DEFECTS = {**ROW_DEFECTS, **TEXT_DEFECTS, **FILE_DEFECTS}
REPORT = "defects.json"
_TOO_MANY = "more than 1 %"


def defects_of(layout: str) -> list[str]:
    """Return the faults that can be put into a layout."""
    return [name for name, defect in DEFECTS.items() if layout in defect.layouts]


def check_defects(names: Sequence[str], layout: str, num_train: int) -> list[str]:
    """Return the names of faults, each once and sorted, or refuse them.

    Raises:
        UserError: one is unknown or does not suit the layout, or there are too few images.
    """
    known = defects_of(layout)
    for name in names:
        if name not in known:
            raise UserError(
                f"defect {name!r} cannot be put into this layout; take any of {', '.join(known)}"
            )
    names = sorted(set(names))
    _check_count(len(names), num_train)
    return names


def _check_count(defects: int, images: int) -> None:
    if images < defects:
        raise UserError(
            f"{defects} defects need as many training images with objects, but there are {images}; "
            "raise num_train or name fewer defects"
        )


def write_defects(
    out: Path, written: Written, names: Sequence[str], layout: str, seed: int
) -> None:
    """Put faults into a sample that is on disk, and write `defects.json`.

    Args:
        out: the sample's folder.
        written: the sample.
        names: of the faults.
        layout: of the sample.
        seed: chooses the images.

    Raises:
        UserError: there are fewer training images with objects than faults.
    """
    victims = _victims(written.images, seed)
    _check_count(len(names), len(victims))
    outcomes: dict[str, Outcome] = {}
    changed = {image.name: image for image in written.images}
    chosen = [name for name in DEFECTS if name in names]
    for name, victim in zip(chosen, victims, strict=False):
        if name in ROW_DEFECTS:
            outcomes[name] = DEFECTS[name].put(written, victim, layout)
            changed[victim.name] = outcomes[name].image
    written.annotate(list(changed.values()))
    for name, victim in zip(chosen, victims, strict=False):
        if name not in ROW_DEFECTS:
            outcomes[name] = DEFECTS[name].put(written, victim, layout)
    total = sum(image.split == "train" for image in written.images)
    text = json.dumps(expected_report(outcomes, total), indent=2) + "\n"
    (out / REPORT).write_text(text, encoding="utf-8")


def _victims(images: list[SampleImage], seed: int) -> list[SampleImage]:
    """Return the training images with objects, in an order of their own."""
    usable = [image for image in images if image.split == "train" and image.labels]
    order = Generator(PCG64(SeedSequence([seed, len(usable)]))).permutation(len(usable))
    return [usable[number] for number in order]


def expected_report(outcomes: dict[str, Outcome], total: int) -> dict[str, object]:
    """Return what should be reported of the training split.

    Args:
        outcomes: what each fault should lead to.
        total: number of training images that were written.
    """
    stops = {name: outcome.stops for name, outcome in outcomes.items() if outcome.stops}
    losses = [name for name, outcome in outcomes.items() if outcome.is_loss]
    if len(losses) > MAX_MISSING * total:
        stops |= dict.fromkeys(losses, _TOO_MANY)
    reasons = dict(Counter(o.reason for o in outcomes.values() if o.reason))
    emptied = sum(outcome.is_emptied for outcome in outcomes.values())
    return {
        "split": "train",
        "stops": stops,
        "reasons": reasons | ({EMPTIED: emptied} if emptied else {}),
        "dropped": {
            "images": emptied + sum(outcome.dropped_images for outcome in outcomes.values()),
            "boxes": sum(outcome.dropped_boxes for outcome in outcomes.values()),
        },
        "findings": dict(Counter(o.finding for o in outcomes.values() if o.finding)),
    }
