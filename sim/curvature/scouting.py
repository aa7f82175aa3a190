"""Searches with cheap, coarse products that leave few exact ones to make.

Most products of a search only choose directions. Those may be coarse: in bfloat16 before float32, in float32 before
float64. What a scout has found is handed on as recycled vectors, from which the exact search starts; the values,
residuals and estimates of errors that it reports come from exact products alone, as many as its criterion takes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import nn

from sim.curvature.eigensolver import Criterion
from sim.curvature.operators import LinearOperator

BFLOAT16_NOISE = 2e-3
FLOAT32_NOISE = 2e-5

_SHARE = 0.5
"""A scout goes to this part of the tolerance: what its products are off by comes on top."""

MAX_PRODUCTS = 60
"""Of a scout; what it has not found by then is left to the exact search."""


@dataclass(frozen=True)
class Scout:
    """A cheap operator near the one of interest.

    Attributes:
        operator: the cheap operator.
        noise: about ‖(H̃ − H) v‖ / |λ| at the top eigenvectors: no residual below that means anything.
    """

    operator: LinearOperator
    noise: float

    def tolerance(self, wanted: float, criterion: Criterion) -> float:
        """How far its search goes, for an exact one to the tolerance wanted."""
        # A value's error is about the square of the residual, over a relative gap of at most 1.
        return max(_SHARE * wanted, self.noise if criterion == "residual" else self.noise**2)


@functools.cache
def bfloat16_is_quick(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are much faster than in float32: where the processor has tiles for them.

    False on GPUs, where it was not measured.
    """
    # PyTorch has no public name for it in all versions that the package takes; without one, exact products alone do.
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type == "cpu" and bool(has_tiles())


def is_all_matrix_products(network: nn.Module) -> bool:
    """Whether all parameters are those of linear layers, so that a product's time is that of matrix products."""
    own = (m for m in network.modules() if any(True for _ in m.parameters(recurse=False)))
    return all(isinstance(m, nn.Linear) for m in own)
