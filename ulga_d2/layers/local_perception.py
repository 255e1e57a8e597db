"""The local perception unit (CMT, arXiv:2107.06263), as DAT++ uses it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
        # One more in the middle of each kernel adds x without a pass over memory of its own.
        conv = self.depthwise
        x_itself = torch.zeros_like(conv.weight)
        x_itself[:, :, 1, 1] = 1
        kernel = conv.weight + x_itself
        x = F.conv2d(x.permute(0, 3, 1, 2), kernel, conv.bias, padding=1, groups=x.shape[-1])
        return x.permute(0, 2, 3, 1)
