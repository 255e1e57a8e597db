"""Divide a data set into folds, and tell how even they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from ..errors import UserError
from .folds import TRAIN, Folds, group_of
from .record import LoadedSplit
from .split import fold_of

# A fold whose share of a class differs by more than this from an even share is worth a warning.
MAX_DEVIATION = 0.2
EMPTY = "images without boxes"

# A pattern on an image's path, what it says, and whether it must make few large groups.
_ROBOFLOW = r"^(.+?)\.rf\.[0-9A-Za-z]+\.[^./]+$"
_GROUPINGS = (
    (_ROBOFLOW, "Roboflow's copies of one image"),
    (r"^(.+)/[^/]+$", "images of one folder"),
    (r"^(.+?)[ _-]+[A-Za-z]*[0-9]+\.[^./]+$", "images whose names differ in the last number alone"),
)
_LEAST_GROUPS = 10
_LARGEST_SHARE = 0.2
# Of one validation split: seeds that are tried, folds of which it is one, its wanted share.
_SEEDS = 100
_FOLDS = 5
_SHARES = (0.1, 0.3)


def make_folds(
    dataset: str,
    pooled: Mapping[str, LoadedSplit],
    *,
    k: int,
    group: str,
    stratify: bool,
    seed: int,
) -> Folds:
    """Divide the images of some splits into `k` folds; no group is in two.

    Args:
        dataset: name of the data set.
        pooled: the splits that are divided anew, usually "train" and "val".
        k: number of folds, 2 or more.
        group: what stays together, "patient" or "image".
        stratify: balance the classes, by scikit-learn's StratifiedGroupKFold over the boxes (and
            images without any); otherwise a group's fold is a hash of (seed, group) alone, so that
            new groups move no old one.
        seed: 0 or more.

    Raises:
        UserError: a number is out of range, an image has no patient, or scikit-learn is missing.
    """
    groups = _labels_by_group(pooled, group)
    if seed < 0 or not 2 <= k <= len(groups):
        raise UserError(
            f"{k} folds of {len(groups):,} groups ({group}) with seed {seed} cannot be made; give "
            "at least 2 folds, no more than there are groups, and a seed of 0 or more"
        )
    if stratify:
        folds = _stratified(groups, k, seed)
    else:
        folds = {name: fold_of(seed, name, k) for name in groups}
    return Folds(dataset, tuple(pooled), seed, k, group, stratify, folds)


def grouping_of(names: Sequence[str]) -> tuple[str, str] | None:
    """Return a pattern that tells which images belong together, and what they are in words.

    Args:
        names: paths of the images, relative to their folder.

    Returns:
        None where names tell nothing: a pattern must fit all names, join some of them, and leave at
        least 10 groups, of which none has more than a fifth of the images.
    """
    for pattern, words in _GROUPINGS:
        matches = [re.match(pattern, name) for name in names]
        if not names or not all(matches):
            continue
        sizes = Counter(match[1] for match in matches if match)
        is_even = max(sizes.values()) <= _LARGEST_SHARE * len(names)
        if _LEAST_GROUPS <= len(sizes) < len(names) and is_even:
            return pattern, words
    return None


def hold_out(dataset: str, train: LoadedSplit, *, group: str) -> Folds:
    """Divide a training split so that fold 0, about a fifth of it, can be validation.

    A group's fold is a hash of (seed, group). The seed is the first from 0 with which fold 0 has a
    box and 10 to 30 % of the images, and the other folds have every class; else the first with
    which both have a box.

    Args:
        dataset: name of the dataset.
        train: the split.
        group: what stays together, "patient" or "image".

    Raises:
        UserError: there are too few groups with boxes.
    """
    pooled = {TRAIN: train}
    groups = _labels_by_group(pooled, group)
    sizes = Counter(group_of(record, TRAIN, group) for record in train.records)
    folds = min(_FOLDS, len(groups))
    usable: int | None = None
    for seed in range(_SEEDS) if folds > 1 else ():
        held = {name for name in groups if not fold_of(seed, name, folds)}
        inside, outside = (
            {label for name in groups if (name in held) is is_held for label in groups[name]}
            - {EMPTY}
            for is_held in (True, False)
        )
        if not inside or not outside:
            continue
        usable = seed if usable is None else usable
        share = sum(sizes[name] for name in held) / sizes.total()
        if inside <= outside and _SHARES[0] <= share <= _SHARES[1]:
            usable = seed
            break
    if usable is None:
        raise UserError(
            f"{dataset} has no validation split, and its {sizes.total():,} training images "
            f"({len(groups):,} groups) are too few to make one; annotate more images"
        )
    return make_folds(dataset, pooled, k=folds, group=group, stratify=False, seed=usable)


def _labels_by_group(pooled: Mapping[str, LoadedSplit], group: str) -> dict[str, list[str]]:
    """Return the class of every box of each group; an image without boxes counts as one more."""
    groups: dict[str, list[str]] = {}
    for split, loaded in pooled.items():
        for record in loaded.records:
            labels = groups.setdefault(group_of(record, split, group), [])
            labels += [
                loaded.class_names[annotation["category_id"]]
                for annotation in record["annotations"]
            ] or [EMPTY]
    return dict(sorted(groups.items()))


def _stratified(groups: Mapping[str, list[str]], k: int, seed: int) -> dict[str, int]:
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ModuleNotFoundError:
        raise UserError(
            "stratified folds need scikit-learn: pip install 'ulga_d2[split]'; folds by hash do not"
        ) from None
    names = [name for name, labels in groups.items() for _ in labels]
    labels = [label for labels in groups.values() for label in labels]
    try:
        splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
        parts = list(splitter.split(labels, labels, names))
    except ValueError as error:
        raise UserError(
            f"scikit-learn makes no {k} stratified folds of these data ({error}); ask for fewer "
            "folds, or for folds by hash"
        ) from None
    return {names[item]: fold for fold, (_, held_out) in enumerate(parts) for item in held_out}


def balance(pooled: Mapping[str, LoadedSplit], folds: Folds) -> list[Counter[str]]:
    """Return, per fold, how many boxes of each class and how many images without boxes it has."""
    counts: list[Counter[str]] = [Counter() for _ in range(folds.k)]
    for name, labels in _labels_by_group(pooled, folds.group).items():
        counts[folds.fold_of[name]].update(labels)
    return counts


def uneven(counts: list[Counter[str]]) -> list[str]:
    """Return a line for each class of a fold that is more than 20 % off an even share."""
    total = sum(counts, Counter())
    lines = []
    for label, number in total.items():
        share = number / len(counts)
        for fold, count in enumerate(counts):
            deviation = count[label] / share - 1
            if abs(deviation) > MAX_DEVIATION:
                lines.append(
                    f"fold {fold} has {count[label]:,} of {label}, {deviation:+.0%} off an even "
                    f"share of {share:,.1f}"
                )
    return lines
