"""What passes through a detector's blocks, seen by hooks that are put on and taken off again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..layers.block import Block
from ..layers.deformable_attention import DeformableAttention
from .similarity import mean_cosine

PLACES = ("before", "after", "out")  # where tokens are compared: around the interaction, at the end


@dataclass
class BlockRecord:
    """What passed through one block in the last pass.

    Attributes:
        name: of the block in the backbone.
        block: the module.
        tokens: maps (B, H, W, C) "before" and "after" the interaction and "out" of the block, and
            what went into the "attention".
        concepts: forward (B, K, N) and backward map (B, N, K) of CAT, or None.
    """

    name: str
    block: Block
    tokens: dict[str, Tensor] = field(default_factory=dict)
    concepts: tuple[Tensor, Tensor] | None = None

    def similarity(self) -> dict[str, float]:
        """Return the mean cosine of the first image's tokens, by place."""
        return {place: mean_cosine(self.tokens[place][0]) for place in PLACES}


@contextlib.contextmanager
def recorded(backbone: nn.Module) -> Iterator[list[BlockRecord]]:
    """Record what passes through the blocks of a backbone, in their order, while entered."""
    found = [BlockRecord(*pair) for pair in backbone.named_modules() if isinstance(pair[1], Block)]
    with contextlib.ExitStack() as hooks:
        for one in found:
            for handle in _watch(one):
                hooks.callback(handle.remove)
        yield found


def interaction_of(block: Block) -> nn.Module:
    """Return a block's interaction, which DAT++ may have inside its attention."""
    inner = getattr(block.attn, "interaction", None)
    return block.interaction if inner is None or isinstance(inner, nn.Identity) else inner


def _watch(one: BlockRecord) -> Iterator[torch.utils.hooks.RemovableHandle]:
    def around(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        one.tokens["before"], one.tokens["after"] = inputs[0].detach(), output.detach()

    def into(_module: nn.Module, inputs: tuple[Tensor]) -> None:
        one.tokens["attention"] = inputs[0].detach()

    def out(_module: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> None:
        one.tokens["out"] = output.detach()

    def conceived(_module: nn.Module, _inputs: tuple[Tensor], output: tuple[Tensor, ...]) -> None:
        one.concepts = output.forward_map.detach(), output.backward_map.detach()

    interaction = interaction_of(one.block)
    yield interaction.register_forward_hook(around)
    yield one.block.attn.register_forward_pre_hook(into)
    yield one.block.register_forward_hook(out)
    if getattr(interaction, "cat", None) is not None:
        yield interaction.cat.register_forward_hook(conceived)


def attention_rows(attn: nn.Module, x: Tensor, cells: Tensor) -> Tensor:
    """Return where chosen tokens of a map look: the weights themselves, mean of the heads.

    A token's output in a channel is a weighted sum of the values there, so the weights are its
    gradient with respect to them. That is exact for any attention, whatever its windows, biases
    and masks. Weights of tokens that pad the map to whole windows are left out.

    Args:
        attn: an attention with `qkv`, values last, `num_heads` and `proj`.
        x: (1, H, W, C), what went into it.
        cells: (Q, 2), rows and columns of the chosen tokens.

    Returns:
        (Q, H, W).
    """
    seen: dict[str, Tensor] = {}

    def cut(_module: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> Tensor:
        seen["qkv"] = output.detach().requires_grad_()
        return seen["qkv"]

    def keep(_module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen["out"] = inputs[0]

    with contextlib.ExitStack() as hooks, torch.enable_grad():
        hooks.callback(attn.qkv.register_forward_hook(cut).remove)
        hooks.callback(attn.proj.register_forward_pre_hook(keep).remove)
        attn(x)
        first = seen["out"].unflatten(-1, (attn.num_heads, -1))[0, ..., 0]  # (H, W, heads)
        rows = [
            torch.autograd.grad(first[row, column].sum(), seen["qkv"], retain_graph=True)[0]
            for row, column in cells.tolist()
        ]
    return torch.stack([_weights(row, attn.num_heads, x) for row in rows])


def _weights(gradient: Tensor, num_heads: int, x: Tensor) -> Tensor:
    """Return the weights on the map (H, W), of the gradient of qkv: a list of tokens, or a map."""
    values = gradient.unflatten(-1, (3, num_heads, -1))[..., 2, :, 0].mean(dim=-1)
    height, width = x.shape[1:3]
    if values.shape[1] == 1:  # tokens in a list, padding last: (1, 1, N)
        return values[0, 0, : height * width].reshape(height, width)
    return values[0, :height, :width]


def sampled_points(attn: DeformableAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a deformable attention reads a map, and how far its points were moved.

    Args:
        attn: the attention.
        x: (1, H, W, C), what went into it.

    Returns:
        (P, 2) places (x, y) in tokens from the map's corner, a cell's centre at a half; and (P,),
        the lengths of the offsets in tokens, before points are kept inside the map.
    """
    with torch.no_grad():
        query = attn.q(x)
        points, offsets = attn.points(query), attn.offsets(query)
    cells = torch.tensor(x.shape[1:3], dtype=points.dtype, device=points.device) - 1
    places = ((points[0] + 1) / 2 * cells + 0.5).flatten(0, -2).flip(-1)
    return places, (offsets[0].to(points.dtype) * cells / 2).norm(dim=-1).flatten()
