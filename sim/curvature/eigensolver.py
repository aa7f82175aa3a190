"""Algebraically largest eigenpairs of a symmetric operator, warm-started, with residuals.

Rayleigh–Ritz on a subspace that grows by the residual of the leading unconverged Ritz pair: from one start vector this
is Lanczos with full orthogonalisation, from several it takes them all in. H·basis is kept, so each vector costs one
product. When the basis is full it is folded to its leading Ritz vectors (thick restart).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sim.curvature.operators import LinearOperator


@dataclass(frozen=True)
class Eigenpairs:
    """Top eigenpairs, largest algebraic value first.

    Attributes:
        values: (k,) eigenvalues, float64 on the CPU.
        vectors: (m, size) unit Ritz vectors, m ≥ k: the k asked for, then guards; the next solve's start.
        residuals: (k,) ‖Hv − λv‖ / |λ|, 0 where both vanish.
        products: number of operator products spent.
        converged: whether every residual of the k met the tolerance.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    converged: bool


def top_eigenpairs(
    operator: LinearOperator,
    *,
    generator: torch.Generator,
    k: int = 1,
    start: Tensor | None = None,
    tolerance: float = 1e-3,
    max_products: int = 200,
    max_basis: int = 40,
) -> Eigenpairs:
    """Computes the k algebraically largest eigenpairs to a relative residual.

    Args:
        operator: the symmetric operator.
        generator: CPU generator of the random start vectors.
        k: number of eigenpairs.
        start: (m, size) vectors to start from, such as the last solve's `vectors`.
        tolerance: bound on ‖Hv − λv‖ / |λ|. The eigenvalue's relative error is about its square.
        max_products: products after which the best so far is returned, marked unconverged.
        max_basis: largest number of basis vectors held.

    Returns:
        The eigenpairs, each with its residual; `converged` says whether the tolerance was met.
    """
    n = operator.size
    k = min(k, n)
    guards = min(k + 1, n)
    space = _Subspace(operator, capacity=min(max(max_basis, 2 * guards + 2), n))
    queue = list(start) if start is not None else []
    while True:
        queue += [_random(operator, generator) for _ in range(guards - space.filled - len(queue))]
        for vector in queue:
            space.add(vector) or space.add(_random(operator, generator))
        values, rotation = space.ritz()
        vectors = rotation[:, :guards].T @ space.basis
        residual = rotation[:, :k].T @ space.images - values[:k, None].to(vectors) * vectors[:k]
        norms = residual.double().norm(dim=1).cpu()
        relative = torch.where(norms == 0, norms, norms / values[:k].abs())
        open_pairs = (relative > tolerance).nonzero()
        # A basis of the whole space is exact up to rounding, whatever the tolerance.
        converged = len(open_pairs) == 0 or space.filled == n
        if converged or space.products >= max_products:
            return Eigenpairs(values[:k], vectors, relative, space.products, converged)
        queue = [residual[int(open_pairs[0])]]
        if space.full:
            space.restart(rotation[:, : max(guards, space.capacity // 3)])


class _Subspace:
    """An orthonormal basis with the operator's image of each vector, in buffers allocated once."""

    def __init__(self, operator: LinearOperator, capacity: int) -> None:
        self.operator, self.capacity = operator, capacity
        self._basis = torch.empty(capacity, operator.size, device=operator.device, dtype=operator.dtype)
        self._images = torch.empty_like(self._basis)
        self.filled = 0
        self.products = 0

    @property
    def basis(self) -> Tensor:
        return self._basis[: self.filled]

    @property
    def images(self) -> Tensor:
        return self._images[: self.filled]

    @property
    def full(self) -> bool:
        return self.filled == self.capacity

    def add(self, vector: Tensor) -> bool:
        """Takes in the vector's part outside the basis; False where nothing but rounding is left of it."""
        unit = vector / vector.norm().clamp_min(torch.finfo(vector.dtype).tiny)
        for _ in range(2):  # once more against rounding
            unit = unit - self.basis.T @ (self.basis @ unit)
            left = unit.norm()
            if self.full or not left > 100 * torch.finfo(vector.dtype).eps:
                return False
            unit = unit / left
        self._basis[self.filled] = unit
        self._images[self.filled] = self.operator.matvec(unit)
        self.filled += 1
        self.products += 1
        return True

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values (m,), largest first, on the CPU in float64, and their coordinates (m, m) in the basis."""
        small = (self.basis @ self.images.T).double().cpu()
        values, rotation = torch.linalg.eigh((small + small.T) / 2)
        return values.flip(0), rotation.flip(1).to(self.basis)

    def restart(self, keep: Tensor) -> None:
        """Folds the basis to the columns of `keep`, given in its coordinates."""
        m = keep.shape[1]
        self._basis[:m], self._images[:m] = keep.T @ self.basis, keep.T @ self.images
        self.filled = m


def _random(operator: LinearOperator, generator: torch.Generator) -> Tensor:
    return torch.randn(operator.size, generator=generator).to(operator.device, operator.dtype)
