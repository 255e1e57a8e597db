"""Swin Transformer (Liu et al., arXiv:2103.14030) with an interaction in every block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import configurable
from torch import nn

from ..interaction.build import InteractionLayer
from ..layers.attention import WindowAttention
from ..layers.block import Block
from ..layers.embed import PatchEmbed, PatchMerging
from ..layers.mlp import Mlp
from .hierarchical import STAGE_NAMES, HierarchicalBackbone

PATCH_SIZE = 4


class SwinTransformer(HierarchicalBackbone):
    """Swin: attention in windows, which every second block shifts by half a window.

    The interaction sees the whole map: windows are cut after it, inside the attention.

    Args:
        embed_dim: channels of the first stage, doubled in each next one.
        depths: blocks in each of the four stages.
        num_heads: attention heads in each stage.
        window_size: side of a window in tokens.
        mlp_ratio: hidden width of the MLP over its input width.
        drop_path_rate: stochastic depth of the last block; the first has none, linear between.
        interaction_layer: (channels, stage name) to the interaction of a block.
        out_features: names of the stages to return.
        gradient_checkpointing: recompute each block's activations in the backward pass.
    """

    node = "SWIN"

    @configurable
    def __init__(
        self,
        *,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: int,
        mlp_ratio: float,
        drop_path_rate: float,
        interaction_layer: InteractionLayer,
        out_features: Sequence[str],
        gradient_checkpointing: bool,
    ) -> None:
        dims = [embed_dim * 2**stage for stage in range(len(depths))]
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())

        def block(stage: int, index: int) -> Block:
            shift = window_size // 2 if index % 2 else 0
            dim, heads = dims[stage], num_heads[stage]
            return Block(
                dim,
                attn=WindowAttention(
                    dim, num_heads=heads, window_size=window_size, shift_size=shift
                ),
                mlp=Mlp(dim, mlp_ratio=mlp_ratio),
                interaction=interaction_layer(dim, STAGE_NAMES[stage]),
                drop_path=next(rates),
            )

        super().__init__(
            stem=PatchEmbed(embed_dim, patch_size=PATCH_SIZE, in_channels=3, has_norm=True),
            stages=[
                nn.Sequential(*(block(stage, index) for index in range(depth)))
                for stage, depth in enumerate(depths)
            ],
            downsamples=[PatchMerging(dim) for dim in dims[:-1]],
            dims=dims,
            out_features=out_features,
            gradient_checkpointing=gradient_checkpointing,
        )
