"""The one place that decides how a linear runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HAS_ONEDNN = torch.backends.mkldnn.is_available()


class Linear(nn.Linear):
    """`nn.Linear`, run by whichever equal form is the quickest where it runs.

    Shape:
        input (..., in_features), output (..., out_features); maps (B, H, W, C) are the quick case.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply the last axis of `x` (..., C) by `weight` (D, C) and add `bias` (D,).

    On a CPU, float32 maps without gradients go through a 1x1 convolution: oneDNN runs it 5 to 25 %
    faster than the BLAS behind `F.linear`. With gradients that advantage is lost in the backward
    pass on CPUs without AVX-512, and on GPUs there is none (docs/benchmarks.md).
    """
    if x.ndim == 4 and _prefers_convolution(x):
        return F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    return F.linear(x, weight, bias)


def _prefers_convolution(x: Tensor) -> bool:
    return (
        HAS_ONEDNN
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )
