"""Number format and memory layout that a network is trained with; part of a run's configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from theory.command_line import InputError

Precision = Literal["float32", "tf32", "bfloat16"]


@dataclass(frozen=True)
class Arithmetic:
    """Number format and memory layout of the forward and backward pass."""

    precision: Precision = "float32"
    """float32; tf32: float32 with products in TensorFloat-32, on a GPU; bfloat16: automatic mixed precision, weights
    and losses in float32. Curvature is measured in float32 all the same."""
    channels_last: bool = False
    """Images and convolution weights with the channels innermost."""

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise InputError(f"precision is {self.precision}: give one of {', '.join(get_args(Precision))}")

    def arrange(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Lays out the network, in place, and returns the inputs laid out; the numbers stay as they are."""
        if not self.channels_last or inputs.dim() != 4:
            return inputs
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return inputs.contiguous(memory_format=torch.channels_last)

    @contextmanager
    def active(self, device: torch.device) -> Iterator[None]:
        """Computes inside in this precision, and as before afterwards."""
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        # Off is said too: PyTorch lets convolutions use TensorFloat-32 unless told otherwise.
        matmul.allow_tf32 = cudnn.allow_tf32 = self.precision == "tf32"
        try:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
                yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before
