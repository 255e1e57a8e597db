"""The transformer block, the only one in the project (Dosovitskiy et al., arXiv:2010.11929)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Let tokens interact, attend to one another, and pass through an MLP; two residual branches.

        x = x + drop_path(attn(interaction(norm1(x))))
        x = x + drop_path(mlp(norm2(x)))

    Source: the pre-norm block of ViT. Its one new word is `interaction`, put before the attention
    by arXiv:2412.18778; its place after the norm is ours. With `nn.Identity()` this is the plain
    block.

    Args:
        dim: channels C of the tokens.
        attn: attention, (B, H, W, C) to (B, H, W, C).
        mlp: the MLP, likewise.
        interaction: what the tokens go through before attention, likewise.
        drop_path: probability that a sample skips a branch in training.
        norm_eps: added to the variance in both norms (ViT's is smaller than Swin's).

    Shape:
        input and output (B, H, W, C).
    """

    def __init__(
        self,
        dim: int,
        *,
        attn: nn.Module,
        mlp: nn.Module,
        interaction: nn.Module,
        drop_path: float,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.interaction = interaction
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens after both branches."""
        x = x + self.drop_path(self.attn(self.interaction(self.norm1(x))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class DropPath(nn.Module):
    """Zero a residual branch for some samples and scale the others, in training only.

    Source: stochastic depth, arXiv:1603.09382.

    Args:
        probability: chance that a sample's branch is dropped, in [0, 1).

    Shape:
        input and output (B, ...).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Return the branch, dropped for some samples."""
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) < keep
        return x * (kept.to(x.dtype) / keep)
