"""The one place that decides how a linear runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HAS_ONEDNN = torch.backends.mkldnn.is_available()
HAS_AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512"


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

    On a CPU, float32 maps may go through a 1x1 convolution, which oneDNN can run faster than the
    BLAS behind `F.linear`: with AVX-512 in both directions, without it only where a map is widened
    and no gradient is wanted (docs/benchmarks.md). On GPUs there is nothing to gain.
    """
    if x.ndim == 4 and _prefers_convolution(x, widens=weight.shape[0] > weight.shape[1]):
        return F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    return F.linear(x, weight, bias)


def _prefers_convolution(x: Tensor, *, widens: bool) -> bool:
    return (
        HAS_ONEDNN
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and (HAS_AVX512 or (widens and not torch.is_grad_enabled()))
    )
