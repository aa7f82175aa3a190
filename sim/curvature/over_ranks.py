"""Operators of a loss whose examples are divided among ranks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sim.curvature.chunked import MeanLossHessian
from sim.curvature.operators import HessianOperator
from sim.distributed import sum_over_ranks


class SummedOperator:
    """Sum over the ranks of each rank's own Hessian; of one rank, its own.

    The ranks multiply the same vectors in the same order, as a search does that all of them make from one seed: the
    products have the same bits on every rank, so the searches take the same turns.

    Args:
        own: the Hessian of this rank's part of the loss.
    """

    def __init__(self, own: HessianOperator | MeanLossHessian) -> None:
        self._own = own
        self.size, self.device, self.dtype = own.size, own.device, own.dtype

    def with_respect_to(self, indices: Sequence[int]) -> SummedOperator:
        """Diagonal block of the parameters with these positions."""
        return SummedOperator(self._own.with_respect_to(indices))

    def matvec(self, vector: Tensor) -> Tensor:
        """Hessian-vector product."""
        product = self._own.matvec(vector)
        sum_over_ranks([product])
        return product
