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

The subspace of a start that lies in an invariant subspace never leaves it, and every residual in it vanishes, on top or
not; and a random start may meet a tolerance of 1e-3 at the second eigenvalue, before its part along the first has
grown: on 40 small networks one in ten searches ended more than 0.5 % too low, one in a hundred more than 10 %. So a
random start, a warm one that meets the tolerance suspiciously well at once, and any on request is verified: Lanczos
runs from a random vector in the complement until it shows a larger eigenvalue, from which the search goes on, or until
the run's own orthogonal polynomials bound the vector's component on any larger one to less than a random vector has in
99 of 100 draws (`largest_mass`), or for so many steps in vain that the question is left open, and the result says so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Concatenate, Literal, ParamSpec, get_args

import torch
from torch import Tensor

from sim.curvature.error_bounds import Inside, errors_from_inside, ritz_value_errors
from sim.curvature.operators import LinearOperator, products
from sim.curvature.recycling import Mixture, Recycled
from sim.curvature.subspace import RitzPairs, Subspace
from sim.curvature.verification import Verdict, random_rows, search_beyond
from theory.command_line import InputError

_P = ParamSpec("_P")
Solver = Generator[Tensor, Tensor, "Eigenpairs"]
"""Yields (b, size) vectors, is sent their products, and returns the eigenpairs: several can share passes."""

Criterion = Literal["residual", "value"]
"""What is to meet the tolerance: ‖Hv − λv‖ / |λ|, or the estimate of the value's relative error."""

_SUSPICIOUS = 1e-2
"""A warm start that meets this part of the tolerance at once has not moved, on top or not: verify it."""

_STALL = 12
"""Rounds without progress at the level of rounding, after which the search gives up, unconverged."""


_RECYCLED_ROUNDS = 12
"""Rounds in which recycled vectors choose the directions; where they have not helped by then, residuals do."""


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
        verified: whether random directions were searched for larger eigenvalues, beyond those of a random start. Such a
            start of size n has a part of about n^(−1/2) along the top, and a rough tolerance may be met before that
            part has grown. Where it is false, the pairs are eigenpairs, and on top unless the start's and the
            residuals' directions all miss a larger one.
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
    settle: float | None = None,
    keep: int = 0,
    tolerance: float = 1e-3,
    criterion: Criterion = "residual",
    max_products: int = 200,
    max_basis: int = 40,
    block: int = 1,
    verify: bool | None = None,
) -> Solver:
    """Searches the k algebraically largest eigenpairs.

    `top_eigenpairs` multiplies by itself. `solver` is the same search as a generator, which yields the vectors whose
    products it needs and is sent these: so several searches share passes over the data.

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
        settle: residual, over |λ_k|, to which the pair after the k is to go as well, so that it is known to be the next
            and an eigenvalue that overtakes is seen; None to leave it where it is.
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
        verify: whether to verify; None: a random start, and a warm one that meets the tolerance at once by a factor of
            100.

    Yields:
        (b, size) vectors, and is sent their products.

    Returns:
        The eigenpairs, each with its residual; `converged` says whether the tolerance was met.

    Raises:
        InputError: k, block, the start's shape, or both a start and recycled vectors make no sense.
    """
    n = operator.size
    _require_sense(n, k, block, criterion, start, recycled)
    k = min(k, n)
    least = wanted = min(k + 1, n)
    if recycled is not None:
        recycled = Recycled(recycled.vectors.to(operator.device, operator.dtype), recycled.values)
        start, least = recycled.vectors[: k + guards], k
    beside = None if recycled is None else recycled.vectors
    space = Subspace(operator, min(max(max_basis, 2 * (k + guards) + 4), n), beside)
    cold, verified = start is None or len(start) == 0, False
    warm_round = not cold
    rows = _first_rows(operator, generator, start, least, space.capacity)
    best, stalled, rounds = float("inf"), 0, 0

    def reached(known: Inside | None = None) -> _Progress:
        return _Progress(space, recycled, k, criterion, tolerance, settle, known)

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
            rows = random_rows(operator, generator, least - space.filled)
            continue
        progress = reached(inside if rounds == 1 and space.filled == k else None)
        if progress.converged and not progress.whole and not verified:
            still = progress.measured <= max(_SUSPICIOUS * tolerance, 1e-6)
            if verify or (verify is None and (cold or (warm_round and still))):
                space.fold(wanted)
                bound = float(progress.pairs.values[k - 1])
                verdict = yield from search_beyond(
                    space, operator, generator, bound + tolerance * abs(bound), max_products
                )
                if not space.finite:
                    return _failed(operator, k, wanted, space.products, criterion)
                verified = verdict is Verdict.CLEAR
                # What was found may not be the largest: verify again when it has converged. Ask but once in vain.
                verify = verdict is Verdict.FOUND
                progress = reached()
        best, stalled = (progress.worst, 0) if progress.worst < 0.9 * best else (best, stalled + 1)
        rounding = progress.worst < 1e3 * torch.finfo(operator.dtype).eps
        if progress.converged or space.products >= max_products or (rounding and stalled >= _STALL):
            return progress.eigenpairs(wanted, verified, criterion, keep)
        warm_round = False
        if space.full:
            # The pairs' residuals stay as they are: the leading Ritz vectors are kept.
            space.fold(max(wanted, space.capacity // 3))
            progress = reached()
        chosen = progress.open[: min(block, space.capacity - space.filled)]
        rows = progress.mixture.directions(progress.pairs, chosen)
        if rounds >= _RECYCLED_ROUNDS:
            rows = progress.pairs.residual[chosen]
        if space.stuck:
            rows = random_rows(operator, generator, 1)


def _with_products(
    search: Callable[Concatenate[LinearOperator, _P], Solver],
) -> Callable[Concatenate[LinearOperator, _P], Eigenpairs]:
    """The search that makes its own products; its documentation and signature are the generator's."""

    @functools.wraps(search, assigned=("__doc__",))
    def top_eigenpairs(operator: LinearOperator, /, *args: _P.args, **options: _P.kwargs) -> Eigenpairs:
        asks = search(operator, *args, **options)
        try:
            rows = next(asks)
            while True:
                rows = asks.send(products(operator, rows))
        except StopIteration as stop:
            pairs: Eigenpairs = stop.value
            return pairs

    return top_eigenpairs


top_eigenpairs = _with_products(solver)


class _Progress:
    """What a round has reached: the pairs, their errors, and which of them are still open."""

    def __init__(
        self,
        space: Subspace,
        recycled: Recycled | None,
        k: int,
        criterion: Criterion,
        tolerance: float,
        settle: float | None,
        inside: Inside | None,
    ) -> None:
        self._space, self._k = space, k
        self.pairs: RitzPairs = space.ritz(k if settle is None else min(k + 1, space.filled))
        self.mixture = Mixture(space, recycled)
        # A basis of the whole space is exact up to rounding, whatever the tolerance.
        self.whole = space.filled == space.size
        self.residuals = self.pairs.relative[:k]
        self.worst = float(self.residuals.max())
        self.errors = self._errors(inside)
        measured = self.residuals if criterion == "residual" else self.errors
        self.measured = float(measured.max())
        self.open: list[int] = (~(measured <= tolerance)).nonzero().flatten().tolist()
        if settle is not None and (self.pairs.norms[k:] > settle * self.pairs.values[k - 1].abs()).any():
            self.open.append(k)
        self.converged = not self.open or self.whole

    def eigenpairs(self, wanted: int, verified: bool, criterion: Criterion, keep: int) -> Eigenpairs:
        """The result, with so many vectors, that keeps so many directions for the next solve."""
        return Eigenpairs(
            self.pairs.values[: self._k],
            self._space.vectors(wanted),
            self.residuals,
            self.errors,
            self._space.products,
            self.converged,
            verified or self.whole,
            criterion,
            self.mixture.leading(keep) if keep else None,
        )

    def _errors(self, inside: Inside | None) -> Tensor:
        k, mixed = self._k, self.mixture.values
        values, norms = self.pairs.values, self.pairs.norms[:k]
        # Some eigenvalue is as near as the residual, whatever the gap.
        errors = torch.where(norms == 0, norms, norms / values[:k].abs())
        if len(mixed) > k:
            # The gap that the mixture sees; its values are above the basis's own, by what it expects of more products.
            gap = float(mixed[k - 1]) - max(float(mixed[k]), *values[k : k + 1].tolist(), -torch.inf)
            errors = torch.minimum(ritz_value_errors(norms, values[:k], float(values[k - 1]) - gap), errors)
        if inside is not None:
            errors = torch.minimum(errors, errors_from_inside(norms, values[:k], inside))
        return errors


def _first_rows(
    operator: LinearOperator, generator: torch.Generator, start: Tensor | None, least: int, most: int
) -> Tensor:
    """The start's rows, up to `most`, and random ones up to `least`."""
    given = 0 if start is None else min(len(start), most)
    rows = random_rows(operator, generator, max(least - given, 0))
    return rows if start is None else torch.cat([start[:given].to(rows), rows])


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


def _failed(operator: LinearOperator, k: int, guards: int, spent: int, criterion: Criterion) -> Eigenpairs:
    nan = torch.full((k,), float("nan"), dtype=torch.float64)
    vectors = torch.zeros(guards, operator.size, device=operator.device, dtype=operator.dtype)
    return Eigenpairs(nan, vectors, nan, nan, spent, converged=False, criterion=criterion)
