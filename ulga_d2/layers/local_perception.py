"""The local perception unit (CMT, arXiv:2107.06263), as DAT++ uses it."""

from __future__ import annotations

from torch import Tensor, nn


class LocalPerception(nn.Module):
    """Add to each token a depthwise 3x3 convolution of its neighbourhood: x + DW(x).

    DAT++ (arXiv:2309.01430) has it before every block, and in the hidden layer of every MLP.

    Args:
        dim: channels C of the tokens.

    Shape:
        input and output (B, H, W, C); any H, W >= 1.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens with what stands around them."""
        return x + self.depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
