"""Aggressive convolutional pooling (ACP), after the idea of arXiv:2412.18778."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AggressiveConvPooling(nn.Module):
    """Mix each token with a neighbourhood that grows by repeated convolution and pooling.

        Y_0 = x
        R_l = Y_{l-1} + GELU(LN_l(DW_l(Y_{l-1})))     depthwise convolution, l = 1..L
        Y_l = MaxPool(R_l)                            3x3, padding 1
        Z   = x + sum_l gate_l * Up(Y_l)              bilinear, back to H x W

    Source: arXiv:2412.18778 for the idea (depthwise convolution with iterated max-pooling, two
    rounds usually best). Written from the paper's abstract and published summaries, without access
    to its full text; the authors' module may differ in detail, and corrections are welcome. Ours:
    the residual cell (after GCViT's token generator, arXiv:2206.09959), the gated sum over rounds,
    all sizes.

    Args:
        dim: channels C of the tokens.
        num_layers: rounds L of convolution and pooling.
        kernel_size: side of the depthwise kernel, odd.
        pool_stride: 2 halves the map in each round, 1 keeps its size.

    Shape:
        input and output (B, H, W, C); any H, W >= 1.
    """

    def __init__(self, dim: int, *, num_layers: int, kernel_size: int, pool_stride: int) -> None:
        super().__init__()
        self.pool_stride = pool_stride
        self.convs = nn.ModuleList(
            nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
            for _ in range(num_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(num_layers))
        self.gates = nn.ParameterList(
            nn.Parameter(torch.full((dim,), 1.0 / num_layers)) for _ in range(num_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens with their pooled neighbourhoods added."""
        mixed, pooled = x, x
        for conv, norm, gate in zip(self.convs, self.norms, self.gates, strict=True):
            local = conv(pooled.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, H_l, W_l, C)
            pooled = self._pool(pooled + F.gelu(norm(local)))
            mixed = torch.addcmul(mixed, gate, _upsample(pooled, x.shape[1:3]))
        return mixed

    def _pool(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(x.permute(0, 3, 1, 2), 3, stride=self.pool_stride, padding=1)
        return x.permute(0, 2, 3, 1)  # (B, ceil(H / stride), ceil(W / stride), C)


def _upsample(x: Tensor, size: torch.Size) -> Tensor:
    if x.shape[1:3] == size:
        return x
    x = F.interpolate(x.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
    return x.permute(0, 2, 3, 1)  # (B, H, W, C)
