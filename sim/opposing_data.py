"""Synthetic examples with a two-point opposing feature: large, rare, and of a sign that says nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from theory import Model
from theory.command_line import InputError, require_positive


@dataclass(frozen=True)
class Examples:
    """A set of examples in the model's eigenbasis.

    Attributes:
        features: (n, d1 + 1) ordinary features x, then the opposing feature uᵀx_o.
        target: (n,) y = βᵀx + |uᵀx_o|.
        group: (n,) sign of the opposing feature: 0 off the outliers, +1 and −1 on the two groups.
    """

    features: Tensor
    target: Tensor
    group: Tensor


CHUNK = 1 << 16
"""Examples held at once. Part of what a seed means: another size would draw other examples."""


def draw_examples(model: Model, count: int, fraction: float, seed: int, device: torch.device) -> Iterator[Examples]:
    """Draws examples chunk by chunk; the same seed gives the same examples on every device.

    x ~ N(0, Σ); with probability p an example is an outlier, whose opposing feature is ±√(α/p), so that its second
    moment is α.

    Args:
        model: second moments and target; exactly one opposing pair.
        count: number of examples n.
        fraction: p, the fraction of outliers.
        seed: seed of the generator, which runs on the CPU.
        device: where the examples are put.

    Raises:
        InputError: count or fraction out of range, or several opposing pairs.
    """
    require_positive("examples", count)
    if not 0 < fraction <= 1:
        raise InputError(f"fraction of outliers is {fraction}: give a number above 0 and at most 1")
    if model.alpha.size != 1:
        raise InputError(f"two-point examples take one opposing pair, not {model.alpha.size}")
    generator = torch.Generator().manual_seed(seed)
    deviation = torch.tensor(model.covariance).sqrt()
    beta = torch.tensor(model.beta)
    size = math.sqrt(float(model.alpha[0]) / fraction)
    for begin in range(0, count, CHUNK):
        n = min(CHUNK, count - begin)
        x = torch.randn(n, beta.numel(), generator=generator, dtype=torch.float64) * deviation
        outlier = torch.rand(n, generator=generator, dtype=torch.float64) < fraction
        sign = torch.where(torch.rand(n, generator=generator, dtype=torch.float64) < 0.5, -1, 1)
        group = torch.where(outlier, sign, 0)
        feature = size * group.to(torch.float64)
        yield Examples(
            features=torch.cat([x, feature[:, None]], 1).to(device),
            target=(x @ beta + feature.abs()).to(device),
            group=group.to(device),
        )
