"""A lesion's class lies in a sign far away: measured in pixels, by twins and classifiers."""

from __future__ import annotations

from collections import Counter
from functools import cache

import cv2
import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import cross_val_predict

from ulga_d2.cli.main import main
from ulga_d2.cli.sample import TASKS as TOLD
from ulga_d2.data.brain_tumor import load_brain_tumor
from ulga_d2.data.sample import write_sample
from ulga_d2.data.sample.context import CLASS_NAMES, LEAST_DISTANCE, SIGNS, make_context
from ulga_d2.data.sample.difficulty import DIFFICULTIES
from ulga_d2.data.sample.scene import Place, Scene
from ulga_d2.data.sample.tasks import SIZES, TASKS
from ulga_d2.errors import UserError

SIZE = 128
COUNT = 240
PARAMETERS = {"dataset": "brain_tumor", "num_train": 8, "num_val": 4, "size": 64}
PARAMETERS |= {"difficulty": "easy", "seed": 0}


@cache
def scene(index: int, difficulty: str = "easy", size: int = SIZE) -> Scene:
    return make_context(
        seed=1, split_number=0, index=index, size=size, difficulty=DIFFICULTIES[difficulty]
    )


def twin(index: int, difficulty: str, size: int) -> Scene:
    """Return the same image with the other class."""
    turn = Place.turn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Place, "turn", lambda self, names: turn(self, names)[::-1])
        return scene.__wrapped__(index, difficulty, size)


def centre(made: Scene) -> np.ndarray:
    left, top, right, bottom = made.objects[0].box
    return np.array([(left + right) / 2, (top + bottom) / 2])


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_twins_of_the_two_classes_differ_in_the_sign_alone(difficulty):
    apart = []
    for index in range(24):
        one, other = scene(index, difficulty, 256), twin(index, difficulty, 256)
        assert one.objects[0].class_name != other.objects[0].class_name
        assert one.objects[0].box == other.objects[0].box
        y, x = np.nonzero(one.image != other.image)
        apart.append(np.hypot(x + 0.5 - centre(one)[0], y + 0.5 - centre(one)[1]).min() / 256)
        assert 0 < len(x) < 0.02 * 256**2
    assert min(apart) >= LEAST_DISTANCE


def seen(made: Scene, reach: float) -> np.ndarray:
    """Return what lies within `reach` sides of the lesion, mirrored so that it is on the left."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    near = np.hypot(x - centre(made)[0], y - centre(made)[1]) < reach * SIZE
    image = np.where(near, cv2.GaussianBlur(made.image, (0, 0), 1.5), 0)
    image = image[:, ::-1] if centre(made)[0] > SIZE / 2 else image
    return image[::4, ::4].ravel()


def share_told(reach: float) -> float:
    """Return the share of images, held out, whose class trees tell from what is in reach."""
    made = [scene(index) for index in range(COUNT)]
    features = np.array([seen(one, reach) for one in made])
    classes = np.array([one.objects[0].class_name for one in made])
    trees = ExtraTreesClassifier(100, random_state=0)
    return float((cross_val_predict(trees, features, classes, cv=5) == classes).mean())


@pytest.mark.parametrize("reach", [0.2, LEAST_DISTANCE])
def test_what_sees_less_far_than_the_sign_is_at_chance(reach):
    # Three deviations of a coin thrown COUNT times.
    assert abs(share_told(reach) - 0.5) < 3 * 0.5 / np.sqrt(COUNT)


def test_what_sees_the_whole_image_tells_the_classes():
    assert share_told(2.0) > 0.85


def test_classes_take_turns_and_say_nothing_about_side_size_or_contrast():
    made = [scene(index) for index in range(COUNT)]
    assert Counter(len(one.objects) for one in made) == {1: COUNT}
    items = [one.objects[0] for one in made]
    assert Counter(item.class_name for item in items) == dict.fromkeys(SIGNS, COUNT // 2)
    of = {name: [item for item in items if item.class_name == name] for name in CLASS_NAMES}
    for measure in (lambda i: i.box[0], lambda i: i.box[1], lambda i: i.area, lambda i: i.cnr):
        a, b = ([measure(item) for item in of[name]] for name in CLASS_NAMES)
        error = np.sqrt((np.var(a) + np.var(b)) / len(a))
        assert abs(np.mean(a) - np.mean(b)) < 3 * error


def test_the_context_sample_is_read_back_with_its_two_classes(tmp_path):
    words = ["--num-train", "8", "--num-val", "4", "--size", "64", "--task", "context"]
    assert main(["sample", "brain_tumor", str(tmp_path), *words]) == 0
    loaded = load_brain_tumor(tmp_path, "train")
    assert loaded.class_names == CLASS_NAMES and not loaded.report.reasons
    assert Counter(r["annotations"][0]["category_id"] for r in loaded.records) == {0: 4, 1: 4}


# Sizes, and what is refused


@pytest.mark.parametrize("task", SIZES)
def test_lesions_have_the_size_that_the_task_names(tmp_path, task):
    write_sample(out=tmp_path, **PARAMETERS | {"num_train": 24, "size": 128}, task=task)
    records = load_brain_tumor(tmp_path, "train").records
    boxes = [item["bbox"] for record in records for item in record["annotations"]]
    radii = [np.sqrt((b[2] - b[0]) * (b[3] - b[1])) / 2 / 128 for b in boxes]
    low, high = SIZES[task]
    assert len(radii) > 15 and 0.85 * low < min(radii) and max(radii) < 1.2 * high


def test_the_command_names_every_task_there_is():
    assert TOLD == TASKS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "similarity_20"}, "take context or small or medium or large"),
        ({"task": "small", "dataset": "ccellbio"}, "of ccellbio is unknown; it has none"),
        ({"task": "small", "layout": "via"}, "written as 'yolo' alone, not as 'via'"),
    ],
)
def test_a_task_that_cannot_be_written_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        write_sample(out=tmp_path / "s", **PARAMETERS | changes)
    assert not (tmp_path / "s").exists()


def test_a_folder_with_another_task_is_refused(tmp_path):
    write_sample(out=tmp_path, **PARAMETERS, task="small")
    with pytest.raises(UserError, match="task small there, None now"):
        write_sample(out=tmp_path, **PARAMETERS)
