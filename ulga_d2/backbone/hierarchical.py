"""What hierarchical backbones share: a stem, four stages, halving between them, named outputs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .configured import ConfiguredBackbone

STAGE_NAMES = ("stage2", "stage3", "stage4", "stage5")


class HierarchicalBackbone(ConfiguredBackbone):
    """Run tokens through four stages and return chosen stages' maps, each after a norm of its own.

    A stage's digit is the logarithm of its stride: `stage2` has stride 4, `stage5` stride 32.

    Args:
        stem: image (B, 3, H, W) to tokens (B, H / 4, W / 4, C).
        stages: four sequences of modules from (B, H, W, C) to the same.
        downsamples: the three modules between them, halving the map and doubling the channels.
        dims: channels of each stage.
        out_features: names of the stages to return.
        gradient_checkpointing: recompute each module's activations in the backward pass.

    Shape:
        input (B, 3, H, W), any H, W >= 1; output {name: (B, C_name, ceil(H / s), ceil(W / s))}.
    """

    def __init__(
        self,
        *,
        stem: nn.Module,
        stages: Sequence[nn.Sequential],
        downsamples: Sequence[nn.Module],
        dims: Sequence[int],
        out_features: Sequence[str],
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleDict(zip(STAGE_NAMES, stages, strict=True))
        self.downsamples = nn.ModuleDict(zip(STAGE_NAMES[1:], downsamples, strict=True))
        shapes = dict(zip(STAGE_NAMES, dims, strict=True))
        self.norms = nn.ModuleDict({name: nn.LayerNorm(shapes[name]) for name in out_features})
        self.gradient_checkpointing = gradient_checkpointing
        self._out_features = list(out_features)
        self._out_feature_channels = shapes
        self._out_feature_strides = {name: 2 ** int(name[-1]) for name in STAGE_NAMES}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the maps of the chosen stages, channels first."""
        x = self.stem(image)
        features = {}
        for name, stage in self.stages.items():
            if name in self.downsamples:
                x = self.downsamples[name](x)
            x = run_modules(stage, x, recompute=self.gradient_checkpointing and self.training)
            if name in self.norms:
                features[name] = self.norms[name](x).permute(0, 3, 1, 2)  # (B, C, H, W)
        return features


def run_modules(modules: nn.Sequential, x: Tensor, *, recompute: bool) -> Tensor:
    """Run modules in order; with `recompute`, the backward pass computes their activations anew."""
    if not recompute:
        return modules(x)
    for module in modules:
        x = checkpoint(module, x, use_reentrant=False)
    return x
