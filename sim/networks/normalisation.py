"""Batch and layer normalisation written out in elementary operations, so that all derivatives are right.

y = γ (x − μ) / √(σ² + ε) + δ, with the mean μ and the uncorrected variance σ² over the batch and the places of a
channel (batch norm), or over the features of a token (layer norm). PyTorch's fused ones have wrong third derivatives,
without an error (pytorch 175754, 186256). These are their subclasses: names, buffers and `isinstance` are theirs.
Inputs in half precision, as under autocast, are normalised in float32 and given back in theirs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` written out; in training mode it updates the running statistics as that does."""

    def forward(self, input: Tensor) -> Tensor:
        """(n, channels, height, width) normalised over batch, height and width."""
        assert self.running_mean is not None
        assert self.running_var is not None
        wide = _at_least_float32(input)
        if self.training:
            count = input.numel() // input.shape[1]
            if count == 1:  # PyTorch's own words: the output would be 0 whatever the input
                raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
            # Sums over the places first, then over the batch: several times as fast on a CPU as over both at once.
            mean = wide.flatten(2).sum(2).sum(0) / count
            centred = wide - mean.view(-1, 1, 1)
            variance = centred.flatten(2).square().sum(2).sum(0) / count
            self._track(mean.detach(), variance.detach(), count)
        else:
            centred, variance = wide - self.running_mean.view(-1, 1, 1), self.running_var
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return torch.addcmul(self.bias.view(-1, 1, 1), centred, scale.view(-1, 1, 1)).to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            # The running variance is the corrected one, as in PyTorch.
            self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` over the last dimension, written out."""

    def __init__(self, features: int) -> None:
        super().__init__(features)

    def forward(self, input: Tensor) -> Tensor:
        """(…, features) normalised over the features."""
        wide = _at_least_float32(input)
        centred = wide - wide.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return torch.addcmul(self.bias, centred * torch.rsqrt(variance + self.eps), self.weight).to(input.dtype)


def _at_least_float32(input: Tensor) -> Tensor:
    return input.to(torch.promote_types(input.dtype, torch.float32))
