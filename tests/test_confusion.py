"""The confusion matrix counts every object and every detection once."""

from __future__ import annotations

import pytest
from test_average_precision import random_set
from test_froc import overlap

from ulga_d2.evaluation.confusion import confusion_matrix


def brute_force(records, predictions, score):
    counts = [[0] * 4 for _ in range(4)]
    for record in records:
        kept = [p for p in predictions if p["image_id"] == record["image_id"]]
        free = {n: o for n, o in enumerate(record["annotations"]) if not o["iscrowd"]}
        crowds = [o["bbox"] for o in record["annotations"] if o["iscrowd"]]
        for one in sorted(kept, key=lambda p: -p["score"]):
            if one["score"] < score:
                continue
            near = [(overlap(one["bbox"], o["bbox"], 0), -n) for n, o in free.items()]
            best = max(near, default=(0.0, 0))
            if best[0] >= 0.5:
                counts[free.pop(-best[1])["category_id"]][one["category_id"]] += 1
            elif not any(overlap(one["bbox"], crowd, 1) >= 0.5 for crowd in crowds):
                counts[3][one["category_id"]] += 1
        for left in free.values():
            counts[left["category_id"]][3] += 1
    return counts


@pytest.mark.parametrize("block", range(10))
def test_the_matrix_is_that_of_a_count_by_hand(block):
    for seed in range(50 * block, 50 * block + 50):
        records, predictions = random_set(seed, num_images=4)
        matrix = confusion_matrix(records, predictions, 3, score=0.3)
        assert matrix.tolist() == brute_force(records, predictions, 0.3)
        objects = [o["category_id"] for r in records for o in r["annotations"] if not o["iscrowd"]]
        assert matrix[:3].sum(axis=1).tolist() == [objects.count(c) for c in range(3)]
