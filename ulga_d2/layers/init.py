"""Initial weights, the same in every part."""

from __future__ import annotations

from torch import nn


def init_weights(module: nn.Module) -> None:
    """Initialise one module: linears truncated normal with deviation 0.02, biases 0, norms 1 and 0.

    Convolutions keep torch's default. Use as `self.apply(init_weights)`, last in a constructor.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
