"""A 3 × 3 or 1 × 1 convolution with its batch norm, the layer of VGG and ResNet."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sim.networks.layers import Layer
from sim.networks.normalisation import BatchNorm2d


class Convolution(Layer):
    """Convolution that keeps the size up to its stride, followed by batch norm or else with a bias.

    He-normal initial weights (He et al. 2015): with batch norm over the outgoing connections, as in torchvision;
    without, over the incoming ones, so that the signal keeps its size where channels grow in number. (Over the outgoing
    ones its mean square falls to a hundredth in VGG-11, which then stands on a plateau for hundreds of steps.) Biases
    are 0.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        kernel: width of the kernel, odd.
        stride: stride.
        batch_norm: whether a batch norm follows, in place of the bias.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1, batch_norm: bool = True
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=not batch_norm
        )
        mode: Literal["fan_in", "fan_out"] = "fan_out" if batch_norm else "fan_in"
        nn.init.kaiming_normal_(self.convolution.weight, mode=mode, nonlinearity="relu")
        if self.convolution.bias is not None:
            nn.init.zeros_(self.convolution.bias)
        self.norm = BatchNorm2d(channels_out) if batch_norm else nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        """(n, channels_in, h, w) → (n, channels_out, ⌈h/stride⌉, ⌈w/stride⌉)."""
        output: Tensor = self.norm(self._convolve(input))
        return output

    def _convolve(self, input: Tensor) -> Tensor:
        inner = self.convolution
        last = input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous()
        if inner.kernel_size == (1, 1) and inner.stride != (1, 1) and inner.in_channels < 8 and last:
            # The same, place by place: with channels last and so few of them, oneDNN's gradient of the weights of a
            # strided 1×1 kernel is wrong on processors without AVX-512, and writes beyond its end (torch 2.13).
            return F.conv2d(input[:, :, :: inner.stride[0], :: inner.stride[1]], inner.weight, inner.bias)
        output: Tensor = inner(input)
        return output


def stem_kernel(stride: int) -> int:
    """Width of a first convolution's kernel: 3, or the least odd one that at its stride leaves out no place.

    Outputs stand at multiples of the stride and reach (kernel − 1)/2 places to either side, the last one stride − 1
    places before the image's end.

    >>> [stem_kernel(stride) for stride in (1, 2, 4)]
    [3, 3, 7]
    """
    return max(3, 2 * stride - 1)
