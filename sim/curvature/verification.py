"""Whether random directions hold a larger eigenvalue than those found."""

from __future__ import annotations

from collections.abc import Generator
from enum import Enum, auto

import torch
from torch import Tensor

from sim.curvature.operators import LinearOperator
from sim.curvature.subspace import Subspace

_VERIFICATION_STEPS = 24

_MISSED_MASS = 1e-4
"""A random unit vector's squared component on a given eigenvector is χ²/size: below this much χ² in 0.8 % of draws."""


class Verdict(Enum):
    """What a verification comes to."""

    CLEAR = auto()
    FOUND = auto()
    UNDECIDED = auto()


def search_beyond(
    space: Subspace,
    operator: LinearOperator,
    generator: torch.Generator,
    bound: float,
    max_products: int,
) -> Generator[Tensor, Tensor, Verdict]:
    """Lanczos from a random vector in the complement of the space, for an eigenvalue above the bound."""
    first = space.filled
    row = random_rows(operator, generator, 1)
    for _ in range(_VERIFICATION_STEPS):
        if space.full or space.products >= max_products:
            return Verdict.UNDECIDED
        yield from space.extend(row)
        if space.stuck or not space.finite:
            return Verdict.CLEAR  # the random vector's Krylov space is exhausted; the caller looks at `finite`
        projected, outside, row = space.tridiagonal_since(first)
        if float(torch.linalg.eigvalsh(projected)[-1]) > bound:
            return Verdict.FOUND
        if largest_mass(projected, float(outside), bound) * space.size < _MISSED_MASS:
            return Verdict.CLEAR
    return Verdict.UNDECIDED


def largest_mass(projected: Tensor, outside: float, bound: float) -> float:
    """Largest squared component of a Lanczos run's start on an eigenvector with an eigenvalue of at least `bound`.

    The Christoffel function of the start's spectral measure bounds its mass at any point:
    mass(μ) ≤ 1 / Σ_{i=0…j} p_i(μ)², with the measure's orthonormal polynomials p_i from the recurrence
    β_i p_i = (μ − α_i) p_{i−1} − β_{i−1} p_{i−2}. Above the largest Ritz value every p_i² grows with μ, so the bound
    at `bound` holds for all that lies beyond (Szegő, Orthogonal Polynomials, 3.41).

    Args:
        projected: (j, j) tridiagonal matrix of α and β_1 … β_{j−1}, with all eigenvalues below `bound`.
        outside: β_j; 0 where the Krylov space is exhausted, which leaves no mass.
        bound: the point μ.
    """
    alpha, beta = projected.diagonal().tolist(), [*projected.diagonal(1).tolist(), outside]
    before, now, total = 0.0, 1.0, 1.0
    for i, (a, b) in enumerate(zip(alpha, beta, strict=True)):
        if b == 0:
            return 0.0
        before, now = now, ((bound - a) * now - (beta[i - 1] if i else 0.0) * before) / b
        total += now * now
    return 1 / total


def random_rows(operator: LinearOperator, generator: torch.Generator, count: int) -> Tensor:
    """(count, size) normal vectors of the operator's type, drawn on the CPU."""
    rows = [torch.randn(operator.size, generator=generator) for _ in range(count)]
    rows = rows or [torch.empty(0, operator.size)]
    return torch.stack(rows).reshape(-1, operator.size).to(operator.device, operator.dtype)
