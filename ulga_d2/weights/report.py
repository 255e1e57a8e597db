"""What a public checkpoint gave to a model, and what it did not."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ..errors import printable

SHOWN = 3  # names of a group that are written out


@dataclass(frozen=True)
class Report:
    """What was done with a checkpoint's weights.

    Attributes:
        place: the file.
        layout: the name of its layout.
        loaded: our names of the weights that were taken.
        resized: those among them that were resized, to the shapes before and after.
        ignored: what was not used, to the names in the file.
        absent: our names of the weights that the file does not have, left as initialised.
    """

    place: str
    layout: str
    loaded: tuple[str, ...]
    resized: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    ignored: dict[str, list[str]]
    absent: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Yield the report, a fact a line."""
        yield f"{self.place} ({self.layout}): {len(self.loaded)} weights of the backbone loaded"
        if self.resized:
            name, (before, after) = next(iter(self.resized.items()))
            yield f"resized: {len(self.resized)} position tables, {name} from {before} to {after}"
        for what, names in self.ignored.items():
            yield f"ignored: {what}: {some(names)}"
        inside = [name for name in self.absent if ".interaction." in name]
        others = [name for name in self.absent if ".interaction." not in name]
        for what, names in (("interactions", inside), ("others", others)):
            if names:
                yield f"not in the checkpoint, left as initialised: {what}: {some(names)}"


def some(names: Collection[str]) -> str:
    """Return how many names there are, and the first of them."""
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} ({', '.join(map(printable, list(names)[:SHOWN]))}{more})"
