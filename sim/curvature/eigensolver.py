"""Algebraically largest eigenpairs of a symmetric operator, warm-started, with residuals.

Rayleigh–Ritz on a subspace that grows by residuals of the leading unconverged Ritz pairs: from one start vector this is
Lanczos with full orthogonalisation, from several it takes them all in (block Lanczos for `block` > 1). H·basis is
kept, so each vector costs one product, ever. When the basis is full it is folded to its leading Ritz vectors with
their images (thick restart). Vectors recycled from earlier solves of an operator that has moved since take the place of
the residuals: they say where the eigenvectors have gone (`sim.curvature.recycling`).

A pair has converged when its residual is small, or, on request, when its value's error is, about the square of that
over the gap (`sim.curvature.error_bounds`): where only the value is wanted, that takes about half the products.

A round (one block of products) reads the device twice: the new part of the projected matrix and the recycled vectors'
inner products with what is new, some tens of numbers a product, and the residuals' norms.

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
from typing import Literal, get_args

import torch
from torch import Tensor

from sim.curvature.error_bounds import Inside, errors_from_inside, ritz_value_errors
from sim.curvature.operators import LinearOperator, products
from sim.curvature.recycling import Mixture, Recycled
from sim.curvature.subspace import RitzPairs, Subspace
from theory.command_line import InputError

Solver = Generator[Tensor, Tensor, "Eigenpairs"]
"""Yields (b, size) vectors, is sent their products, and returns the eigenpairs: several can share passes."""

Criterion = Literal["residual", "value"]
"""What is to meet the tolerance: ‖Hv − λv‖ / |λ|, or the estimate of the value's relative error."""

_SUSPICIOUS = 1e-2
"""A warm start whose residuals are below this part of the tolerance has not moved: verify it."""

_VERIFICATION_STEPS = 24

_MISSED_MASS = 1e-4
"""A random unit vector's squared component on a given eigenvector is χ²/size: below this much χ² in 0.8 % of draws."""

_STALL = 12
"""Rounds without progress at the level of rounding, after which the search gives up, unconverged."""


_RECYCLED_ROUNDS = 12
"""Rounds in which recycled vectors choose the directions; where they have not helped by then, residuals do."""


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
        errors: (k,) estimates of the values' relative errors: ‖R‖²/gap with the k residuals R and the gap to the
            next value that the search has seen (`sim.curvature.error_bounds`); their own residuals where those are
            less, as between equal eigenvalues.
        products: number of operator products spent.
        converged: whether every one of the k met the criterion.
        verified: whether random directions were searched for larger eigenvalues: by random start vectors, or by the
            verification of a warm start. Where it is false, the pairs are eigenpairs, and on top unless the start's
            and the residuals' directions all miss a larger one.
        criterion: what was to meet the tolerance.
        recycled: directions for the next solve of the operator when it has moved, where they were asked for.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    errors: Tensor
    products: int
    converged: bool
    verified: bool = False
    criterion: Criterion = "residual"
    recycled: Recycled | None = None


def top_eigenpairs(
    operator: LinearOperator,
    *,
    generator: torch.Generator,
    k: int = 1,
    start: Tensor | None = None,
    recycled: Recycled | None = None,
    inside: Inside | None = None,
    images: Tensor | None = None,
    guards: int = 0,
    keep: int = 0,
    tolerance: float = 1e-3,
    criterion: Criterion = "residual",
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
        recycled: instead of `start`, all that the last solve kept: its k leading vectors are the start, the others help
            to choose directions at no product.
        inside: what is known of the start or of the k leading recycled vectors, where they are Ritz vectors of a
            subspace: it sharpens the first estimate of the values' errors.
        images: (k, size) their products, where they have been made; they count as products.
        guards: number of recycled vectors beyond the k that are multiplied with them at once.
        keep: number of directions that the result keeps for the next solve.
        tolerance: bound on what the criterion says.
        criterion: "residual": ‖Hv − λv‖ / |λ|. The eigenvalue's error is at most that, and about its square over the
            relative gap to the next eigenvalue; the vector's, the sine of its angle, is about the residual over the
            gap. "value": the estimate of the value's relative error; the vector is left less accurate. On a network at
            the edge the error has been below the estimate, in the median a third of it or less; it has been up to four
            times the estimate on matrices whose vectors turn so fast that the next eigenvalue is not well known.
        max_products: products after which the best so far is returned, marked unconverged. It is returned earlier, and
            marked so, where the residual has stopped falling at the level of rounding: about 1e-5 for a network's
            Hessian in float32, when the eigenvalue has all its digits; `MeanLoss.in_float64` goes further.
        max_basis: largest number of basis vectors held.
        block: number of unconverged pairs whose residuals enter in a round. 1 takes the fewest products; more make
            fewer rounds, which pays where an operator multiplies several vectors at once.
        verify: whether to verify a warm start; None, where it meets the tolerance at once by a factor of 100.

    Returns:
        The eigenpairs, each with its residual; `converged` says whether the tolerance was met.

    Raises:
        InputError: k, block, the start's shape, or both a start and recycled vectors make no sense.
    """
    search = solver(
        operator,
        generator=generator,
        k=k,
        start=start,
        recycled=recycled,
        inside=inside,
        images=images,
        guards=guards,
        keep=keep,
        tolerance=tolerance,
        criterion=criterion,
        max_products=max_products,
        max_basis=max_basis,
        block=block,
        verify=verify,
    )
    try:
        rows = next(search)
        while True:
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
    recycled: Recycled | None = None,
    inside: Inside | None = None,
    images: Tensor | None = None,
    guards: int = 0,
    keep: int = 0,
    tolerance: float = 1e-3,
    criterion: Criterion = "residual",
    max_products: int = 200,
    max_basis: int = 40,
    block: int = 1,
    verify: bool | None = None,
) -> Solver:
    """The search of `top_eigenpairs` as a generator of the vectors whose products it needs; never multiplies itself."""
    n = operator.size
    _require_sense(n, k, block, criterion, start, recycled)
    k = min(k, n)
    least = wanted = min(k + 1, n)
    if recycled is not None:
        recycled = Recycled(recycled.vectors.to(operator.device, operator.dtype), recycled.values)
        start, least = recycled.vectors[: k + guards], k
    beside = None if recycled is None else recycled.vectors
    space = Subspace(operator, min(max(max_basis, 2 * (k + guards) + 4), n), beside)
    cold = start is None or len(start) == 0
    given = 0 if start is None else min(len(start), space.capacity)
    rows = _random(operator, generator, max(least - given, 0))
    if start is not None:
        rows = torch.cat([start[:given].to(rows), rows])
    warm_round, verified = not cold, cold
    best, stalled, rounds = float("inf"), 0, 0
    while True:
        if rounds == 0 and images is not None:
            space.take(rows, images)
        else:
            yield from space.extend(rows)
        rounds += 1
        if not space.finite:
            return _failed(operator, k, wanted, space.products, criterion)
        if space.filled < least and space.products < max_products + 2 * wanted:
            # A start vector lay in the span of the others.
            rows = _random(operator, generator, least - space.filled)
            continue
        known = inside if rounds == 1 and space.filled == k else None
        progress = _Progress(space, recycled, k, criterion, tolerance, known)
        if progress.converged and not progress.whole and not verified:
            still = float(progress.pairs.relative.max()) <= max(_SUSPICIOUS * tolerance, 1e-6)
            if verify or (verify is None and warm_round and still):
                space.fold(wanted)
                bound = float(progress.pairs.values[k - 1])
                verdict = yield from _verify(space, operator, generator, bound + tolerance * abs(bound), max_products)
                if not space.finite:
                    return _failed(operator, k, wanted, space.products, criterion)
                verified = verdict is _Verdict.CLEAR
                # What was found may not be the largest: verify again when it has converged. Ask but once in vain.
                verify = verdict is _Verdict.FOUND
                progress = _Progress(space, recycled, k, criterion, tolerance)
        worst = float(progress.pairs.relative.max())
        best, stalled = (worst, 0) if worst < 0.9 * best else (best, stalled + 1)
        rounding = worst < 1e3 * torch.finfo(operator.dtype).eps
        if progress.converged or space.products >= max_products or (rounding and stalled >= _STALL):
            return Eigenpairs(
                progress.pairs.values[:k],
                space.vectors(wanted),
                progress.pairs.relative,
                progress.errors,
                space.products,
                progress.converged,
                verified or progress.whole,
                criterion,
                progress.mixture.leading(keep) if keep else None,
            )
        warm_round = False
        if space.full:
            # The pairs' residuals stay as they are: the leading Ritz vectors are kept.
            space.fold(max(wanted, space.capacity // 3))
            progress = _Progress(space, recycled, k, criterion, tolerance)
        chosen = progress.open[: min(block, space.capacity - space.filled)]
        rows = progress.mixture.directions(progress.pairs, chosen)
        if rounds >= _RECYCLED_ROUNDS:
            rows = progress.pairs.residual[chosen]
        if space.stuck:
            rows = _random(operator, generator, 1)


class _Progress:
    """What a round has reached: the pairs, their errors, and which of them are still open."""

    def __init__(
        self,
        space: Subspace,
        recycled: Recycled | None,
        k: int,
        criterion: Criterion,
        tolerance: float,
        inside: Inside | None = None,
    ) -> None:
        self.pairs: RitzPairs = space.ritz(k)
        self.mixture = Mixture(space, recycled)
        # A basis of the whole space is exact up to rounding, whatever the tolerance.
        self.whole = space.filled == space.size
        self.errors = self._errors(k)
        if inside is not None:
            known = errors_from_inside(self.pairs.norms, self.pairs.values[:k], inside)
            self.errors = torch.minimum(self.errors, known)
        measured = self.pairs.relative if criterion == "residual" else self.errors
        self.open: list[int] = (measured > tolerance).nonzero().flatten().tolist()
        self.converged = not self.open or self.whole

    def _errors(self, k: int) -> Tensor:
        values, mixed, norms = self.pairs.values, self.mixture.values, self.pairs.norms
        # Some eigenvalue is as near as the residual, whatever the gap.
        nearest = torch.where(norms == 0, norms, norms / values[:k].abs())
        if len(mixed) <= k:
            return nearest
        # The gap that the mixture sees; its values are above the basis's own, by what it expects of more products.
        gap = float(mixed[k - 1]) - max(float(mixed[k]), *values[k : k + 1].tolist(), -torch.inf)
        return torch.minimum(ritz_value_errors(norms, values[:k], float(values[k - 1]) - gap), nearest)


def _require_sense(n: int, k: int, block: int, criterion: str, start: Tensor | None, recycled: Recycled | None) -> None:
    if k < 1 or block < 1:
        raise InputError(f"k is {k} and block is {block}: give at least 1")
    if criterion not in get_args(Criterion):
        raise InputError(f"criterion is {criterion}: give {' or '.join(get_args(Criterion))}")
    if start is not None and recycled is not None:
        raise InputError(
            f"start has {len(start)} vectors beside {len(recycled.vectors)} recycled ones: give one of both"
        )
    for vectors in (start, None if recycled is None else recycled.vectors):
        if vectors is not None and (vectors.ndim != 2 or vectors.shape[1] != n):
            raise InputError(f"start has shape {list(vectors.shape)}: give rows of {n} numbers")


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


def _failed(operator: LinearOperator, k: int, guards: int, spent: int, criterion: Criterion) -> Eigenpairs:
    nan = torch.full((k,), float("nan"), dtype=torch.float64)
    vectors = torch.zeros(guards, operator.size, device=operator.device, dtype=operator.dtype)
    return Eigenpairs(nan, vectors, nan, nan, spent, converged=False, criterion=criterion)


def _random(operator: LinearOperator, generator: torch.Generator, count: int) -> Tensor:
    rows = [torch.randn(operator.size, generator=generator) for _ in range(count)]
    rows = rows or [torch.empty(0, operator.size)]
    return torch.stack(rows).reshape(-1, operator.size).to(operator.device, operator.dtype)
