"""A study as its YAML describes it, and the cells that it consists of."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import own_or_given
from ..errors import UserError
from ..io import parse_yaml

KEYS = {
    "about": (str, "why the study is made, in words"),
    "configs": (dict, "config files by a short name"),
    "data": (dict, "samples by a short name, each with the arguments of `ulga sample`"),
    "options": (dict, "settings of every cell"),
    "variants": (dict, "settings by the name of a variant; {} for none"),
    "seeds": (list, "whole numbers"),
    "references": (list, "the variants that all others are compared with"),
    "ambiguity": (bool, "true to set AP against the measured d' of each sample of data"),
}
NEEDED = ("configs", "variants", "seeds")
SAMPLE_KEYS = {"dataset", "num_train", "num_val", "size", "difficulty", "seed"}
MORE_SAMPLE_KEYS = {"task"}
NAME = re.compile(r"[A-Za-z0-9_]+")
SEED, FOLDER = "SEED", "OUTPUT_DIR"


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        group: config and data, whose variants are compared; "" where a study has one of each.
        variant: name of the variant.
        seed: of the run.
        config: its config file.
        data: name of its sample, or "" for the user's own data root.
        options: KEY VALUE words, without seed and folder.
    """

    group: str
    variant: str
    seed: int
    config: str
    data: str
    options: tuple[str, ...]

    @property
    def row(self) -> str:
        """Return what the seeds have in common: the row of the table."""
        return "_".join(filter(None, (self.group, self.variant)))

    @property
    def name(self) -> str:
        """Return the name of the run folder."""
        return f"{self.row}_seed{self.seed}"


@dataclass(frozen=True)
class Study:
    """A grid of runs.

    Attributes:
        name: the file's, without its suffix.
        about: why it is made.
        cells: seed by seed, so that a study that is cut short has every variant.
        samples: arguments of `write_sample` by the name of the data.
        references: the variants that all others are compared with: the plain one, and controls.
        has_ambiguity: AP is set against the measured ambiguity of the samples.
    """

    name: str
    about: str
    cells: tuple[Cell, ...]
    samples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    has_ambiguity: bool = False

    def rows(self) -> dict[str, list[Cell]]:
        """Return the cells of each row, in the order of the file."""
        rows: dict[str, list[Cell]] = {}
        for cell in self.cells:
            rows.setdefault(cell.row, []).append(cell)
        return rows


def read_study(path: str | Path) -> Study:
    """Read a study's YAML; `configs/studies/NAME.yaml` is found in the package, too.

    Raises:
        UserError: a file that cannot be read, an unknown or missing key, or a wrong type.
    """
    path = Path(own_or_given(str(path)))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"study {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"study {path} is not valid YAML: {error}") from None
    content = parse_yaml(text, f"study {path}")
    _check(path, content)
    samples = content.get("data", {})
    references = content.get("references", [])
    for name in references:
        if name not in content["variants"]:
            raise UserError(
                f"study {path}: references has {name!r}; the variants are "
                f"{', '.join(content['variants'])}"
            )
    ambiguity = content.get("ambiguity", False)
    if ambiguity and not samples:
        raise UserError(f"study {path}: ambiguity is that of samples, and data names none")
    about, cells = content.get("about", ""), tuple(_cells(content))
    return Study(path.stem, about, cells, samples, tuple(references), ambiguity)


def _cells(content: Mapping[str, Any]) -> Iterator[Cell]:
    configs, samples = content["configs"], content.get("data") or {"": None}
    common = content.get("options", {})
    for seed, (config, file), data, (variant, changes) in itertools.product(
        content["seeds"], configs.items(), samples, content["variants"].items()
    ):
        parts = (config if len(configs) > 1 else "", data if len(samples) > 1 else "")
        settings = {**common, **(changes or {})}
        words = (str(word) for pair in settings.items() for word in pair)
        yield Cell("_".join(filter(None, parts)), variant, seed, file, data, tuple(words))


def _check(path: Path, content: object) -> None:
    if not isinstance(content, dict):
        raise UserError(f"study {path} holds no keys; it needs {', '.join(NEEDED)}")
    for key in NEEDED:
        if not content.get(key):
            raise UserError(f"study {path}: {key} is missing: {KEYS[key][1]}")
    for key, value in content.items():
        if key not in KEYS:
            raise UserError(f"study {path}: unknown key {key}; there are {', '.join(KEYS)}")
        kind, meaning = KEYS[key]
        if not isinstance(value, kind):
            raise UserError(f"study {path}: {key} is {value!r}; give {meaning}")
    for key in ("configs", "data", "variants"):
        _check_names(path, key, content.get(key, {}))
    for key in (FOLDER, SEED):
        for settings in (content.get("options", {}), *filter(None, content["variants"].values())):
            if key in settings:
                raise UserError(f"study {path}: {key} is the study's own; leave it out")
    _check_seeds(path, content["seeds"])
    for name, arguments in content.get("data", {}).items():
        given = arguments.keys() if isinstance(arguments, dict) else set()
        if given - MORE_SAMPLE_KEYS != SAMPLE_KEYS:
            wanted = ", ".join(sorted(SAMPLE_KEYS))
            more = ", ".join(sorted(MORE_SAMPLE_KEYS))
            raise UserError(
                f"study {path}: data {name} is {arguments!r}; give {wanted}, and if wanted {more}"
            )


def _check_names(path: Path, key: str, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"study {path}: {key} has the name {name!r}; give letters, digits, _")
        if key == "variants" and not isinstance(value, (dict, type(None))):
            raise UserError(f"study {path}: variant {name} is {value!r}; give settings, or {{}}")
        if key == "configs" and not isinstance(value, str):
            raise UserError(f"study {path}: config {name} is {value!r}; give a config file")


def _check_seeds(path: Path, seeds: Sequence[object]) -> None:
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds)
    if not whole or len(set(seeds)) < len(seeds):
        raise UserError(f"study {path}: seeds are {seeds!r}; give whole numbers, each once")
