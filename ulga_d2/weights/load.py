"""Files of weights, read without running code."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager
from torch import Tensor

from ..errors import UserError
from .archive import PickleError, read_saved
from .digest import KEY, content_sha256
from .download import WebHandler
from .share import SUFFIX, SharedInfo, read_safetensors
from .unpickle import RefusedError
from .zoo import ZooHandler

logger = logging.getLogger(__name__)

PathManager.register_handler(ZooHandler(), allow_override=True)
PathManager.register_handler(WebHandler(), allow_override=True)

FORMAT = "ulga_d2 checkpoint 1"  # the mark in checkpoints of this project


def is_own(state: Any) -> bool:
    """Tell whether what a file held is a checkpoint of this project."""
    return isinstance(state, dict) and state.get("format") == FORMAT


# What torch names in a pickle for tensors without plain values; none of it runs code.
_ODD_TENSORS = (
    "torch._utils._rebuild_sparse_tensor",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_meta_tensor_no_storage",
)


def read_plain(path: str | Path) -> Any:
    """Read a .safetensors file, or what torch saved, onto the CPU; only plain data is admitted.

    Weights that were written to be shared come as a checkpoint of this project, without the state
    of a training.

    Raises:
        UserError: a missing or damaged file, or one that holds Python objects other than tensors
            and plain containers.
    """
    try:
        local = PathManager.get_local_path(str(path))
        if local.endswith(SUFFIX):
            return _own_or_bare(*read_safetensors(local))
        with open(local, "rb") as file:
            state = read_saved(file)
    except UserError:
        raise
    except RefusedError as error:
        if str(error).startswith(_ODD_TENSORS):
            raise UserError(
                f"checkpoint {path} holds a sparse, quantized or meta tensor; save all weights as "
                "dense tensors of floating-point numbers"
            ) from None
        raise UserError(_could_run(path, f"the Python object {error}")) from None
    except PickleError:
        raise UserError(_could_run(path, "a pickle of Python objects")) from None
    except FileNotFoundError:
        raise UserError(f"checkpoint {path} does not exist; check its path") from None
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be opened: {error}") from None
    except Exception as error:  # a stream of another kind, cut or crafted, can end in any of them
        raise UserError(
            f"checkpoint {path} cannot be read as plain tensors: it is damaged, or no checkpoint "
            f"({str(error)[:200]})"
        ) from None
    if is_own(state):
        _check_content(state, path)
    return state


def _own_or_bare(tensors: dict[str, Tensor], info: SharedInfo | None) -> dict[str, Any]:
    """Give shared weights the form of a checkpoint, which has them under "model"."""
    if info is None:
        return tensors
    return {
        "format": FORMAT,
        "model": tensors,
        "iteration": info.iteration,
        "class_names": list(info.class_names),
        "config": info.config,
        "metrics": dict(info.metrics),
    }


def _check_content(state: dict[str, Any], path: str | Path) -> None:
    """Compare a checkpoint of ours with the fingerprint in it, which older ones have not.

    Raises:
        UserError: they differ.
    """
    if KEY not in state:
        logger.warning("%s has no sha256 in it: damage cannot be told", path)
        return
    try:
        is_intact = state[KEY] == content_sha256(state)
    except TypeError:  # a kind of value that we never write
        is_intact = False
    if not is_intact:
        raise UserError(
            f"checkpoint {path} is damaged: its content is not that of its sha256. Use another"
        )


def _could_run(path: str | Path, what: str) -> str:
    return (
        f"checkpoint {path} cannot be read as plain tensors: it holds {what}, and loading that "
        f"could run code. `ulga weights convert {path} OUT{SUFFIX}` takes the tensors out of it "
        "and runs none"
    )
