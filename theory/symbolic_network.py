"""The loss of a network with a few coordinates as one sympy expression, for derivations that need several at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy as sp

from theory.symbolic import COORDINATE_LOSS, c, curvature, target, w


@dataclass(frozen=True)
class SymbolicNetwork:
    """Symbols and loss of a network, coordinate by coordinate.

    Attributes:
        c: last-layer weight.
        b: (d1) first-layer weights on the ordinary features.
        s: (J) first-layer weights on the opposing features.
        covariance: (d1) eigenvalues λ_i of Σ.
        beta: (d1) linear target.
        alpha: (J) second moments of the opposing features.
        loss: population loss without its irreducible part.
    """

    c: sp.Symbol
    b: tuple[sp.Symbol, ...]
    s: tuple[sp.Symbol, ...]
    covariance: tuple[sp.Expr, ...]
    beta: tuple[sp.Expr, ...]
    alpha: tuple[sp.Expr, ...]
    loss: sp.Expr

    @property
    def weights(self) -> tuple[sp.Symbol, ...]:
        """(c, b, s)."""
        return (self.c, *self.b, *self.s)

    @property
    def gradient(self) -> tuple[sp.Expr, ...]:
        """∂L/∂θ for every weight, by differentiating the loss."""
        return tuple(sp.diff(self.loss, weight) for weight in self.weights)

    @property
    def hessian(self) -> sp.Matrix:
        """∂²L/∂θ², by differentiating the loss twice."""
        return sp.hessian(self.loss, self.weights)

    @property
    def balancedness(self) -> sp.Expr:
        """Q = c² − ‖b‖² − ‖s‖²."""
        return self.c**2 - sum(x**2 for x in (*self.b, *self.s))

    @property
    def drive(self) -> sp.Expr:
        """D = bᵀΣ(β − cb)."""
        return sum(x * v * (t - self.c * x) for x, v, t in zip(self.b, self.covariance, self.beta, strict=True))


def symbolic_network(
    features: int,
    pairs: int = 1,
    *,
    covariance: Sequence[sp.Expr] | None = None,
    alpha: Sequence[sp.Expr] | None = None,
    values: Mapping[sp.Symbol, sp.Expr] | None = None,
) -> SymbolicNetwork:
    """A network with so many ordinary features and opposing pairs, every coordinate's loss ½ λ (c w − τ)².

    Args:
        features: number of ordinary features.
        pairs: number of opposing coordinates.
        covariance: eigenvalues of Σ in place of the symbols λ_1, λ_2, …
        alpha: second moments in place of the symbols α, or α_1, α_2, … for several pairs.
        values: anything to put in place of other symbols of the loss.

    >>> symbolic_network(1).gradient[2]
    alpha*c**2*s
    """
    b = _symbols("b", features)
    beta = _symbols("beta", features)
    s = _symbols("s", pairs, one="s")
    moments = tuple(covariance or _symbols("lambda", features, positive=True))
    alphas = tuple(alpha or _symbols("alpha", pairs, one="alpha", positive=True))
    coordinates = [*zip(b, moments, beta, strict=True), *zip(s, alphas, (sp.Integer(0),) * pairs, strict=True)]
    terms = [
        COORDINATE_LOSS.subs({w: weight, curvature: moment, target: aim}, simultaneous=True)
        for weight, moment, aim in coordinates
    ]
    return SymbolicNetwork(c, b, s, moments, beta, alphas, sp.Add(*terms).subs(dict(values or {})))


def _symbols(name: str, count: int, *, one: str | None = None, **assumptions: bool) -> tuple[sp.Symbol, ...]:
    if one is not None and count == 1:
        return (sp.Symbol(one, real=True, **assumptions),)
    return tuple(sp.Symbol(f"{name}_{i}", real=True, **assumptions) for i in range(1, count + 1))
