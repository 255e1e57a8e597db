"""The safe way to merge config files and options, and to walk through a config's keys."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

_TYPE_MISMATCH = re.compile(
    r"Type mismatch \(<class '(\w+)'> vs\. <class '(\w+)'>\) "
    r"with values \((.*) vs\. (.*)\) for config key: (\S+)"
)


def merge_config(cfg: CfgNode, config_file: str, opts: list[str]) -> None:
    """Merge a YAML file (with its `_BASE_` files) and "KEY VALUE" pairs into `cfg`, in place.

    Files are read by the safe YAML loader only: a tag that would build a Python object is refused.
    A `configs/NAME.yaml` that is not there is looked for among the package's own.

    Raises:
        UserError: a missing file, bad YAML, an unknown key (with the nearest valid one), or a value
            of another type than the default's.
    """
    _merge_file(cfg, config_file)
    if len(opts) % 2:
        raise UserError(
            f"config options come in pairs of KEY VALUE, but {len(opts)} words were given: "
            f"{' '.join(opts)}"
        )
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        with _readable(cfg, f"option {key} {value}"):
            cfg.merge_from_list([key, value])


def _merge_file(cfg: CfgNode, config_file: str) -> None:
    from detectron2.utils.file_io import PathManager

    if not PathManager.isfile(config_file):
        own = Path(__file__).parent / "configs" / config_file.removeprefix("configs/")
        if not own.is_file():
            raise UserError(f"config file {config_file} does not exist; {_near_files(config_file)}")
        config_file = str(own)
    with _readable(cfg, config_file):
        cfg.merge_from_file(config_file, allow_unsafe=False)


def _near_files(config_file: str) -> str:
    folder = os.path.dirname(config_file) or "."
    names = os.listdir(folder) if os.path.isdir(folder) else []
    names = [name for name in names if name.endswith(".yaml")]
    near = difflib.get_close_matches(os.path.basename(config_file), names, n=1)
    return f"did you mean {os.path.join(folder, near[0])}?" if near else "see configs/ for ours."


@contextlib.contextmanager
def _readable(cfg: CfgNode, place: str) -> Iterator[None]:
    """Turn what yacs and PyYAML raise into one `UserError` that names the place and the cure."""
    import yaml

    try:
        yield
    except yaml.constructor.ConstructorError as error:
        raise UserError(
            f"{place}: {error.problem} ({str(error.problem_mark).strip()}). Configs are plain data "
            "and never run code: write the value itself, without a tag."
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"{place}: not valid YAML: {error}") from None
    except (AttributeError, TypeError):
        raise UserError(f"{place}: not a config; it must hold nested `KEY: value` lines") from None
    except (KeyError, ValueError, AssertionError, OSError) as error:
        # str() of a KeyError would put its message in quotes.
        message = error.args[0] if isinstance(error, KeyError) else str(error)
        unknown = re.search(r"Non-existent(?: config)? key: (\S+)", message)
        if unknown:
            message = _unknown_key_message(cfg, unknown.group(1))
        wrong_type = _TYPE_MISMATCH.search(message)
        if wrong_type:
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


def leaf_keys(cfg: CfgNode, prefix: str = "") -> Iterator[str]:
    """Yield the full dotted name of every key of `cfg`."""
    for name, value in cfg.items():
        if hasattr(value, "items"):
            yield from leaf_keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def value_of(cfg: CfgNode, key: str) -> Any:
    """Return the value of a dotted key, or an empty dict where there is none."""
    value: Any = cfg
    for name in key.split("."):
        value = value.get(name, {})
    return value
