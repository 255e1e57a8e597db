"""Plain Vision Transformer (Dosovitskiy et al., arXiv:2010.11929) as a detection backbone."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import configurable
from torch import Tensor, nn
from torch.nn import functional as F

from ..interaction.build import InteractionLayer
from ..layers.attention import GlobalAttention
from ..layers.block import Block
from ..layers.embed import PatchEmbed, PositionEmbed
from ..layers.mlp import Mlp
from .configured import ConfiguredBackbone
from .hierarchical import run_modules

PATCH_SIZE = 16
NORM_EPS = 1e-6
STAGE_NAME = "stage4"  # what a map of stride 16 is called; the interactions of all blocks see it
STRIDES = {"stage3": 8, STAGE_NAME: 16, "stage5": 32}


class ViT(ConfiguredBackbone):
    """Run one stack of blocks at stride 16, then resample its last map to strides 8, 16 and 32.

    Some blocks may attend in windows, between blocks that attend to the whole map (ViTDet,
    arXiv:2203.16527, from which the resampling of the last map is, too). There is no class token.

    Args:
        embed_dim: channels of the tokens.
        depth: blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP over its input width.
        window_size: side of a window in tokens; 0 if all blocks attend to the whole map.
        num_global: with windows, how many blocks attend to the whole map; evenly spread, the last
            one among them.
        rel_pos: add to the logits what each query has learned for a key's distance in rows and in
            columns.
        grid_size: side of the map, in tokens, for which the position tables have an entry each.
        drop_path_rate: stochastic depth of the last block; the first has none, linear between.
        interaction_layer: (channels, stage name) to the interaction of a block.
        out_features: names of the maps to return.
        gradient_checkpointing: recompute each block's activations in the backward pass.

    Shape:
        input (B, 3, H, W), any H, W >= 1; with h = ceil(H / 16), w = ceil(W / 16) the output is
        stage3 (B, C, 2h, 2w), stage4 (B, C, h, w), stage5 (B, C, ceil(h / 2), ceil(w / 2)).
    """

    node = "VIT"

    @configurable
    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        window_size: int,
        num_global: int,
        rel_pos: bool,
        grid_size: int,
        drop_path_rate: float,
        interaction_layer: InteractionLayer,
        out_features: Sequence[str],
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.stem = PatchEmbed(embed_dim, patch_size=PATCH_SIZE, in_channels=3, has_norm=False)
        self.position = PositionEmbed(embed_dim, grid_size=grid_size)
        whole = global_blocks(depth, num_global if window_size else depth)

        def block(index: int) -> Block:
            window = 0 if index in whole else window_size
            sizes = {"window_size": window, "rel_pos_size": (window or grid_size) * rel_pos}
            return Block(
                embed_dim,
                attn=GlobalAttention(embed_dim, num_heads=num_heads, **sizes),
                mlp=Mlp(embed_dim, mlp_ratio=mlp_ratio),
                interaction=interaction_layer(embed_dim, STAGE_NAME),
                drop_path=drop_path_rate * index / max(1, depth - 1),
                norm_eps=NORM_EPS,
            )

        self.blocks = nn.Sequential(*(block(index) for index in range(depth)))
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        if "stage3" in out_features:
            self.to_stage3 = nn.ConvTranspose2d(embed_dim, embed_dim, kernel_size=2, stride=2)
        self.gradient_checkpointing = gradient_checkpointing
        self._out_features, self._out_feature_strides = list(out_features), STRIDES
        self._out_feature_channels = dict.fromkeys(STRIDES, embed_dim)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the last map at the chosen strides, channels first."""
        last = self.norm(self.tokens(image)).permute(0, 3, 1, 2)  # (B, C, h, w)
        features = {}
        if "stage3" in self._out_features:
            features["stage3"] = self.to_stage3(last)
        if STAGE_NAME in self._out_features:
            features[STAGE_NAME] = last
        if "stage5" in self._out_features:
            features["stage5"] = F.max_pool2d(last, kernel_size=2, ceil_mode=True)
        return features

    def tokens(self, image: Tensor) -> Tensor:
        """Return the tokens after the last block, before the norm: (B, h, w, C)."""
        x = self.position(self.stem(image))
        return run_modules(self.blocks, x, recompute=self.gradient_checkpointing and self.training)


def global_blocks(depth: int, count: int) -> set[int]:
    """Return the numbers of `count` blocks of `depth`, evenly spread, the last one among them."""
    return {depth * (number + 1) // count - 1 for number in range(count)}
