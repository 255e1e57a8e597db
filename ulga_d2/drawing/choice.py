"""Which images of a set a picture shows."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

WITHOUT_BOXES = math.inf


def choose_images(records: Sequence[Mapping[str, Any]], max_images: int) -> list[int]:
    """Choose images by their ground truth alone, the same ones on every call.

    Images are grouped by the class they hold (of several, the rarest in the set), those without
    boxes apart; the groups take turns until `max_images` places are given out, and each fills its
    places at equal steps through the set.

    Returns:
        indices into `records`, group by group, images without boxes last.
    """
    frequency = Counter(box["category_id"] for record in records for box in record["annotations"])
    groups: dict[float, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        classes = {box["category_id"] for box in record["annotations"]}
        rarest = min(classes, key=lambda c: (frequency[c], c), default=WITHOUT_BOXES)
        groups[rarest].append(index)
    # Turn by turn: the first image of every group, then the second of every group, ...
    turns = sorted((turn, group) for group in groups for turn in range(len(groups[group])))
    places = Counter(group for _, group in turns[:max_images])
    return [
        groups[group][int((place + 0.5) * len(groups[group]) / places[group])]
        for group in sorted(places)
        for place in range(places[group])
    ]
