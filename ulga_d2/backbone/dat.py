"""DAT++ (Xia et al., arXiv:2309.01430) with an interaction in every block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from detectron2.config import configurable
from torch import Tensor, nn

from ..interaction.build import InteractionLayer
from ..layers.block import Block
from ..layers.deformable_attention import DeformableAttention
from ..layers.embed import ConvDownsample, ConvStem
from ..layers.local_perception import LocalPerception
from ..layers.mlp import ConvMlp
from ..layers.neighborhood_attention import NeighborhoodAttention
from .hierarchical import STAGE_NAMES, HierarchicalBackbone


class DAT(HierarchicalBackbone):
    """DAT++: attention to a token's neighbours and to points chosen by the tokens, in turns.

    In the last stage all blocks attend to points. Before every block stands a local perception
    unit. `layers/deformable_attention.py` tells what is the released code's and what is ours.

    Args:
        embed_dim: channels of the first stage, doubled in each next one.
        depths: blocks in each of the four stages.
        num_heads: attention heads in each stage.
        num_groups: groups of channels with points of their own, in each stage.
        window_size: side of a token's neighbourhood, in tokens.
        offset_kernel: side of the offset network's kernel in each stage.
        offset_stride: tokens from one point to the next in each stage.
        offset_init: "zero" or "default", see `DeformableAttention`.
        ref_points: "centred" or "released", see `DeformableAttention`.
        offset_input: what the offset networks see: the tokens after the interaction ("enhanced") or
            before it ("plain").
        grid_size: side of the first stage's map for which its position tables have one entry a
            distance, halved in each next stage.
        mlp_ratio: hidden width of the MLP over its input width.
        drop_path_rate: stochastic depth of the last block; the first has none, linear between.
        interaction_layer: (channels, stage name) to the interaction of a block.
        out_features: names of the stages to return.
        gradient_checkpointing: recompute each block's activations in the backward pass.
    """

    node = "DAT"

    @configurable
    def __init__(
        self,
        *,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        num_groups: Sequence[int],
        window_size: int,
        offset_kernel: Sequence[int],
        offset_stride: Sequence[int],
        offset_init: str,
        ref_points: str,
        offset_input: str,
        grid_size: int,
        mlp_ratio: float,
        drop_path_rate: float,
        interaction_layer: InteractionLayer,
        out_features: Sequence[str],
        gradient_checkpointing: bool,
    ) -> None:
        dims = [embed_dim * 2**stage for stage in range(len(depths))]
        grids = [grid_size // 2**stage for stage in range(len(depths))]
        rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").split(list(depths))
        offsets = zip(offset_kernel, offset_stride, strict=True)
        sizes = zip(STAGE_NAMES, dims, num_heads, num_groups, offsets, grids, rates, strict=True)
        near = partial(NeighborhoodAttention, window_size=window_size)
        far = partial(DeformableAttention, offset_init=offset_init, ref_points=ref_points)
        stages = [
            _stage(StageSizes(*values), near, far, offset_input, mlp_ratio, interaction_layer)
            for values in sizes
        ]
        super().__init__(
            stem=ConvStem(embed_dim, in_channels=3),
            stages=stages,
            downsamples=[ConvDownsample(dim) for dim in dims[:-1]],
            dims=dims,
            out_features=out_features,
            gradient_checkpointing=gradient_checkpointing,
        )


class StageSizes(NamedTuple):
    """What differs from stage to stage.

    Attributes:
        name: of the stage.
        dim: its channels.
        num_heads: its attention heads.
        num_groups: its groups of channels with points of their own.
        offset: the kernel and the stride of its offset networks.
        grid_size: side of the map for which its position tables have one entry a distance.
        drop_path: (blocks,), the stochastic depth of each.
    """

    name: str
    dim: int
    num_heads: int
    num_groups: int
    offset: tuple[int, int]
    grid_size: int
    drop_path: Tensor


def _stage(
    sizes: StageSizes,
    near: Callable[..., NeighborhoodAttention],
    far: Callable[..., DeformableAttention],
    offset_input: str,
    mlp_ratio: float,
    interaction_layer: InteractionLayer,
) -> nn.Sequential:
    """Build one stage; `near` and `far` build its attentions, given their sizes."""
    dim, heads = sizes.dim, sizes.num_heads
    modules: list[nn.Module] = []
    for index, drop_path in enumerate(sizes.drop_path.tolist()):
        in_block, in_attn = interaction_layer(dim, sizes.name), nn.Identity()
        if index % 2 == 0 and sizes.name != STAGE_NAMES[-1]:
            attn: nn.Module = near(dim, num_heads=heads)
        else:
            if offset_input == "plain":
                in_block, in_attn = in_attn, in_block
            kernel_size, stride = sizes.offset
            attn = far(
                dim,
                num_heads=heads,
                num_groups=sizes.num_groups,
                kernel_size=kernel_size,
                stride=stride,
                grid_size=sizes.grid_size,
                interaction=in_attn,
            )
        mlp = ConvMlp(dim, mlp_ratio=mlp_ratio)
        block = Block(dim, attn=attn, mlp=mlp, interaction=in_block, drop_path=drop_path)
        modules += [LocalPerception(dim), block]
    return nn.Sequential(*modules)
