"""Top eigenpairs of an operator that moves, as a network's Hessian does in training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sim.curvature.eigensolver import Eigenpairs, top_eigenpairs
from sim.curvature.operators import LinearOperator


@dataclass
class EigenpairTracker:
    """Refreshes the top eigenpairs from the last ones, and verifies now and then that they are on top.

    A refresh multiplies the k vectors and the guards, then residuals until the tolerance is met. Every
    `verify_every`-th also searches random directions, about ten products more, so an eigenvalue that overtakes the
    tracked ones out of their sight stays unseen for less than that many refreshes. A refresh that did not converge is
    returned as such, and the next starts from it. At the edge of stability iterates have period two, so refresh them an
    even number of steps apart: the vectors of the other side of the valley are a poor start.

    Attributes:
        generator: CPU generator of random vectors.
        k: number of eigenpairs.
        tolerance: bound on each relative residual. At 0.01, the sharpness of a network at the edge of stability has
            been within 0.1 % (benchmarks/curvature.py).
        verify_every: refreshes between verifications; 0 for none but the first, which starts from random vectors.
        max_products: products after which a refresh gives up, unconverged.
        vectors: (m, size) the last vectors, for a checkpoint; None before the first refresh.
        refreshes: number of refreshes so far, for a checkpoint.
        products: products of all refreshes together.
    """

    generator: torch.Generator
    k: int = 1
    tolerance: float = 1e-2
    verify_every: int = 25
    max_products: int = 200
    vectors: Tensor | None = None
    refreshes: int = 0
    products: int = 0

    def refresh(self, operator: LinearOperator) -> Eigenpairs:
        """Top eigenpairs of the operator as it is now."""
        due = bool(self.verify_every) and self.refreshes % self.verify_every == 0
        pairs = top_eigenpairs(
            operator,
            generator=self.generator,
            k=self.k,
            start=self.vectors,
            tolerance=self.tolerance,
            max_products=self.max_products,
            verify=True if due else None,
        )
        self.vectors = pairs.vectors
        self.refreshes += 1
        self.products += pairs.products
        return pairs
