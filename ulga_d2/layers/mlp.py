"""The MLPs of transformer blocks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .init import init_weights
from .linear import Linear
from .local_perception import LocalPerception


class Mlp(nn.Module):
    """Map each token through a hidden layer with GELU and back.

    Args:
        dim: channels C of the tokens.
        mlp_ratio: hidden width over C.

    Shape:
        input and output (B, H, W, C).
    """

    def __init__(self, dim: int, *, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        """Return each token's image under the MLP."""
        return self.fc2(F.gelu(self.fc1(x)))


class ConvMlp(nn.Module):
    """Map each token through a hidden layer that sees the hidden tokens around it, and back.

        y = W_2 GELU(h + DW(h)) + b_2   with h = W_1 x + b_1   DW: depthwise 3x3 convolution

    Source: DAT++, arXiv:2309.01430.

    Args:
        dim: channels C of the tokens.
        mlp_ratio: hidden width over C.

    Shape:
        input and output (B, H, W, C); any H, W >= 1.
    """

    def __init__(self, dim: int, *, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.fc1 = Linear(dim, hidden)
        self.local = LocalPerception(hidden)
        self.fc2 = Linear(hidden, dim)
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        """Return each token's image under the MLP."""
        return self.fc2(F.gelu(self.local(self.fc1(x))))
