"""The safe way to merge config files and options, and to walk through a config's keys."""

from __future__ import annotations

import contextlib
import copy
import difflib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .io import parse_yaml

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

_TYPE_MISMATCH = re.compile(
    r"Type mismatch \(<class '([\w.]+)'> vs\. <class '([\w.]+)'>\) "
    r"with values \((.*) vs\. (.*)\) for config key: (\S+)",
    re.DOTALL,
)

# With a dot, or one of the few keys without; anywhere but at the end of a command line only keys
# of a known node, since file names may look like others.
_ANY_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+|SEED|OUTPUT_DIR|CUDNN_BENCHMARK|VERSION")
_KNOWN_KEY = re.compile(
    r"(MODEL|INPUT|DATASETS|DATALOADER|SOLVER|TEST)(\.[A-Z0-9_]+)+|SEED|OUTPUT_DIR"
)

# Settings that name files or folders of the machine.
PATH_KEYS = ("OUTPUT_DIR", "MODEL.WEIGHTS", "DATASETS.FOLDS_FILE", "DATASETS.CUSTOM")
LEFT_OUT = "(left out)"
_PATH = re.compile(r"^[/~.]|^[A-Za-z]:|\\|://|\.(ya?ml|json|pth|pkl|safetensors|csv|txt)$")

_MOST_FILES = 50  # of one config, counted as often as they are named; ours have at most ten
_MOST_BYTES = 1_000_000  # of a config with its bases


def merge_config(cfg: CfgNode, config_file: str, opts: list[str]) -> None:
    """Merge a YAML file (with its `_BASE_` files) and "KEY VALUE" pairs into `cfg`, in place.

    Files are read by the safe YAML loader only: a tag that would build a Python object is refused.
    A `configs/NAME.yaml` that is not there is looked for among the package's own, as a base, too.

    Raises:
        UserError: a missing file, bad YAML, an unknown key (with the nearest valid one), or a value
            of another type than the default's.
    """
    stock = _test_sizes(cfg)
    _merge_file(cfg, config_file)
    if _test_sizes(cfg) == (cfg.INPUT.SQUARE_SIZE,) * 2:  # of a resolved config: derived once more
        cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = stock
    merge_options(cfg, opts)


def merge_options(cfg: CfgNode, opts: list[str]) -> None:
    """Merge "KEY VALUE" pairs into `cfg`, in place.

    Raises:
        UserError: see `merge_config`.
    """
    if len(opts) % 2:
        raise UserError(
            f"config options come in pairs of KEY VALUE, but {len(opts)} words were given: "
            f"{' '.join(opts)}"
        )
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        with _readable(cfg, f"option {key} {value}"):
            cfg.merge_from_list([key, value])


def _test_sizes(cfg: CfgNode) -> tuple[int, int]:
    return cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST


def resolve_test_size(cfg: CfgNode) -> None:
    """Have detectron2's own tools resize an image to the square, in place, as ours do."""
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = cfg.INPUT.SQUARE_SIZE


def own_or_given(config_file: str) -> str:
    """Return the path as given, or the package's own `configs/NAME` where there is no such file."""
    own = Path(__file__).parent / "configs" / config_file.removeprefix("configs/")
    return config_file if os.path.isfile(config_file) or not own.is_file() else str(own)


def _merge_file(cfg: CfgNode, config_file: str) -> None:
    from detectron2.config import CfgNode

    config_file = own_or_given(config_file)
    if os.path.isdir(config_file):
        raise UserError(f"config file {config_file!r} is a folder; give a YAML file")
    if not os.path.isfile(config_file):
        raise UserError(f"config file {config_file} does not exist; {_near_files(config_file)}")
    content = _Chain(cfg, config_file).read(config_file)
    with _readable(cfg, config_file):
        version = content.get("VERSION", cfg.VERSION)
        if version != cfg.VERSION:
            raise ValueError(f"it has VERSION {version}; convert it to version {cfg.VERSION}")
        cfg.merge_from_other_cfg(CfgNode(content))


class _Chain:
    """Reads a config with its `_BASE_` files, within limits; see `merge_config`.

    Args:
        cfg: for the keys that messages suggest.
        config_file: the first file, for messages.
    """

    def __init__(self, cfg: CfgNode, config_file: str) -> None:
        self.cfg = cfg
        self.config_file = config_file
        self.count = self.size = 0

    def read(self, file: str) -> dict[str, Any]:
        """Return the content of a file on top of its bases; a later base overrides an earlier one.

        Raises:
            UserError: a file is no config, or a base does not exist.
        """
        self.count += 1
        if self.count > _MOST_FILES:
            raise UserError(
                f"{self.config_file}: more than {_MOST_FILES} files by _BASE_; is {file} its own "
                "base?"
            )
        if not os.path.isfile(file):
            raise UserError(f"{self.config_file}: the _BASE_ file {file!r} does not exist")
        with _readable(self.cfg, file):
            self.size += os.path.getsize(file)
            if self.size > _MOST_BYTES:
                raise ValueError(
                    f"{self.size:,} bytes with its bases, and {_MOST_BYTES:,} are read at most; is "
                    "it a config?"
                )
            found = _read_mapping(file)
        bases = found.pop("_BASE_", [])
        bases = bases if isinstance(bases, list) else [bases]
        if not all(isinstance(base, str) for base in bases):
            raise UserError(f"{file}: _BASE_ is {bases}; give a file name, or a list of names")
        content: dict[str, Any] = {}
        for base in bases:
            _overlay(content, self.read(_base_path(file, base)), file)
        _overlay(content, found, file)
        return content


def _base_path(file: str, base: str) -> str:
    """Return a base's path: relative to the file, or one of the package's own `configs/`."""
    path = os.path.join(os.path.dirname(file), os.path.expanduser(base))
    own = own_or_given(base) if base.startswith("configs/") else path
    return path if os.path.isfile(path) else own


def _overlay(content: dict[str, Any], above: Mapping[str, Any], file: str) -> None:
    """Put the values of one config over those of another, in place, group by group."""
    for key, value in above.items():
        if isinstance(value, dict) and key in content:
            if not isinstance(content[key], dict):
                raise UserError(f"{file}: {key} is a group of keys here and a value in its base")
            _overlay(content[key], value, file)
        else:
            content[key] = copy.deepcopy(value)  # an alias may stand for it elsewhere, too


def _read_mapping(file: str) -> dict[str, Any]:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8, and so no config") from None
    found = parse_yaml(text, file)
    if not isinstance(found, dict):
        raise TypeError
    return found


def parse_config(text: str, source: str) -> dict[str, Any]:
    """Return what the config that a checkpoint holds as YAML says, by nested keys.

    Args:
        text: a resolved config; it names no `_BASE_` files.
        source: where it comes from, for messages.

    Raises:
        UserError: it is no valid YAML, or no mapping.
    """
    found = parse_yaml(text, f"the config in {source}")
    if not isinstance(found, dict) or "_BASE_" in found:
        raise UserError(
            f"the config in {source}: not a config; it must hold nested `KEY: value` lines"
        )
    return found


def merge_text(cfg: CfgNode, text: str, place: str) -> None:
    """Merge the config that a checkpoint holds as YAML into `cfg`, in place.

    Args:
        cfg: with the defaults.
        text: a resolved config; it names no `_BASE_` files.
        place: where it comes from, for messages.

    Raises:
        UserError: bad YAML, an unknown key or a value of another type.
    """
    from detectron2.config import CfgNode

    content = parse_config(text, place)
    with _readable(cfg, f"the config in {place}"):
        cfg.merge_from_other_cfg(CfgNode(content))


def _near_files(config_file: str) -> str:
    folder = os.path.dirname(config_file) or "."
    names = os.listdir(folder) if os.path.isdir(folder) else []
    names = [name for name in names if name.endswith(".yaml")]
    near = difflib.get_close_matches(os.path.basename(config_file), names, n=1)
    return f"did you mean {os.path.join(folder, near[0])}?" if near else "see configs/ for ours."


@contextlib.contextmanager
def _readable(cfg: CfgNode, place: str) -> Iterator[None]:
    """Turn what yacs raises into one `UserError` that names the place and the cure."""
    try:
        yield
    except (RecursionError, MemoryError):
        raise UserError(f"{place}: nested too deeply to be a config") from None
    except (AttributeError, TypeError):
        raise UserError(f"{place}: not a config; it must hold nested `KEY: value` lines") from None
    except (KeyError, ValueError, AssertionError, OSError) as error:
        # str() of a KeyError would put its message in quotes.
        message = error.args[0] if isinstance(error, KeyError) else str(error)
        unknown = re.search(r"Non-existent(?: config)? key: (\S+)", message)
        if unknown:
            message = _unknown_key_message(cfg, unknown.group(1))
        wrong_type = _TYPE_MISMATCH.search(message)
        if wrong_type and wrong_type[1].endswith("CfgNode"):
            message = f"{wrong_type[5]} is a group of keys; name one of them, with its value"
        elif wrong_type:
            message = "{4} takes a {0}, like {2}; {3} is a {1}".format(*wrong_type.groups())
        raise UserError(f"{place}: {message}") from None


def _unknown_key_message(cfg: CfgNode, key: str) -> str:
    # The full path first, then the last word alone: SOLVER.EPOCHS is nearer to SOLVER.NUM_EPOCHS
    # than its letters say.
    keys = list(leaf_keys(cfg))
    near = difflib.get_close_matches(key, keys, n=3, cutoff=0.6)
    if not near:
        last = key.rsplit(".", 1)[-1]
        near = [k for k in keys if last in k.rsplit(".", 1)[-1]][:3]
    cure = f"did you mean {' or '.join(near)}?" if near else "see ulga_d2/keys.py for our keys."
    return f"unknown config key {key}; {cure}"


def leaf_keys(cfg: CfgNode | dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the full dotted name of every key of `cfg`."""
    for name, value in cfg.items():
        if hasattr(value, "items"):
            yield from leaf_keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def changed_settings(before: str, after: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, old and new value of each setting in which two configs, as YAML texts, differ.

    A key that only one of them has is another version's, and left out.
    """
    old, new = parse_config(before, "the checkpoint"), parse_config(after, "this run")
    for key in sorted({*leaf_keys(old)} & {*leaf_keys(new)}):
        values = value_of(old, key), value_of(new, key)
        if values[0] != values[1]:
            yield key, *values


def value_of(cfg: CfgNode | dict[str, Any], key: str) -> Any:
    """Return the value of a dotted key, or an empty dict where there is none."""
    value: Any = cfg
    for name in key.split("."):
        value = value.get(name, {}) if hasattr(value, "get") else {}
    return value


def without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as plain data in which no text is the path of a file or folder.

    Left out are the values of PATH_KEYS, and other texts that look like a path.
    """

    def shown(value: Any, key: str) -> Any:
        if isinstance(value, Mapping):
            return {
                name: shown(item, f"{key}.{name}" if key else name) for name, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [shown(item, key) for item in value]
        is_path = isinstance(value, str) and (key in PATH_KEYS or _PATH.search(value))
        return LEFT_OUT if value and is_path else value

    return shown(config, "")


def default_category_ids(num_classes: int) -> tuple[int, ...]:
    """Return 1..K: the category ids of a dataset whose format has none of its own."""
    return tuple(range(1, num_classes + 1))


def stated_category_ids(config: str, num_classes: int) -> tuple[int, ...]:
    """Return DATASETS.CATEGORY_IDS of a resolved config as YAML text, such as a checkpoint's.

    Without the key, which older versions did not write, they are 1..K.

    Raises:
        UserError: they are no whole numbers, one of each class.
    """
    stated = value_of(parse_config(config, "the checkpoint"), "DATASETS.CATEGORY_IDS")
    if not stated:
        return default_category_ids(num_classes)
    is_list = isinstance(stated, (list, tuple)) and all(type(key) is int for key in stated)
    if not is_list or len(set(stated)) < len(stated) or len(stated) != num_classes:
        raise UserError(
            f"the config in the checkpoint has DATASETS.CATEGORY_IDS {str(stated)[:200]}; give a "
            f"checkpoint with {num_classes} different whole numbers there, one of each class"
        )
    return tuple(stated)


def stated_intensity(config: str) -> tuple[Any, Any]:
    """Return INPUT.INTENSITY and INPUT.INTENSITY_RANGE of a resolved config as YAML text.

    Without the keys, which older versions did not write, files had their full range.
    """
    content = parse_config(config, "the checkpoint")
    kind, bounds = (value_of(content, f"INPUT.{key}") for key in ("INTENSITY", "INTENSITY_RANGE"))
    return kind or "full", bounds or []


def resolve_classes(
    cfg: CfgNode, class_names: tuple[str, ...], category_ids: tuple[int, ...] | None = None
) -> None:
    """Write the classes (names, category ids, their number) into `cfg`, in place, and log them.

    Category ids that are left out are 1..K.
    """
    cfg.DATASETS.CLASS_NAMES = list(class_names)
    cfg.DATASETS.CATEGORY_IDS = list(category_ids or default_category_ids(len(class_names)))
    for node in (cfg.MODEL.RETINANET, cfg.MODEL.ROI_HEADS):
        node.NUM_CLASSES = len(class_names)
    logger.info("%d classes: %s", len(class_names), ", ".join(class_names))


def split_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take the settings out of a command line: KEY VALUE anywhere, or `--set KEY VALUE`.

    Args:
        words: of the command line; nothing behind "--" is looked at.

    Returns:
        the other words, and the settings as KEY VALUE words, both in their order.
    """
    end = words.index("--") if "--" in words else len(words)
    last = end  # the first word of the pairs that end the line
    while last >= 2 and _ANY_KEY.fullmatch(words[last - 2]):
        last -= 2
    others: list[str] = []
    settings: list[str] = []
    at = 0
    while at < end:
        start = at + (words[at] == "--set")
        is_key = start > at or _KNOWN_KEY.fullmatch(words[at]) or at >= last
        if is_key and start + 2 <= end:
            settings += words[start : start + 2]
            at = start + 2
        else:
            others.append(words[at])
            at += 1
    return [*others, *words[end:]], settings
