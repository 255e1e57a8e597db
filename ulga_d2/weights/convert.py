"""Any public checkpoint into a .safetensors file, which holds tensors and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..version import __version__
from .archive import Archive, open_archive
from .detect import recognise, unwrap
from .digest import file_sha256
from .layout import PublicWeights
from .share import check_new, save_new


@dataclass(frozen=True)
class Conversion:
    """What was written, and what was not.

    Attributes:
        public: the weights, recognised.
        written: names of the tensors in the new file, as they were in the old one.
        dropped: names of what stood beside them and is no tensor.
    """

    public: PublicWeights
    written: tuple[str, ...]
    dropped: tuple[str, ...]


def convert(source: str | Path, target: str | Path) -> Conversion:
    """Write the weights in `source`, a pickle of any kind, to `target`, under their own names.

    The file's metadata name the layout, the source and its sha256.

    Raises:
        UserError: a target that exists, has another suffix or cannot be written; a source that
            holds objects for which there is no place, or weights of no known layout. Nothing is
            left where the target would be.
    """
    check_new(target)
    with open_archive(source) as archive:
        values = unwrap(archive.tree, str(source))
        tensors = _tensors(archive, values)
    state = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    public = recognise(state, str(source))
    metadata = {
        "format": "pt",
        "layout": public.layout.name,
        "source": Path(source).name,
        "source_sha256": file_sha256(source),
        "writer": f"ulga_d2 {__version__}",
    }
    save_new(target, state, metadata)
    return Conversion(public, tuple(state), tuple(name for name in tensors if name not in state))


def _tensors(archive: Archive, values: Mapping[str, Any]) -> dict[str, Tensor | None]:
    """Return the tensors by name; one under several names is copied, as the new file keeps it."""
    tensors: dict[str, Tensor | None] = {}
    seen: set[int] = set()
    for name, value in values.items():
        tensor = archive.tensor(value)
        if tensor is not None and tensor.data_ptr() in seen:
            archive.take(tensor.nbytes)
            tensor = tensor.clone()
        tensors[name] = tensor
        if tensor is not None and tensor.nbytes:
            seen.add(tensor.data_ptr())
    return tensors
