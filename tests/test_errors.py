"""TIDE's split of errors against the definition taken word by word, one detection at a time."""

from __future__ import annotations

import random

import numpy as np
import pytest
from test_average_precision import CLASSES, random_set

from ulga_d2.evaluation.average_precision import detection_metrics
from ulga_d2.evaluation.errors import FALSE_POSITIVES, KINDS, error_split


def iou(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def tiny_set(seed):
    """Boxes on a coarse grid: IoUs of exactly 0.1 and 0.5, equal scores, crowds, empty images."""
    rng = random.Random(seed)
    box = lambda: [10 * rng.randrange(3), 0, 10 * rng.choice([1, 2, 10, 20]), 10]  # noqa: E731
    records, predictions = [], []
    for image in range(rng.randint(1, 3)):
        objects = [
            {"bbox": box(), "bbox_mode": 1, "category_id": rng.randrange(3)}
            | {"iscrowd": int(rng.random() < 0.1)}
            for _ in range(rng.randint(0, 3))
        ]
        records.append({"image_id": image, "annotations": objects})
        for _ in range(rng.randint(0, 6)):
            score = rng.choice([0.25, 0.5, 0.75, rng.random()])
            found = {"image_id": image, "category_id": rng.randrange(3), "score": score}
            predictions.append(found | {"bbox": box()})
    return records, predictions


def judge(records, predictions):
    """Match greedily by score and name each detection: (index, kind or "hit", object or None)."""
    objects = [o | {"image": r["image_id"]} for r in records for o in r["annotations"]]
    taken, verdicts = set(), []
    ranks = sorted(range(len(predictions)), key=lambda i: (-predictions[i]["score"], i))
    for index in ranks:
        found = predictions[index]
        here = [o for o, box in enumerate(objects) if box["image"] == found["image_id"]]
        real = [o for o in here if not objects[o]["iscrowd"]]
        own = [o for o in real if objects[o]["category_id"] == found["category_id"]]
        others = [o for o in real if o not in own]
        overlap = {o: iou(found["bbox"], objects[o]["bbox"]) for o in real}
        free = [o for o in own if o not in taken and overlap[o] >= 0.5]
        if free:
            best = max(free, key=lambda o: (overlap[o], o))  # COCO: of equal ones the last
            taken.add(best)
            verdicts.append((index, "hit", best))
        elif not on_crowd(found, [objects[o] for o in here]):
            best_own = max(own, key=overlap.get, default=None)
            best_other = max(others, key=overlap.get, default=None)
            of_own, of_other = overlap.get(best_own, 0), overlap.get(best_other, 0)
            if 0.1 <= of_own < 0.5:
                verdicts.append((index, "localisation", best_own))
            elif of_other >= 0.5:
                verdicts.append((index, "classification", best_other))
            elif of_own >= 0.5:
                verdicts.append((index, "duplicate", None))
            else:
                verdicts.append((index, "both" if of_other >= 0.1 else "background", None))
    return objects, verdicts


def on_crowd(found, objects):
    for crowd in objects:
        if crowd["iscrowd"] and crowd["category_id"] == found["category_id"]:
            both = iou(found["bbox"], crowd["bbox"])
            area, of_crowd = (box["bbox"][2] * box["bbox"][3] for box in (found, crowd))
            common = both * (area + of_crowd) / (1 + both)
            if common / area >= 0.5 - 1e-9:
                return True
    return False


def ap50(objects_of_class, rows):
    """AP50 of (class, hit) rows, best first, by the words of COCO's definition."""
    figures = []
    for category, objects in enumerate(objects_of_class):
        if objects:
            hits = np.cumsum([hit for c, hit in rows if c == category])
            precision = [int(h) / (n + np.spacing(1)) for n, h in enumerate(hits, start=1)]
            for level in np.linspace(0, 1, 101):
                reached = [p for p, h in zip(precision, hits, strict=True) if h / objects >= level]
                figures.append(max(reached, default=0))
    return 100 * np.mean(figures) if figures else None


def brute_force(records, predictions):
    objects, verdicts = judge(records, predictions)
    verdicts.sort(key=lambda v: -predictions[v[0]]["score"])
    verdicts.sort(key=lambda v: (-predictions[v[0]]["score"], predictions[v[0]]["image_id"], v[0]))
    category = lambda verdict: predictions[verdict[0]]["category_id"]  # noqa: E731
    reached = {target for _, _, target in verdicts}
    real = [o for o, box in enumerate(objects) if not box["iscrowd"]]
    missed = [o for o in real if o not in reached]

    def of_class(chosen):
        return [sum(objects[o]["category_id"] == c for o in chosen) for c in range(3)]

    def plain(kept):
        return [(category(v), v[1] == "hit") for v in kept]

    everything = plain(verdicts)
    states = {"missed": (of_class([o for o in real if o not in missed]), everything)}
    for kind in FALSE_POSITIVES:
        rows, done = [], set()
        for verdict in verdicts:
            if verdict[1] == kind and verdict[2] is None:
                continue
            if verdict[1] not in (kind, "hit"):
                rows.append((category(verdict), False))
            elif verdict[2] not in done:
                done.add(verdict[2])
                rows.append((objects[verdict[2]]["category_id"], True))
        states[kind] = (of_class(real), rows)
    hits = [v for v in verdicts if v[1] == "hit"]
    states["false_positives"] = (of_class(real), plain(hits))
    states["false_negatives"] = (of_class([v[2] for v in hits]), everything)
    before = ap50(of_class(real), everything)
    gains = {}
    for name, state in states.items():
        after = ap50(*state)
        gains[name] = None if after is None else after - before
    counts = {kind: sum(v[1] == kind for v in verdicts) for kind in FALSE_POSITIVES}
    return counts | {"missed": len(missed)}, gains


@pytest.mark.parametrize("start", range(0, 500, 50))
def test_counts_and_gains_are_those_of_the_definition_taken_word_by_word(start):
    for seed in range(start, start + 50):
        records, predictions = tiny_set(seed)
        split = error_split(records, predictions, 3)
        counts, gains = brute_force(records, predictions)
        assert split.counts == counts, seed
        assert split.gains == pytest.approx(gains, abs=1e-9), seed


def test_the_tiny_sets_hold_every_kind_often():
    total = dict.fromkeys(KINDS, 0)
    for seed in range(500):
        for kind, count in brute_force(*tiny_set(seed))[0].items():
            total[kind] += count
    assert min(total.values()) >= 40, total


@pytest.mark.parametrize("seed", range(8))
def test_the_split_starts_from_cocos_ap50_and_no_repair_makes_it_worse(seed):
    records, predictions = random_set(seed)
    split = error_split(records, predictions, len(CLASSES))
    assert split.ap50 == detection_metrics(records, predictions, CLASSES).values["bbox/AP50"]
    assert min(split.gains.values()) >= 0


def test_all_false_positives_and_all_false_negatives_repaired_leave_nothing_to_gain():
    box = {"bbox": [0, 0, 10, 10], "bbox_mode": 1, "category_id": 0}
    far = box | {"bbox": [50, 50, 10, 10]}
    records = [{"image_id": 1, "annotations": [box, far]}]
    hit = {"image_id": 1, "category_id": 0, "bbox": [0, 0, 10, 10], "score": 0.5}
    split = error_split(records, [hit], 1)
    assert split.counts == dict.fromkeys(FALSE_POSITIVES, 0) | {"missed": 1}
    assert split.ap50 + split.gains["missed"] == pytest.approx(100)
    assert split.gains["missed"] == split.gains["false_negatives"]


def test_without_objects_every_detection_is_background_and_gains_say_why_they_are_undefined():
    records = [{"image_id": 1, "annotations": []}]
    found = {"image_id": 1, "category_id": 0, "bbox": [0, 0, 10, 10], "score": 0.5}
    split = error_split(records, [found], 1)
    assert split.counts == dict.fromkeys(KINDS, 0) | {"background": 1}
    assert set(split.gains.values()) == {None} and split.ap50 is None
    assert set(split.reasons) == set(split.gains)


def test_where_every_object_is_missed_repairing_them_leaves_nothing_to_measure():
    box = {"bbox": [0, 0, 10, 10], "bbox_mode": 1, "category_id": 0}
    split = error_split([{"image_id": 1, "annotations": [box]}], [], 1)
    assert split.counts["missed"] == 1 and split.ap50 == 0
    assert split.gains["missed"] is None and split.gains["background"] == 0
    assert split.reasons["missed"] == "the repair leaves no object"
