"""The MLP of a transformer block."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .init import init_weights
from .linear import Linear


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
