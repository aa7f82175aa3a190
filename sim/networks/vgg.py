"""VGG-11 for small images (Simonyan & Zisserman 2015): eight convolutions, and one linear map in place of three."""

from __future__ import annotations

from torch import nn

from sim.networks.convolution import Convolution, stem_kernel

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))
"""Channels of the convolutions of each stage, at width 1; a stage ends in a 2 × 2 max pooling."""


def vgg11(
    channels_in: int, classes: int, *, width: float, activation: type[nn.Module], batch_norm: bool, stride: int = 1
) -> nn.Sequential:
    """VGG-11 on images of at least 32 × 32: five stages, mean over the places that are left, linear map.

    A first convolution of stride 2 takes the place of the last pooling but one: that would leave the last stage one
    place, where zeros fill eight ninths of a kernel and the signal dies.
    """
    modules: list[nn.Module] = []
    channels = channels_in
    for number, stage in enumerate(STAGES):
        for full in stage:
            wide = max(1, round(full * width))
            step = 1 if modules else stride
            convolution = Convolution(channels, wide, kernel=stem_kernel(step), stride=step, batch_norm=batch_norm)
            modules += [convolution, activation()]
            channels = wide
        if stride == 1 or number != len(STAGES) - 2:
            modules.append(nn.MaxPool2d(2))
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
