"""T7: the opposing weight is multiplied by 1 − ηαc² a step; it decays like exp(−α∫c²) under the flow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy as sp
from scipy.integrate import simpson

from theory.descent import gradient_descent
from theory.flow import gradient_flow
from theory.model import Model, State, random_start
from theory.oscillation import growth_factor
from theory.statements.base import Check, Statement, Status, Step
from theory.symbolic import c, coordinate_derivatives, curvature, target, w


def derivation() -> Sequence[Step]:
    """The opposing coordinate's gradient, one step of descent, and the flow's solution."""
    lr, t = sp.symbols("eta t", positive=True)
    slope = coordinate_derivatives()["d_w"].subs(target, 0)
    path = sp.Function("c", real=True)
    start = sp.Symbol("s_0", real=True)
    solution = start * sp.exp(-curvature * sp.Integral(path(t) ** 2, (t, 0, t)))
    return (
        Step("An opposing coordinate has target 0, so its gradient is ∂_s L = αc²s.", slope, curvature * c**2 * w),
        Step(
            "One step of descent: s_{t+1} = s_t − η∂_s L = (1 − ηαc_t²) s_t, whatever the other weights do.",
            w - lr * slope,
            (1 - lr * curvature * c**2) * w,
        ),
        Step(
            "Flow: s(t) = s(0) exp(−α∫₀ᵗc²) solves s' = −αc²s.",
            sp.diff(solution, t),
            -curvature * path(t) ** 2 * solution,
        ),
        Step(
            "The factor is −1 at η = 2/(αc²): below, |s| shrinks; above, it grows. The sign alternates above 1/(αc²).",
            sp.solve(1 - lr * curvature * c**2 + 1, lr)[0],
            2 / (curvature * c**2),
        ),
    )


def check() -> Sequence[Check]:
    """Descent and flow on a default model against the two formulas."""
    model = Model(np.array([20.0]), 3.0 * np.eye(50)[0], np.ones(50))
    start, lr = random_start(50, 3.0, seed=0), 0.04
    descent = gradient_descent(model, start, lr, 90).state
    s, factor = descent.s[:, 0], growth_factor(model, descent, lr)[:, 0]
    flow = gradient_flow(model, start, np.linspace(0, 0.5, 2001))
    # Its error is far below the bound at this spacing.
    of_square, of_c = (float(simpson(values, dx=0.5 / 2000)) for values in (flow.state.c**2, flow.state.c))
    end, at_start = flow.state.s[-1, 0], start.s[0]
    return (
        Check(
            "descent: largest relative error of (1 − ηαc_t²) s_t",
            float(np.abs(s[1:] / (factor[:-1] * s[:-1]) - 1).max()),
            1e-12,
            float(np.abs(s[1:] / (factor[1:] * s[:-1]) - 1).max()),
            "c of the step after",
        ),
        Check(
            "flow: relative error of s(0) exp(−α∫c²) at t = 0.5",
            float(abs(end / (at_start * np.exp(-20.0 * of_square)) - 1)),
            1e-9,
            float(abs(end / (at_start * np.exp(-20.0 * of_c)) - 1)),
            "∫c in the exponent",
        ),
    )


def applies(model: Model, state: State, lr: float) -> bool:
    """Always: the statement needs no hypothesis."""
    return True


STATEMENT = Statement(
    name="T7",
    title="growth of the opposing weight",
    hypotheses="None: any Σ, any number of opposing pairs, any state.",
    claim=(
        "Under descent s_{t+1} = (1 − ηαc_t²) s_t exactly: monotone while ηαc² < 1, alternating in sign above, growing "
        "when ηαc² > 2. Under the flow s(t) = s(0) exp(−α∫₀ᵗc²)."
    ),
    status=Status.PROVED,
    source="the setting; derived here",
    applies=applies,
    derivation=derivation,
    check=check,
    remarks=(
        "s stays exactly 0 once it is 0: at ηαc² = 1 in one step, or by underflow in a long run without noise, after "
        "which c rises unchecked. Follow ln|s| where that matters."
    ),
)
