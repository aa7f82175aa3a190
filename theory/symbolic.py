"""The loss of the two-layer linear network, differentiated by sympy and turned into NumPy functions once.

The network is f = c (bᵀx + b_oᵀx_o). In the eigenbasis of the features' covariance every coordinate, ordinary
or opposing, contributes one term of the same form to the population loss,

    ℓ(c, w; λ, τ) = ½ λ (c w − τ)²,

with w the coordinate's first-layer weight, λ its second moment and τ its linear target: (w, λ, τ) = (b_i, Σ_i, β_i)
for ordinary features and (s_j, α_j, 0) for opposing ones, whose sign says nothing about y. The total is the sum over
coordinates plus the irreducible ½ Σ_j α_j. All derivatives used anywhere in the package come from this one line.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import sympy as sp

Array = npt.NDArray[np.float64]
VectorMap = Callable[[Array], Array]
Term = Callable[[Array, Array, Array, Array], Array]

c, w, curvature, target = sp.symbols("c w lambda tau", real=True)

# ℓ(c, w; λ, τ) = ½ λ (c w − τ)²
COORDINATE_LOSS = curvature * (c * w - target) ** 2 / 2


class CoordinateTerms(NamedTuple):
    """NumPy functions of (c, w, λ, τ): one coordinate's loss and its derivatives, elementwise."""

    loss: Term
    d_w: Term
    d_c: Term
    d_ww: Term
    d_cw: Term
    d_cc: Term


def coordinate_derivatives() -> dict[str, sp.Expr]:
    """One coordinate's loss and derivatives up to second order, as sympy expressions.

    >>> coordinate_derivatives()["d_ww"]
    c**2*lambda
    """
    return {
        "loss": COORDINATE_LOSS,
        "d_w": sp.factor(sp.diff(COORDINATE_LOSS, w)),
        "d_c": sp.factor(sp.diff(COORDINATE_LOSS, c)),
        "d_ww": sp.factor(sp.diff(COORDINATE_LOSS, w, 2)),
        "d_cw": sp.factor(sp.diff(COORDINATE_LOSS, c, w)),
        "d_cc": sp.factor(sp.diff(COORDINATE_LOSS, c, 2)),
    }


@cache
def coordinate_terms() -> CoordinateTerms:
    """The expressions of `coordinate_derivatives` as NumPy functions; derived once a process.

    >>> float(coordinate_terms().loss(np.array(2.0), np.array(1.0), np.array(3.0), np.array(0.0)))
    6.0
    """
    arguments = (c, w, curvature, target)
    return CoordinateTerms(
        **{name: sp.lambdify(arguments, expr, "numpy") for name, expr in coordinate_derivatives().items()}
    )
