"""T2: the Hessian is an arrow matrix; with Σ = I its spectrum is c², αc² and the roots of one secular equation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy as sp

from theory.curvature import sharpness, smallest_eigenvalue, spectrum
from theory.model import Model, State, hessian
from theory.statements.base import Check, Statement, Status, Step
from theory.symbolic_network import SymbolicNetwork, symbolic_network


def derivation() -> Sequence[Step]:
    """Characteristic polynomials of Hessians that sympy differentiates from the loss."""
    x = sp.Symbol("x", real=True)
    general = symbolic_network(2)
    alpha = general.alpha[0]
    # Two opposing coordinates of equal strength: the isotropic case, one direction idle.
    identity = symbolic_network(2, pairs=2, covariance=(sp.S.One,) * 2, alpha=(alpha,) * 2)
    c, cubic = identity.c, _cubic(identity, x)
    x0, x1, x2, x3 = vector = sp.symbols("x_0:4", real=True)
    curvature = general.hessian
    one_pair = symbolic_network(2, covariance=(sp.S.One,) * 2)
    determinant = _cubic(one_pair, sp.S.Zero)
    # r·(2cb − r) with r = β − cb
    bracket = sum((t - c * b) * (3 * c * b - t) for b, t in zip(one_pair.b, one_pair.beta, strict=True))
    return (
        Step(
            "The first layer's block is diagonal, so over (c, w) the Hessian is an arrow with corner h = Σλ_i w_i², "
            "arms v_i = λ_i(2cw_i − τ_i) and diagonal d_i = c²λ_i. Its characteristic polynomial is the secular "
            "equation x − h − Σ v_i²/(x − d_i) times Π(x − d_i).",
            _polynomial(curvature, x),
            _secular(curvature, x) * sp.prod([x - curvature[i, i] for i in range(1, 4)]),
        ),
        Step(
            "Σ = I, isotropic Σ_o, (d1, d2) = (2, 2): c² splits off d1 − 1 times, αc² d2 − 1 times, and the rest is "
            "the cubic of M = [[c², 0, q], [0, αc², 2αcs], [q, 2αcs, ‖b‖² + αs²]], q = ‖2cb − β‖. Every further "
            "feature adds one factor: rotate the equal coordinates so that one carries the arm.",
            _polynomial(identity.hessian, x),
            (x - c**2) * (x - alpha * c**2) * cubic,
        ),
        Step(
            "The largest root is the largest in size: corner and diagonal are at least 0, so the form of a vector "
            "and that of the vector with its c-entry flipped add up to at least 0. Flip a unit eigenvector of the "
            "smallest eigenvalue −ν: its form is at least ν, so the largest eigenvalue is.",
            _form(curvature, vector) + _form(curvature, (-x0, x1, x2, x3)),
            2 * (curvature[0, 0] * x0**2 + sum(curvature[i, i] * vector[i] ** 2 for i in range(1, 4))),
        ),
        Step(
            "The product of the cubic's roots, without cancellation near a minimum: det M = αc²[r·(2cb − r) − 3αc²s²]; "
            "the smallest eigenvalue has the sign of the bracket.",
            -determinant,
            alpha * c**2 * (bracket - 3 * alpha * c**2 * one_pair.s[0] ** 2),
        ),
        Step(
            "α = 1: the two poles meet and another c² splits off.",
            _cubic(one_pair, x).subs(alpha, 1),
            (x - c**2)
            * ((x - c**2) * (x - _corner(one_pair).subs(alpha, 1)) - _arm(one_pair) - 4 * c**2 * one_pair.s[0] ** 2),
        ),
        Step(
            "c = 0: the cubic is x[x(x − h) − ‖β‖²], roots 0 and (h ± √(h² + 4‖β‖²))/2: a strict saddle unless β = 0.",
            _cubic(one_pair, x).subs(c, 0),
            x * (x * (x - _corner(one_pair)) - sum(t**2 for t in one_pair.beta)),
        ),
    )


def check() -> Sequence[Check]:
    """Spectra against dense eigenvalues of the Hessian with every opposing coordinate written out."""
    rng = np.random.default_rng(0)
    errors, broken, general, flipped = [], [], [], []
    least: list[float] = []
    elsewhere: list[float] = []
    for _ in range(60):
        d1, d2 = (int(n) for n in rng.integers(1, 7, size=2))
        alpha, c = 10 ** rng.uniform(-1, 2), np.array(10 ** rng.uniform(-1, 1))
        beta, b, b_o = 3 * rng.normal(size=d1), rng.normal(size=d1), rng.normal(size=d2)
        full = Model(np.full(d2, alpha), beta, np.ones(d1))
        exact = np.linalg.eigvalsh(hessian(full, State(c, b, b_o)))
        one, state = Model(np.array([alpha]), beta, np.ones(d1)), State(c, b, np.array([np.linalg.norm(b_o)]))
        wrong = Model(np.array([alpha]), beta - c * b, np.ones(d1))  # q = ‖3cb − β‖
        errors.append(np.abs(spectrum(one, state, idle=d2 - 1) - exact).max() / exact[-1])
        broken.append(np.abs(spectrum(wrong, state, idle=d2 - 1) - exact).max() / exact[-1])
        other = Model(full.alpha * rng.uniform(0, 2, d2), beta, rng.uniform(0, 2, d1))
        values = np.linalg.eigvalsh(hessian(other, State(c, b, b_o)))
        general.append(abs(float(sharpness(other, State(c, b, b_o))) / values[-1] - 1))
        flipped.append(abs(float(sharpness(other, State(c, b, -b_o + c))) / values[-1] - 1))
        for found, s in ((least, b_o), (elsewhere, c - b_o)):
            found.append(abs(float(smallest_eigenvalue(other, State(c, b, s))) - values[0]) / values[-1])
    return (
        Check(
            "Σ = I: largest error of the spectrum, relative to sharpness",
            max(errors),
            1e-13,
            max(broken),
            "q off by cb",
        ),
        Check("any Σ: largest relative error of the sharpness", max(general), 1e-13, max(flipped), "another s"),
        Check(
            "any Σ: largest error of the smallest eigenvalue, relative to sharpness",
            max(least),
            1e-13,
            max(elsewhere),
            "another s",
        ),
    )


def _polynomial(matrix: sp.Matrix, x: sp.Symbol) -> sp.Expr:
    return (x * sp.eye(matrix.shape[0]) - matrix).det(method="berkowitz")


def _secular(matrix: sp.Matrix, x: sp.Symbol) -> sp.Expr:
    """The secular equation's left less right side, x − h − Σ v_i²/(x − d_i), read off the matrix."""
    poles = range(1, matrix.shape[0])
    return x - matrix[0, 0] - sum(matrix[0, i] ** 2 / (x - matrix[i, i]) for i in poles)


def _corner(net: SymbolicNetwork) -> sp.Expr:
    return sum(b**2 for b in net.b) + net.alpha[0] * sum(s**2 for s in net.s)


def _arm(net: SymbolicNetwork) -> sp.Expr:
    """q² = ‖2cb − β‖²."""
    return sum((2 * net.c * b - t) ** 2 for b, t in zip(net.b, net.beta, strict=True))


def _cubic(net: SymbolicNetwork, x: sp.Expr) -> sp.Expr:
    """(x − h)(x − c²)(x − αc²) − q²(x − αc²) − 4α²c²s²(x − c²), h = ‖b‖² + αs²."""
    alpha, c = net.alpha[0], net.c
    opposing = 4 * alpha**2 * c**2 * sum(s**2 for s in net.s)
    first, second = x - c**2, x - alpha * c**2
    return (x - _corner(net)) * first * second - _arm(net) * second - opposing * first


def _form(matrix: sp.Matrix, vector: Sequence[sp.Expr]) -> sp.Expr:
    column = sp.Matrix(vector)
    return (column.T * matrix * column)[0, 0]


def applies(model: Model, state: State, lr: float) -> bool:
    """The closed form is for Σ = I and one pair; the secular equation itself holds always."""
    return bool((model.covariance == 1).all()) and model.alpha.size == 1


STATEMENT = Statement(
    name="T2",
    title="spectrum of the Hessian",
    hypotheses="Σ = I and one pair for the closed form; any Σ and any pairs for the arrow and its secular equation.",
    claim=(
        "The Hessian has the eigenvalue c² d1 − 1 times and αc² d2 − 1 times (isotropic case; 0 in the rank-one case), "
        "and the three eigenvalues of [[c², 0, q], [0, αc², 2αcs], [q, 2αcs, ‖b‖² + αs²]], q = ‖2cb − β‖: where they "
        "meet no pole, the roots of λ − ‖b‖² − αs² = q²/(λ − c²) + 4α²c²s²/(λ − αc²). The largest is the Hessian's "
        "spectral norm. Cost O(d) a state."
    ),
    status=Status.PROVED,
    source="derived here; the secular equation of an arrow matrix is standard (Golub 1973)",
    applies=applies,
    derivation=derivation,
    check=check,
    remarks=(
        "Taken as eigenvalues of the 3×3 matrix rather than as secular roots there are no special cases: q = 0 makes "
        "c² an eigenvalue, s = 0 makes αc² one. As first written the multiplicity of c² was “at least d1 − 2”; it is "
        "d1 − 1. The largest eigenvalue is computed to a few rounding errors of itself; the smallest only to a few "
        "rounding errors of the largest, which near a minimum leaves it no digit."
    ),
)
