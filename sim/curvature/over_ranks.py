"""A loss whose examples are divided among ranks, and its Hessian."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sim.curvature.layerwise import Blocks
from sim.curvature.mean_loss import MeanLoss
from sim.distributed import own_slice, sum_over_ranks


def own_part(objective: MeanLoss) -> MeanLoss:
    """The part of a mean loss that this rank's share of the examples makes: the parts sum to the whole."""
    n, part = len(objective), own_slice(len(objective))
    # float64, as 1/n rounded to float32 would be another loss in float64.
    weights = torch.full((n,), 1 / n, dtype=torch.float64) if objective.weights is None else objective.weights
    own = weights[part].to(objective.inputs.device)
    return replace(objective, inputs=objective.inputs[part], targets=objective.targets[part], weights=own)


class SummedOperator:
    """Sum over the ranks of each rank's own operator.

    The ranks multiply the same vectors in the same order, as a search does that all of them make from one seed: the
    products have the same bits on every rank, so the searches take the same turns.

    Args:
        own: the Hessian of this rank's part of the loss.
    """

    def __init__(self, own: Blocks) -> None:
        self._own = own
        self.size, self.device, self.dtype = own.size, own.device, own.dtype

    def with_respect_to(self, indices: Sequence[int]) -> SummedOperator:
        """Diagonal block of the parameters with these positions."""
        return SummedOperator(self._own.with_respect_to(indices))

    def between(self, along: Sequence[int], onto: Sequence[int]) -> SummedOperator:
        """The block that takes vectors of the parameters with some positions to those of others."""
        return SummedOperator(self._own.between(along, onto))

    def matvec(self, vector: Tensor) -> Tensor:
        """Hessian-vector product."""
        product = self._own.matvec(vector)
        sum_over_ranks([product])
        return product
