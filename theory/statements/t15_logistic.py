"""T15: the logistic loss with an opposing feature: the group gap, the secant curvature, what survives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy as sp
from scipy.integrate import solve_ivp
from scipy.special import expit

from theory.logistic import (
    LogisticModel,
    logistic_descent,
    logistic_gradient,
    logistic_group_gap,
    logistic_group_losses,
    logistic_growth_factor,
    secant_curvature,
)
from theory.model import Model, State, balancedness
from theory.statements.base import Check, Statement, Status, Step
from theory.symbolic import Array

_c, _s, _g, _h = sp.symbols("c s g h", positive=True)
_p, _lr, _m = sp.symbols("p eta M", positive=True)


def _softplus(x: sp.Expr) -> sp.Expr:
    return sp.log(1 + sp.exp(x))


def _sigmoid(x: sp.Expr) -> sp.Expr:
    return 1 / (1 + sp.exp(-x))


def derivation() -> Sequence[Step]:
    """One example with margin M = cg; expectations are over g = bᵀq and change nothing."""
    z = sp.Symbol("z", positive=True)
    plus, minus = _softplus(-_m - z), _softplus(-_m + z)
    gap = z + sp.log(sp.cosh((z - _m) / 2)) - sp.log(sp.cosh((z + _m) / 2))
    alpha = _p * _h**2
    secant = alpha * sp.sinh(z) / (2 * z * (sp.cosh(z) + sp.cosh(_m)))
    place = {_m: _c * _g, z: _c * _s * _h}
    loss = ((1 - _p) * _softplus(-_m) + _p / 2 * (plus + minus)).subs(place)
    at_state = secant.subs(place)
    drive = _g * ((1 - _p) * _sigmoid(-_m) + _p / 2 * (_sigmoid(-_m - z) + _sigmoid(-_m + z))).subs(place)
    series = sp.series(secant / alpha, z, 0, 3).removeO()
    return (
        Step(
            "Group gap: both sides vanish at z = 0 and have the same slope in z.",
            sp.diff(plus - minus, z),
            sp.diff(-gap, z),
            _exponentials,
        ),
        Step(
            "The slope there is −2σ(−M), not the squared loss's constant.",
            sp.diff(-gap, z).subs(z, 0),
            -2 * _sigmoid(-_m),
            _exponentials,
        ),
        Step(
            "Where M and −M are equally likely, as in any law symmetric about 0, the gap is −z, linear; of a single "
            "margin at M = 0 alone.",
            -(gap + gap.subs(_m, -_m)) / 2,
            -z,
            _exponentials,
        ),
        Step(
            "∂_sL = c²A(z, M)s, exactly: T7 with α replaced by A.",
            sp.diff(loss, _s),
            _c**2 * at_state * _s,
            _exponentials,
        ),
        Step(
            "∂_cL = −D + cs²A: T4 with α replaced by A.",
            sp.diff(loss, _c),
            -drive + _c * _s**2 * at_state,
            _exponentials,
        ),
        Step(
            "L depends on (c, b, s) through cb and cs alone, so Q = c² − ‖b‖² − s² is kept by the flow (T1): "
            "c∂_cL = b·∂_bL + s∂_sL.",
            _c * sp.diff(loss, _c),
            _g * sp.diff(loss, _g) + _s * sp.diff(loss, _s),
            _exponentials,
        ),
        Step(
            "A(0) = ασ′(M), the Hessian's curvature.",
            series.subs(z, 0),
            sp.diff(_sigmoid(_m), _m),
            _exponentials,
        ),
        Step(
            "A's z² coefficient over α: A falls with |z| from the start iff cosh M < 2.",
            series.coeff(z, 2),
            (sp.cosh(_m) - 2) / (12 * (1 + sp.cosh(_m)) ** 2),
            _exponentials,
        ),
        Step(
            "For large |z|, A → α/(2|z|): s cannot run away.",
            sp.limit(_exponentials(z * secant / alpha), z, sp.oo),
            sp.Rational(1, 2),
        ),
    )


def _exponentials(expression: sp.Expr) -> sp.Expr:
    """Hyperbolic functions as exponentials over one common denominator."""
    return sp.cancel(sp.together(sp.expand(expression.rewrite(sp.exp), power_exp=True)))


def check() -> Sequence[Check]:
    """The exact formulas in a run past the threshold, and the counterexamples to T5."""
    model, lr = _classes(2000.0), 0.004
    run = logistic_descent(model, State(np.array(1.0), np.array([0.3, 0.1]), np.array([0.05])), lr, 2000).state
    s, factor = run.s[:, 0], logistic_growth_factor(model, run, lr)
    slope = logistic_gradient(model, run)
    step_change = lr**2 * balancedness(slope)
    drift = np.diff(balancedness(run))
    plus, minus = logistic_group_losses(model, run)
    z, margins = model.feature * run.c * s, run.c[:, None] * (run.b @ model.q.T)
    tangent = -2 * expit(-margins).mean(-1) * z
    unopposed, slope_unopposed = (State(x.c, x.b, np.zeros_like(x.s)) for x in (run, slope))
    drift_without = np.diff(balancedness(unopposed)) - lr**2 * balancedness(slope_unopposed)[:-1]
    edge = lr * run.c**2 * secant_curvature(model, run)
    sharp = lr * run.c**2 * secant_curvature(model, unopposed)
    at_edge = slice(100, 750)
    return (
        Check(
            "group gap against the groups' losses",
            float(np.abs(plus - minus - logistic_group_gap(model, run)).max()),
            1e-12,
            float(np.abs(plus - minus - tangent).max()),
            "its tangent −2Eσ(−M)z",
        ),
        Check(
            "descent: error of s_{t+1} = (1 − ηc²A)s_t",
            float(np.abs(s[1:] - factor[:-1] * s[:-1]).max()),
            1e-14,
            float(np.abs(s[1:] - (1 - sharp[:-1]) * s[:-1]).max()),
            "A at z = 0",
        ),
        Check(
            "descent: error of the change of Q (T1)",
            float(np.abs(drift - step_change[:-1]).max()),
            1e-13,
            float(np.abs(drift_without).max()),
            "Q without the opposing weight",
        ),
        Check(
            "edge of stability: distance of mean ηc²A(z, M) from 2",
            float(abs(edge[at_edge].mean() - 2)),
            5e-3,
            float(abs(sharp[at_edge].mean() - 2)),
            "the sharpness, A at z = 0",
        ),
        Check(
            "T5 fails: c of the counterexample rises to 1.0334, then falls to 0.7977; largest distance",
            _from_counterexample(-1.749),
            1e-3,
            _from_counterexample(1.749),
            "its one negative feature turned",
        ),
        Check(
            "separable: last sharpness over the largest (the squared loss's never falls again)",
            _sharpness_left(0.0),
            0.5,
            _sharpness_left(0.15),
            "15 % of the labels wrong",
        ),
    )


def _from_counterexample(fourth: float) -> float:
    high, low = t5_counterexample(fourth)
    return max(abs(high - 1.0334), abs(low - 0.7977))


def t5_counterexample(fourth: float = -1.749) -> tuple[float, float]:
    """Largest and last value of c under the flow, α = 0.5147 and five signed features, one of them negative."""
    model = LogisticModel(np.array([[2.452], [2.627], [2.36], [fourth], [2.839]]), 0.7839, 0.5147)

    def velocity(_: float, vector: Array) -> Array:
        return -logistic_gradient(model, State.from_vector(vector, 1)).vector

    solution = solve_ivp(velocity, (0, 300), [1.0, 0.2474, 1.0661], "DOP853", rtol=1e-9, atol=1e-12)
    return float(solution.y[0].max()), float(solution.y[0, -1])


def _classes(alpha: float, mislabelled: float = 0.0) -> LogisticModel:
    rng = np.random.default_rng(1)
    q = np.stack([1 + 0.5 * rng.uniform(-1, 1, 200), 0.3 * rng.normal(size=200)], axis=1)
    q[: round(mislabelled * 200)] *= -1
    return LogisticModel(q, 0.1, alpha)


def _sharpness_left(mislabelled: float) -> float:
    """Curvature c²A(0, M) along s after a long gentle run, over its largest value."""
    gentle = _classes(40.0, mislabelled)
    run = logistic_descent(gentle, State(np.array(1.0), np.array([0.3, 0.1]), np.array([0.3])), 0.02, 2000).state
    curvature = run.c**2 * secant_curvature(gentle, State(run.c, run.b, np.zeros_like(run.s)))
    return float(curvature[-1] / curvature.max())


def applies(model: Model, state: State, lr: float) -> bool:
    """One opposing pair, whose two sides carry either label equally often."""
    return bool(model.alpha.size == 1)


STATEMENT = Statement(
    name="T15",
    title="logistic loss with an opposing feature",
    hypotheses=(
        "Labels ±1, f = c(bᵀx + s·uᵀx_o), signed features q = yx; outliers, a fraction p, all have uᵀx_o = h = √(α/p), "
        "either label equally often and the same law of q. M = cbᵀq, z = csh."
    ),
    claim=(
        "ℓ₊ − ℓ₋ = −E[z + ln cosh((z−M)/2) − ln cosh((z+M)/2)] exactly: odd in z, with slope −2Eσ(−M) at 0, −z "
        "where the law of M is symmetric about 0. With A(z, M) = αE[sinh z/(2z(cosh z + cosh M))]: "
        "s_{t+1} = (1 − ηc²A)s_t and ∂_cL = −D "
        "+ cs²A exactly. So T1 holds, T7 and T4 hold with α replaced by A, and s = 0 loses stability at ηc²αEσ′(M) "
        "= 2. T5, T6 and T9 fail as they stand."
    ),
    status=Status.CHECKED,
    source="derived here",
    applies=applies,
    derivation=derivation,
    check=check,
    remarks=(
        "The formulas are proved; what fails was seen in numbers. T6: where the data are separable c grows without "
        "end and the sharpness along s, c²αEσ′(M), rises and falls again, so runs leave the edge of stability by "
        "themselves. T5: c may rise and fall again with mislabelled examples; q = (2.452, 2.627, 2.36, −1.749, "
        "2.839), α = 0.5147, p = 0.7839, b = 0.2474, s = 1.0661, c = 1: up to 1.0334 and down to 0.7977. T9: at "
        "the edge the mean of ηc²A(z, M), not of ηc²A(0, M), is 2 to 0.3 %, and s² = D/(cA) does not hold, since c "
        "still moves. For |M| < arccosh 2 = 1.317 the two-cycle of s at fixed c is born small at the threshold; "
        "above it is born large and lives below the threshold too. Its amplitude on a moving edge was not found."
    ),
)
