"""T6: the limit of the flow and its spectrum, for any invertible Σ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy as sp

from theory.curvature import sharpness
from theory.flow import gradient_flow
from theory.limits import flow_limit
from theory.model import Model, State, balancedness, hessian
from theory.statements.base import Check, Statement, Status, Step
from theory.symbolic import Array
from theory.symbolic_network import symbolic_network


def derivation() -> Sequence[Step]:
    """The minima on the conserved surface, the Hessian there, and the saddle c = 0, with two features."""
    net = symbolic_network(2)
    c, (b1, b2), s, alpha = net.c, net.b, net.s[0], net.alpha[0]
    beta1, beta2 = net.beta
    lam1, lam2 = net.covariance
    q, x, norm = sp.Symbol("Q", real=True), sp.Symbol("x", real=True), sp.Symbol("beta", positive=True)
    limit = (q + sp.sqrt(q**2 + 4 * norm**2)) / 2
    minimum = {b1: beta1 / c, b2: beta2 / c, s: 0}
    at_minimum = net.hessian.subs(minimum)
    # c²Σ + (Σ^½β)(Σ^½β)ᵀ/c²
    root = sp.Matrix([sp.sqrt(lam1) * beta1, sp.sqrt(lam2) * beta2])
    reduced = c**2 * sp.diag(lam1, lam2) + root * root.T / c**2
    saddle = net.hessian.subs(c, 0)
    height = saddle[0, 0]
    force = (lam1 * beta1) ** 2 + (lam2 * beta2) ** 2
    identity = {lam1: 1, lam2: 1, beta1: norm, beta2: 0}
    return (
        Step(
            "At a minimum cb = β and s = 0, so ‖b‖ = ‖β‖/c, and Q is what it was at the start (T1): the positive "
            "root of c² − ‖β‖²/c² = Q does not contain Σ or α.",
            limit - norm**2 / limit,
            q,
        ),
        Step(
            "The loss falls, so with m the least of Σ's eigenvalues and α, ‖cw − τ‖² ≤ 2L(0)/m, and c²‖w‖² is "
            "bounded. Q gives ‖w‖² = c² − Q, so c²(c² − Q) is, and all weights are. An analytic gradient flow that "
            "is bounded converges to a critical point (Łojasiewicz). There 2cL = (cw − τ)·∂_w L = 0, L without its "
            "irreducible part: either L = 0, a global minimum, or c = 0.",
            sum((c * w - t) * g for w, t, g in zip(net.weights[1:], (*net.beta, 0), net.gradient[1:], strict=True)),
            2 * c * net.loss,
        ),
        Step(
            "Critical points with c = 0 have bᵀΣβ = 0. The Hessian there has the characteristic polynomial x^(d1 + J "
            "− 1)(x² − hx − ‖Σβ‖²), h = bᵀΣb + αs²: one eigenvalue is negative unless β = 0, a strict saddle, which "
            "almost no start reaches (stable manifold theorem).",
            (x * sp.eye(4) - saddle).det(method="berkowitz"),
            x**2 * (x**2 - height * x - force),
        ),
        Step(
            "At the minimum the Hessian has the eigenvalue 0 (along the curve of minima, T1's symmetry), αc² once a "
            "pair, and the eigenvalues of c²Σ + (Σ^½β)(Σ^½β)ᵀ/c².",
            (x * sp.eye(4) - at_minimum).det(method="berkowitz"),
            x * (x - alpha * c**2) * (x * sp.eye(2) - reduced).det(),
        ),
        Step(
            "Σ = I: they are c² and c² + ‖β‖²/c², so the sharpness is max(αc², c² + ‖β‖²/c²).",
            (x * sp.eye(2) - reduced.subs(identity)).det(),
            (x - c**2) * (x - c**2 - norm**2 / c**2),
        ),
        Step(
            "c² + ‖β‖²/c² = √(Q² + 4‖β‖²). At Q = 0 the sharpness is max(α, 2)‖β‖.",
            limit + norm**2 / limit,
            sp.sqrt(q**2 + 4 * norm**2),
        ),
        Step(
            "αc² ≥ ⅝α‖β‖ exactly if Q ≥ −(39/40)‖β‖: with Q = c² − ‖β‖²/c² the sum Q + (39/40)‖β‖ has the sign of "
            "c² − ⅝‖β‖.",
            c**2 - norm**2 / c**2 + sp.Rational(39, 40) * norm,
            (c**2 - sp.Rational(5, 8) * norm) * (c**2 + sp.Rational(8, 5) * norm) / c**2,
        ),
    )


def check() -> Sequence[Check]:
    """Flows from random starts to their end, balanced and not; the spectrum; the factor 5/8."""
    errors, other_sigma, spectra, without = [], [], [], []
    rng = np.random.default_rng(0)
    for _ in range(12):
        d = int(rng.integers(1, 5))
        model = Model(rng.uniform(0.5, 5, 2), 1 + 2 * rng.random(d), rng.uniform(0.5, 2, d))
        start = State(np.array(rng.uniform(0.5, 2)), 0.7 * rng.normal(size=d), 0.7 * rng.normal(size=2))
        end = gradient_flow(model, start, [20.0], rtol=1e-9, atol=1e-11).state.at(0)
        limit = flow_limit(model, start)
        errors.append(abs(end.c**2 - limit.c**2) / limit.c**2)
        weighted = Model(model.alpha, np.sqrt(model.covariance) * model.beta, model.covariance)
        other_sigma.append(abs(end.c**2 - flow_limit(weighted, start).c ** 2) / limit.c**2)
        exact = np.linalg.eigvalsh(hessian(model, limit))
        spectra.append(np.abs(exact - _final_spectrum(model, limit, 1.0)).max() / exact[-1])
        without.append(np.abs(exact - _final_spectrum(model, limit, 0.0)).max() / exact[-1])
    return (
        Check(
            "any Σ: largest relative error of c∞² at flow time 20",
            float(max(errors)),
            1e-6,
            float(max(other_sigma)),
            "‖Σ^½β‖ for ‖β‖",
        ),
        Check(
            "spectrum at the limit: largest error, relative to the sharpness",
            float(max(spectra)),
            1e-13,
            float(max(without)),
            "without the rank-one term",
        ),
        Check(
            "αc∞²/(α‖β‖) at Q = −(39/40)‖β‖: distance from 5/8",
            _distance_from_five_eighths(39 / 40),
            1e-14,
            _distance_from_five_eighths(1.0),
            "Q = −‖β‖",
        ),
        Check(
            "balanced, Σ = I: sharpness/(max(α, 2)‖β‖) less 1, over α = 1…20, ‖β‖ = 1…100",
            max(_balanced_excess(alpha, beta, 2.0) for alpha in (1.0, 2.0, 3.0, 20.0) for beta in (1.0, 100.0)),
            1e-14,
            max(_balanced_excess(alpha, beta, 1.0) for alpha in (1.0, 2.0, 3.0, 20.0) for beta in (1.0, 100.0)),
            "max(α, 1)",
        ),
    )


def _final_spectrum(model: Model, limit: State, rank_one: float) -> Array:
    """0, αc² and eig(c²Σ + (Σ^½β)(Σ^½β)ᵀ/c²), ascending."""
    c2 = float(limit.c) ** 2
    root = np.sqrt(model.covariance) * model.beta
    coupled = np.linalg.eigvalsh(c2 * np.diag(model.covariance) + rank_one * np.outer(root, root) / c2)
    return np.sort(np.concatenate([[0.0], model.alpha * c2, coupled]))


def _distance_from_five_eighths(share: float) -> float:
    """|c∞²/‖β‖ − 5/8| from a start with c = 1 and Q = −share·‖β‖, ‖β‖ = 1."""
    limit = flow_limit(
        Model(np.ones(1), np.ones(1), np.ones(1)), State(np.array(1.0), np.sqrt([1 + share]), np.zeros(1))
    )
    return float(abs(limit.c**2 - 5 / 8))


def _balanced_excess(alpha: float, beta: float, least: float) -> float:
    model = Model(np.array([alpha]), np.array([beta, 0.0]), np.ones(2))
    start = State(np.array(1.0), np.array([0.0, 0.6]), np.array([0.8]))
    return abs(float(sharpness(model, flow_limit(model, start))) / (max(alpha, least) * beta) - 1)


def applies(model: Model, state: State, lr: float) -> bool:
    """Σ and every α positive, β ≠ 0, c > 0 and Q ≥ 0; for Q < 0 the value of c² stands for almost every start."""
    positive = bool((model.curvatures > 0).all()) and bool((model.beta != 0).any())
    return positive and bool(((state.c > 0) & (balancedness(state) >= 0)).all())


STATEMENT = Statement(
    name="T6",
    title="limit of the flow",
    hypotheses=(
        "Σ invertible, every α > 0, β ≠ 0; all starts but those on the stable manifold of the saddle c = 0, a set of "
        "measure 0. c > 0 and Q > 0 has no exception."
    ),
    claim=(
        "The flow converges to s = 0, cb = β with c∞² = (Q + √(Q² + 4‖β‖²))/2, whatever Σ is; b∞ is parallel to β. The "
        "Hessian there has the eigenvalues 0, αc∞² and those of c∞²Σ + (Σ^½β)(Σ^½β)ᵀ/c∞². With Σ = I the sharpness is "
        "max(αc∞², √(Q² + 4‖β‖²)); balanced, max(α, 2)‖β‖. αc∞² ≥ ⅝α‖β‖ exactly if Q ≥ −(39/40)‖β‖."
    ),
    status=Status.PROVED,
    source="derived here; the factor 5/8 is the paper's as remembered; convergence by Łojasiewicz' theorem",
    applies=applies,
    derivation=derivation,
    check=check,
    remarks=(
        "In the isotropic case αc² counts d2 times, in the rank-one case the idle directions add zeros. For Q < 0, c "
        "may pass through 0 and end at the minimum of opposite sign; c∞² stands. At Q = 0 there are starts that fall "
        "into the origin: with Σ = I and s = 0 exactly b = −cβ/‖β‖. Singular Σ: weights of second moment 0 never "
        "move, and Q and β are those of the others. As first written the limit was for Σ = I."
    ),
)
