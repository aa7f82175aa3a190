"""T3: exactly when the sharpness lies between αc² and 3αc²."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy as sp

from theory.initial_sharpness import below_three_alpha, in_initial_range, target_limits
from theory.model import Model, State, hessian
from theory.statements.base import Check, Statement, Status, Step
from theory.symbolic import Array
from theory.symbolic_network import symbolic_network


def derivation() -> Sequence[Step]:
    """The secular equation at the levels 3αc² and αc², then the balanced start."""
    net = symbolic_network(2)
    c, s, alpha, matrix = net.c, net.s[0], net.alpha[0], net.hessian
    level = 3 * alpha * c**2
    above = level - matrix[0, 0] - sum(matrix[0, i] ** 2 / (level - matrix[i, i]) for i in range(1, 4))
    ordinary = sum(
        v**2 * (2 * c * b - t) ** 2 / (3 * alpha - v) for b, v, t in zip(net.b, net.covariance, net.beta, strict=True)
    )
    along = sum(v * b**2 for b, v in zip(net.b, net.covariance, strict=True))
    identity = dict.fromkeys(net.covariance, sp.S.One)
    b1, b2 = net.b
    norm, q2 = b1**2 + b2**2, sum((2 * b - t) ** 2 for b, t in zip(net.b, net.beta, strict=True))
    length, beta, k = sp.symbols("ell beta k", positive=True)
    x = sp.Symbol("x", real=True)
    pair = matrix.extract([0, 3], [0, 3])
    return (
        Step(
            "The sharpness is below L exactly if L lies above every pole and L − h > Σ v_i²/(L − d_i) (T2: right of "
            "the poles the difference of the sides rises through its only zero). At L = 3αc² the opposing term is "
            "2αs².",
            c**2 * above,
            c**2 * (3 * alpha * (c**2 - s**2) - along) - ordinary,
        ),
        Step(
            "A balanced start, c = 1 and s² = 1 − ‖b‖², Σ = I: (3α − 1) times the difference is (3α − 1)²‖b‖² − ‖2b "
            "− β‖², so for α > 1/3 the sharpness is below 3α exactly if ‖2b − β‖ < (3α − 1)‖b‖.",
            ((3 * alpha - 1) * above).subs(identity).subs(c, 1).subs(s, sp.sqrt(1 - norm)),
            (3 * alpha - 1) ** 2 * norm - q2,
        ),
        Step(
            "Every direction of b, ‖b‖ = ℓ: the worst is b against β, where ‖2b − β‖ = 2ℓ + ‖β‖. The condition turns "
            "at ‖β‖ = 3(α − 1)ℓ.",
            (2 * length + beta).subs(beta, 3 * (alpha - 1) * length),
            (3 * alpha - 1) * length,
        ),
        Step(
            "b orthogonal to β: ‖2b − β‖² = 4ℓ² + ‖β‖², which turns at ‖β‖² = 3(3α + 1)(α − 1)ℓ².",
            (4 * length**2 + beta**2).subs(beta, sp.sqrt(3 * (3 * alpha + 1) * (alpha - 1)) * length),
            (3 * alpha - 1) ** 2 * length**2,
        ),
        Step(
            "No direction at all once ‖β‖ − 2ℓ, the least ‖2b − β‖, reaches (3α − 1)ℓ.",
            (beta - 2 * length).subs(beta, (3 * alpha + 1) * length),
            (3 * alpha - 1) * length,
        ),
        Step(
            "The lower end: the characteristic polynomial of the coupled 2×2 block of c and s is −4α²c²s² at αc², "
            "below 0 for s ≠ 0, so the block has an eigenvalue above αc², and the sharpness is no less (interlacing).",
            (x * sp.eye(2) - pair).det(),
            (x - matrix[0, 0]) * (x - alpha * c**2) - 4 * alpha**2 * c**2 * s**2,
        ),
        Step(
            "At s = 0, Σ = I and α > 1 the pole αc² has no arm, and the sharpness is above αc² exactly if the other "
            "roots are: ‖2cb − β‖² > (α − 1)c²(αc² − ‖b‖²), the sides of the secular equation at αc².",
            (
                (alpha - 1)
                * c**2
                * (alpha * c**2 - matrix[0, 0] - sum(matrix[0, i] ** 2 / (alpha * c**2 - matrix[i, i]) for i in (1, 2)))
            )
            .subs(identity)
            .subs(s, 0),
            (alpha - 1) * c**2 * (alpha * c**2 - norm)
            - sum((2 * c * b - t) ** 2 for b, t in zip(net.b, net.beta, strict=True)),
        ),
        Step(
            "With k = s²/‖b‖² large and b, β small the block [[α, 2α], [2α, α]] is what is left, of eigenvalues 3α and "
            "−α: with β = 0 and Σ = I the start stays below 3α for α > 1 by this margin.",
            above.subs(identity)
            .subs({c: 1, b2: 0, net.beta[0]: 0, net.beta[1]: 0})
            .subs({s: sp.sqrt(k / (1 + k)), b1: 1 / sp.sqrt(1 + k)}),
            3 * (alpha - 1) * (3 * alpha + 1) / ((3 * alpha - 1) * (1 + k)),
        ),
    )


def check() -> Sequence[Check]:
    """The conditions against dense eigenvalues, at any c, Q and Σ, then the limits on ‖β‖ from both sides."""
    wrong, wrong_level, lower, lower_swapped = [], [], [], []
    rng = np.random.default_rng(0)
    for _ in range(40):
        model, states, top = _draws(rng, 200)
        alpha_c2 = model.alpha[0] * states.c**2
        inside = (top < 3 * alpha_c2) & (top > alpha_c2)
        wrong.append((in_initial_range(model, states) != inside).mean())
        wrong_level.append((below_three_alpha(model, states) != (top < 2.5 * alpha_c2)).mean())
        lower.append((top <= alpha_c2).mean())
        without = State(states.c, states.b, 0 * states.s)
        lower_swapped.append((_dense(model, without) <= alpha_c2 * (1 + 1e-13)).mean())
    return (
        Check(
            "αc² < sharpness < 3αc²: share of 8,000 states where the condition disagrees",
            float(np.mean(wrong)),
            0.0,
            float(np.mean(wrong_level)),
            "2.5αc² for 3αc²",
        ),
        Check(
            "s ≠ 0: share of states with sharpness at most αc²",
            float(np.mean(lower)),
            0.0,
            float(np.mean(lower_swapped)),
            "s = 0",
        ),
        Check(
            "limits on ‖β‖, approached from both sides to 1e-6: share of wrong answers",
            _wrong_limits(1.0),
            0.0,
            _wrong_limits(1.1),
            "limits a tenth larger",
        ),
    )


def _draws(rng: np.random.Generator, count: int) -> tuple[Model, State, Array]:
    """A model, states of it of any c and Q, and their sharpness by LAPACK."""
    d = int(rng.integers(1, 5))
    model = Model(10 ** rng.uniform(-1, 2, 1), 10 ** rng.uniform(-1, 1) * rng.normal(size=d), rng.uniform(0, 2, d))
    c = 10 ** rng.uniform(-0.5, 0.5, count)
    scale = 10 ** rng.uniform(-1.5, 0.5, (count, 1))
    states = State(c, scale * rng.normal(size=(count, d)), rng.normal(size=(count, 1)))
    return model, states, _dense(model, states)


def _dense(model: Model, states: State) -> Array:
    return np.asarray(np.linalg.eigvalsh(hessian(model, states))[:, -1])


def _wrong_limits(factor: float) -> float:
    """Share of wrong answers just below and just above the limits, scaled by a factor."""
    wrong = []
    for alpha in (1.5, 5.0, 20.0):
        for k in (0.5, 3.0, 20.0):
            limits, length = target_limits(alpha, k), 1 / np.sqrt(1 + k)
            cases = ((limits.every_direction, -1.0), (limits.orthogonal, 0.0), (limits.some_direction, 1.0))
            for limit, cosine in cases:
                b = length * np.array([cosine, np.sqrt(1 - cosine**2)])
                state = State(np.ones(1), b[None], np.sqrt([[k / (1 + k)]]))
                for side in (-1, 1):
                    beta = factor * limit * (1 + side * 1e-6)
                    model = Model(np.array([alpha]), np.array([beta, 0.0]), np.ones(2))
                    wrong.append((_dense(model, state)[0] < 3 * alpha) != (side < 0))
    return float(np.mean(wrong))


def applies(model: Model, state: State, lr: float) -> bool:
    """One pair and c ≠ 0."""
    return model.alpha.size == 1 and bool((state.c != 0).all())


STATEMENT = Statement(
    name="T3",
    title="range of the initial sharpness",
    hypotheses="One opposing pair, c ≠ 0; any Σ, any Q. s = ‖b_o‖ in the isotropic case, uᵀb_o in the rank-one case.",
    claim=(
        "Sharpness < 3αc² exactly if 3α > max λ_i and Σ_i λ_i²(2cb_i − β_i)²/(3α − λ_i) < c²[3α(c² − s²) − bᵀΣb]. "
        "With Σ = I and a balanced start (c = 1, ‖b‖² + s² = 1): exactly if α > 1/3 and ‖2b − β‖ < (3α − 1)‖b‖. With "
        "‖b‖² = 1/(1 + k): for every direction of b exactly if ‖β‖ < 3(α − 1)/√(1 + k); for b orthogonal to β "
        "exactly if ‖β‖² < 3(3α + 1)(α − 1)/(1 + k); for none once ‖β‖ ≥ (3α + 1)/√(1 + k). Sharpness > αc² always "
        "if s ≠ 0, or if some λ_i > α; at s = 0, Σ = I, α > 1 exactly if ‖2cb − β‖² > (α − 1)c²(αc² − ‖b‖²). The "
        "layers' own blocks are c² max(λ_i, α) and bᵀΣb + αs²."
    ),
    status=Status.PROVED,
    source="the range (α, 3α) is the paper's as remembered; the exact conditions are derived here",
    applies=applies,
    derivation=derivation,
    check=check,
    remarks=(
        "As first written the start lies in (α, 3α) without a condition on β. Counterexample, of the reference values: "
        "(α, ‖β‖, k) = (5, 4, 10), d1 = 50, seed 0, has 15.05 > 15; there ‖2b − β‖ = 4.027 > (3α − 1)‖b‖ = 3.852. The "
        "overshoot is small there, but it grows with ‖β‖ without bound. In the rank-one case c² − s² is nearly 1, not "
        "‖b‖²: s² ≈ 1/(d1 + d2), the start lies just above α, and 3α is a fact of the isotropic case."
    ),
)
