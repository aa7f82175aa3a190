"""Algebraically largest eigenpairs of a symmetric operator, warm-started, with residuals.

Rayleigh–Ritz on a subspace that grows by residuals of the leading unconverged Ritz pairs: from one start vector this is
Lanczos with full orthogonalisation, from several it takes them all in (block Lanczos for `block` > 1). H·basis is
kept, so each vector costs one product, ever. When the basis is full it is folded to its leading Ritz vectors with
their images (thick restart).

A round (one block of products) reads the device twice: the new part of the projected matrix, at most
`max_basis` × `block` numbers, and the residuals' norms. Nothing else waits for the device.

The subspace of a start that lies in an invariant subspace never leaves it, and every residual in it vanishes, on top
or not. So a warm start that meets the tolerance suspiciously well at once, or any on request, is verified: Lanczos
runs from a random vector in the complement until it shows a larger eigenvalue, from which the search goes on, or until
the run's own orthogonal polynomials bound the vector's component on any larger one to less than a random vector has in
99 of 100 draws (`largest_mass`), or for so many steps in vain that the question is left open, and the result says so.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum, auto

import torch
from torch import Tensor

from sim.curvature.operators import LinearOperator, products
from sim.curvature.subspace import Subspace
from theory.command_line import InputError

Solver = Generator[Tensor, Tensor, "Eigenpairs"]
"""Yields (b, size) vectors, is sent their products, and returns the eigenpairs: several can share passes."""

_SUSPICIOUS = 1e-2
"""A warm start whose residuals are below this part of the tolerance has not moved: verify it."""

_VERIFICATION_STEPS = 24

_MISSED_MASS = 1e-4
"""A random unit vector's squared component on a given eigenvector is χ²/size: below this much χ² in 0.8 % of draws."""

_STALL = 12
"""Rounds without progress at the level of rounding, after which the search gives up, unconverged."""


class _Verdict(Enum):
    CLEAR = auto()
    FOUND = auto()
    UNDECIDED = auto()


@dataclass(frozen=True)
class Eigenpairs:
    """Top eigenpairs, largest algebraic value first.

    Attributes:
        values: (k,) eigenvalues, float64 on the CPU; NaN where a product was not finite.
        vectors: (m, size) unit Ritz vectors, m ≥ k: the k asked for, then guards; the next solve's start.
        residuals: (k,) ‖Hv − λv‖ / |λ|, 0 where both vanish.
        products: number of operator products spent.
        converged: whether every residual of the k met the tolerance.
        verified: whether random directions were searched for larger eigenvalues: by random start vectors, or by the
            verification of a warm start. Where it is false, the pairs are eigenpairs, and on top unless the start's
            and the residuals' directions all miss a larger one.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    converged: bool
    verified: bool = False


def top_eigenpairs(
    operator: LinearOperator,
    *,
    generator: torch.Generator,
    k: int = 1,
    start: Tensor | None = None,
    tolerance: float = 1e-3,
    max_products: int = 200,
    max_basis: int = 40,
    block: int = 1,
    verify: bool | None = None,
) -> Eigenpairs:
    """Computes the k algebraically largest eigenpairs to a relative residual.

    Args:
        operator: the symmetric operator.
        generator: CPU generator of the random start vectors.
        k: number of eigenpairs.
        start: (m, size) vectors to start from, such as the last solve's `vectors`.
        tolerance: bound on ‖Hv − λv‖ / |λ|. The eigenvalue's error is at most that, and about its square over the
            relative gap to the next eigenvalue.
        max_products: products after which the best so far is returned, marked unconverged. It is returned earlier, and
            marked so, where the residual has stopped falling at the level of rounding: about 1e-5 for a network's
            Hessian in float32, when the eigenvalue has all its digits.
        max_basis: largest number of basis vectors held.
        block: number of unconverged pairs whose residuals enter in a round. 1 takes the fewest products; more make
            fewer rounds, which pays where an operator multiplies several vectors at once.
        verify: whether to verify a warm start; None, where it meets the tolerance at once by a factor of 100.

    Returns:
        The eigenpairs, each with its residual; `converged` says whether the tolerance was met.

    Raises:
        InputError: k, block, or the start's shape makes no sense.
    """
    search = solver(
        operator,
        generator=generator,
        k=k,
        start=start,
        tolerance=tolerance,
        max_products=max_products,
        max_basis=max_basis,
        block=block,
        verify=verify,
    )
    rows = next(search)
    while True:
        try:
            rows = search.send(products(operator, rows))
        except StopIteration as stop:
            pairs: Eigenpairs = stop.value
            return pairs


def solver(
    operator: LinearOperator,
    *,
    generator: torch.Generator,
    k: int = 1,
    start: Tensor | None = None,
    tolerance: float = 1e-3,
    max_products: int = 200,
    max_basis: int = 40,
    block: int = 1,
    verify: bool | None = None,
) -> Solver:
    """The search of `top_eigenpairs` as a generator of the vectors whose products it needs; never multiplies itself."""
    n = operator.size
    if k < 1 or block < 1:
        raise InputError(f"k is {k} and block is {block}: give at least 1")
    if start is not None and (start.ndim != 2 or start.shape[1] != n):
        raise InputError(f"start has shape {list(start.shape)}: give rows of {n} numbers")
    k = min(k, n)
    guards = min(k + 1, n)
    space = Subspace(operator, capacity=min(max(max_basis, 2 * guards + 2), n))
    cold = start is None or len(start) == 0
    given = 0 if start is None else min(len(start), space.capacity)
    rows = _random(operator, generator, max(guards - given, 0))
    if start is not None:
        rows = torch.cat([start[:given].to(rows), rows])
    warm_round, verified = not cold, cold
    best, stalled = float("inf"), 0
    while True:
        yield from space.extend(rows)
        if not space.finite:
            return _failed(operator, k, guards, space.products)
        if space.filled < guards and space.products < max_products + 2 * guards:
            # A start vector lay in the span of the others.
            rows = _random(operator, generator, guards - space.filled)
            continue
        pairs = space.ritz(k)
        open_pairs = (pairs.relative > tolerance).nonzero().flatten().tolist()
        # A basis of the whole space is exact up to rounding, whatever the tolerance.
        whole = space.filled == n
        converged = not open_pairs or whole
        if converged and not whole and not verified:
            still = float(pairs.relative.max()) <= max(_SUSPICIOUS * tolerance, 1e-6)
            if verify or (verify is None and warm_round and still):
                space.fold(guards)
                bound = float(pairs.values[k - 1])
                verdict = yield from _verify(space, operator, generator, bound + tolerance * abs(bound), max_products)
                if not space.finite:
                    return _failed(operator, k, guards, space.products)
                verified = verdict is _Verdict.CLEAR
                # What was found may not be the largest: verify again when it has converged. Ask but once in vain.
                verify = verdict is _Verdict.FOUND
                pairs = space.ritz(k)
                open_pairs = (pairs.relative > tolerance).nonzero().flatten().tolist()
                converged = not open_pairs or space.filled == n
        worst = float(pairs.relative.max())
        best, stalled = (worst, 0) if worst < 0.9 * best else (best, stalled + 1)
        rounding = worst < 1e3 * torch.finfo(operator.dtype).eps
        if converged or space.products >= max_products or (rounding and stalled >= _STALL):
            values = pairs.values[:k]
            return Eigenpairs(
                values, space.vectors(guards), pairs.relative, space.products, converged, verified or whole
            )
        warm_round = False
        if space.full:
            space.fold(max(guards, space.capacity // 3))
        rows = pairs.residual[open_pairs[: min(block, space.capacity - space.filled)]]
        if space.stuck:
            rows = _random(operator, generator, 1)


def _verify(
    space: Subspace,
    operator: LinearOperator,
    generator: torch.Generator,
    bound: float,
    max_products: int,
) -> Generator[Tensor, Tensor, _Verdict]:
    """Lanczos from a random vector in the complement of the space, for an eigenvalue above the bound."""
    first = space.filled
    row = _random(operator, generator, 1)
    for _ in range(_VERIFICATION_STEPS):
        if space.full or space.products >= max_products:
            return _Verdict.UNDECIDED
        yield from space.extend(row)
        if space.stuck or not space.finite:
            return _Verdict.CLEAR  # the random vector's Krylov space is exhausted; the caller looks at `finite`
        projected, outside, row = space.tridiagonal_since(first)
        if float(torch.linalg.eigvalsh(projected)[-1]) > bound:
            return _Verdict.FOUND
        if largest_mass(projected, float(outside), bound) * space.size < _MISSED_MASS:
            return _Verdict.CLEAR
    return _Verdict.UNDECIDED


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


def _failed(operator: LinearOperator, k: int, guards: int, spent: int) -> Eigenpairs:
    nan = torch.full((k,), float("nan"), dtype=torch.float64)
    vectors = torch.zeros(guards, operator.size, device=operator.device, dtype=operator.dtype)
    return Eigenpairs(nan, vectors, nan, spent, converged=False)


def _random(operator: LinearOperator, generator: torch.Generator, count: int) -> Tensor:
    rows = [torch.randn(operator.size, generator=generator) for _ in range(count)]
    rows = rows or [torch.empty(0, operator.size)]
    return torch.stack(rows).reshape(-1, operator.size).to(operator.device, operator.dtype)
