"""ResNet-18 for small images (He et al. 2016): a 3 × 3 first convolution and no first pooling."""

from __future__ import annotations

from torch import Tensor, nn

from sim.networks.convolution import Convolution, stem_kernel

STAGES = (64, 128, 256, 512)
"""Channels of the stages at width 1; each has two blocks, and all but the first halve the image."""


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut: the identity, or a 1 × 1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.first = Convolution(channels_in, channels_out, stride=stride)
        self.between = activation()
        self.second = Convolution(channels_out, channels_out)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else Convolution(channels_in, channels_out, kernel=1, stride=stride)
        self.after = activation()

    def forward(self, input: Tensor) -> Tensor:
        """(n, channels_in, h, w) → (n, channels_out, ⌈h/stride⌉, ⌈w/stride⌉)."""
        output: Tensor = self.after(self.second(self.between(self.first(input))) + self.shortcut(input))
        return output


def resnet18(
    channels_in: int, classes: int, *, width: float, activation: type[nn.Module], stride: int = 1
) -> nn.Sequential:
    """ResNet-18 with batch norm: first convolution of the given stride, eight blocks, mean over places, linear map."""
    channels = max(1, round(STAGES[0] * width))
    modules: list[nn.Module] = [Convolution(channels_in, channels, kernel=stem_kernel(stride), stride=stride)]
    modules.append(activation())
    for stage, full in enumerate(STAGES):
        wide = max(1, round(full * width))
        modules += [
            BasicBlock(channels, wide, 1 if stage == 0 else 2, activation),
            BasicBlock(wide, wide, 1, activation),
        ]
        channels = wide
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
