"""T13: where momentum, Adam and sign descent turn unstable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy as sp

from theory.model import Model, State, power_law_covariance
from theory.optimizer_maps import Adam, Momentum, SignDescent, descend_with, growth_per_step, preconditioner
from theory.oscillation import edge_amplitude
from theory.statements.base import Check, Statement, Status, Step
from theory.symbolic import c, coordinate_derivatives, curvature, target, w

_z, _v = sp.symbols("z v", real=True)
_lr, _mu, _tau, _beta1, _p, _eps = sp.symbols("eta mu tau beta_1 P epsilon", positive=True)
_a = sp.Symbol("a", positive=True)


def derivation() -> Sequence[Step]:
    """Characteristic polynomials of the maps, their value at −1, and the two-cycles."""
    lam = sp.Symbol("Lambda", positive=True)
    slope = coordinate_derivatives()["d_w"].subs(target, 0)
    g = slope.subs(curvature, lam / c**2)
    heavy, ahead, adam = _heavy_ball(g), _nesterov(g), _adam(g)
    stable = {
        "heavy": 2 * (1 + _mu) / (_lr * (1 - _tau)),
        "ahead": 2 * (1 + _mu) / (_lr * (1 + 2 * _mu)),
        "adam": 2 * (1 + _beta1) / (_lr * (1 - _beta1)),
    }
    ahead_end = sp.Poly(_polynomial(ahead), _z).coeff_monomial(1)
    return (
        Step("An opposing coordinate has gradient Λs with Λ = αc², whatever the other weights do.", g, lam * w),
        Step(
            "Heavy ball, s_{t+1} = s_t − ηv_{t+1} with v_{t+1} = μv_t + (1−τ)Λs_t: characteristic polynomial.",
            _polynomial(heavy),
            _z**2 + (_lr * (1 - _tau) * lam - _mu - 1) * _z + _mu,
        ),
        Step(
            "Eliminating v, for c that changes too: s_{t+1} = (1+μ−η(1−τ)Λ_t)s_t − μs_{t−1}, where v_t is "
            "(s_{t−1} − s_t)/η.",
            heavy[0].subs(_v, (sp.Symbol("r") - w) / _lr),
            (1 + _mu - _lr * (1 - _tau) * lam) * w - _mu * sp.Symbol("r"),
        ),
        Step(
            "z² + a₁z + a₀ has both roots inside the unit circle iff |a₀| < 1 and its values at 1 and −1 are positive "
            "(Jury's conditions). Here a₀ = μ < 1 and the value at 1 is positive; so −1 decides, and Λ* is its zero.",
            sp.solve(_polynomial(heavy).subs(_z, -1), lam)[0],
            stable["heavy"],
        ),
        Step("The value at 1.", _polynomial(heavy).subs(_z, 1), _lr * (1 - _tau) * lam),
        Step(
            "Nesterov, s_{t+1} = s_t − η(Λs_t + μv_{t+1}), τ = 0.",
            _polynomial(ahead),
            _z**2 + (1 + _mu) * (_lr * lam - 1) * _z + _mu * (1 - _lr * lam),
        ),
        Step("Its zero at −1: *below* 2/η.", sp.solve(_polynomial(ahead).subs(_z, -1), lam)[0], stable["ahead"]),
        Step(
            "There a₀ = −μ/(1+2μ) > −1, and a₀ falls with Λ from μ < 1: no complex pair leaves first.",
            ahead_end.subs(lam, stable["ahead"]),
            -_mu / (1 + 2 * _mu),
        ),
        Step(
            "Adam with its preconditioner P held fixed and the bias correction over.",
            _polynomial(adam),
            _z**2 + (_lr * (1 - _beta1) * lam / _p - _beta1 - 1) * _z + _beta1,
        ),
        Step("Its threshold concerns Λ/P.", sp.solve(_polynomial(adam).subs(_z, -1), lam)[0] / _p, stable["adam"]),
        Step("At β₁ = 9/10 it is 38/η.", stable["adam"].subs(_beta1, sp.Rational(9, 10)), 38 / _lr),
        *_two_cycles(heavy[0], adam, lam, stable),
    )


def _two_cycles(heavy_weight: sp.Expr, adam: sp.Matrix, lam: sp.Symbol, stable: dict[str, sp.Expr]) -> tuple[Step, ...]:
    """The states s = ±a at the edge: for momentum as in T9, for Adam of its own width."""
    memory = sp.solve(adam[1].subs(w, _a) + _v, _v)[0]
    landed = adam[0].subs({_v: memory, w: _a}).subs(_p, lam * _a + _eps)
    width = sp.solve(sp.numer(sp.together(landed + _a)) / _a, _a)[0]
    drive = sp.Symbol("D", positive=True)
    slope_c = coordinate_derivatives()["d_c"].subs({target: 0, w: _a}) - drive
    buffer = sp.solve(_mu * _v + (1 - _tau) * lam * _a + _v, _v)[0]
    return (
        Step(
            "Edge state with momentum: on s_t = (−1)ᵗa the buffer alternates too, and the step carries a to −a iff "
            "Λ is the threshold, whatever a.",
            sp.solve(heavy_weight.subs({w: _a, _v: buffer}) + _a, lam)[0],
            stable["heavy"],
        ),
        Step(
            "c then stands still iff its gradient vanishes: a² = D/(αc), as for plain descent (T9).",
            sp.solve(slope_c.subs(curvature, sp.Symbol("alpha", positive=True)), _a**2)[0],
            drive / (sp.Symbol("alpha", positive=True) * c),
        ),
        Step(
            "Adam on fixed Λ: on s_t = (−1)ᵗa, √v̂ = Λa, so P = Λa + ε, and the step carries a to −a iff "
            "a = η(1−β₁)/(2(1+β₁)) − ε/Λ: 1/threshold, up to ε. It does not depend on Λ or D.",
            width,
            1 / stable["adam"] - _eps / lam,
        ),
        Step(
            "Sign descent is Adam with β₁ = β₂ = ε = 0: the cycle s = ±η/2 is one of those with gap η.",
            2 * (1 / stable["adam"]).subs(_beta1, 0),
            _lr,
        ),
    )


def _heavy_ball(g: sp.Expr) -> sp.Matrix:
    buffer = _mu * _v + (1 - _tau) * g
    return sp.Matrix([w - _lr * buffer, buffer])


def _nesterov(g: sp.Expr) -> sp.Matrix:
    buffer = _mu * _v + g
    return sp.Matrix([w - _lr * (g + _mu * buffer), buffer])


def _adam(g: sp.Expr) -> sp.Matrix:
    mean = _beta1 * _v + (1 - _beta1) * g
    return sp.Matrix([w - _lr * mean / _p, mean])


def _polynomial(step: sp.Matrix) -> sp.Expr:
    """Characteristic polynomial of the map (s, v) → step, from its Jacobian."""
    return sp.expand((_z * sp.eye(2) - step.jacobian([w, _v])).det())


def check() -> Sequence[Check]:
    """Thresholds measured in the model on a slow ramp, the two-cycles, and the edge state with momentum."""
    heavy, heavy_control = (_ramp(Momentum(3 / 8e4, mu), 4e4, 8e4) for mu in (0.5, 0.48))
    ahead, ahead_control = (_ramp(Momentum(1.5 / 2e4, mu, nesterov=True), 1e4, 2e4) for mu in (0.5, 0.48))
    adam, adam_control = (_adam_ramp(beta1) for beta1 in (0.9, 0.89))
    gaps = [_sign_gap(alpha) for alpha in (2.0, 200.0)]
    (edge, amplitude), (off_edge, off_amplitude) = (_edge(0.5, scale) for scale in (1.0, 0.25))
    fractions = np.array([1 - 1e-6, 1 + 1e-6])
    rules = (Momentum(0.1, 0.9), Momentum(0.1, 0.9, 0.5), Momentum(0.1, 0.9, nesterov=True), Adam(0.1))
    signs = [growth_per_step(rule, fractions * rule.threshold) - 1 for rule in rules]
    plain = [growth_per_step(rule, fractions * 2 / rule.lr) - 1 for rule in rules]
    turn = "relative error of {} at the turn of |s|"
    return (
        Check(
            "quadratic: rules whose growth a step does not pass 1 between λ*(1 ∓ 1e-6)",
            float(sum(not below < 0 < above for below, above in signs)),
            0.0,
            float(sum(not below < 0 < above for below, above in plain)),
            "2/η for every rule",
        ),
        Check("model, heavy ball μ = ½: " + turn.format("αc²"), heavy, 1e-3, heavy_control, "μ = 0.48"),
        Check("model, Nesterov μ = ½: " + turn.format("αc²"), ahead, 1e-3, ahead_control, "μ = 0.48"),
        Check("model, Adam: " + turn.format("αc²/P"), adam, 1e-2, adam_control, "β₁ = 0.89"),
        Check(
            "sign descent, α = 2 and 200: error of the cycle's two values, in η",
            max(error for error, _ in gaps),
            1e-6,
            max(control for _, control in gaps),
            "the sign of the start turned",
        ),
        Check(
            "edge of stability, μ = ½: relative error of mean αc²",
            abs(edge - 1),
            1e-2,
            abs(off_edge - 1),
            "a quarter of the step size, which ends below the threshold",
        ),
        Check(
            "edge of stability, μ = ½: relative error of mean s² = D/(αc)",
            abs(amplitude - 1),
            0.1,
            abs(off_amplitude - 1),
            "the same run",
        ),
    )


def _model(alpha: float) -> Model:
    return Model(np.array([alpha]), np.array([3.0]), np.ones(1))


def _state(c_start: float, b: float, s: float) -> State:
    return State(np.array(c_start), np.array([b]), np.array([s]))


def _ramp(rule: Momentum, alpha: float, expected: float) -> float:
    """Relative error of the αc² at which |s| turns: c² grows slowly through 2, s starts too small to act back."""
    rate = rule.lr * (1 - rule.dampening) / (1 - rule.mu)
    c_start = np.sqrt(1.8)
    run = descend_with(_model(alpha), _state(c_start, c_start, 1e-6), rule, round(0.3 / rate))
    size = np.abs(run.state.s[:, 0])
    falls = np.diff(np.log(size[: np.flatnonzero(size > 1e-4)[0] + 1])) < 0
    turn = float(alpha * run.state.c[np.flatnonzero(falls)[-1] + 1] ** 2)
    return abs(turn / expected - 1)


def _adam_ramp(beta1: float) -> float:
    """The same for Adam and β₁ = 0.9: at the minimum, s dies out, P decays with it, and αc²/P ramps up."""
    rule, alpha, c_minimum = Adam(1e-3, beta1=beta1, eps=1e-9), 20.0, np.sqrt(3.0)
    model = _model(alpha)
    run = descend_with(model, _state(c_minimum, c_minimum, 40 / rule.threshold), rule, 2500)
    ratio = alpha * run.state.c**2 / preconditioner(model, run, rule)[:, -1]
    turn = float(ratio[np.argmin(np.abs(run.state.s[:, 0]))])
    return abs(turn / Adam(rule.lr, eps=rule.eps).threshold - 1)


def _sign_gap(alpha: float) -> tuple[float, float]:
    rule = SignDescent(4e-3)
    run = descend_with(_model(alpha), _state(1.0, 0.4, 0.90137), rule, 400)
    last = np.sort(run.state.s[-2:, 0])
    right, wrong = (np.sort(np.ravel(rule.two_cycle(s))) for s in (0.90137, -0.90137))
    return float(np.abs(last - right).max() / rule.lr), float(np.abs(last - wrong).max() / rule.lr)


def _edge(mu: float, scale: float) -> tuple[float, float]:
    """Mean αc² over its threshold and mean s² over D/(αc), in a run's second half, at the edge if the scale is 1."""
    rng, alpha = np.random.default_rng(1), 100.0
    beta, b = rng.normal(size=100), rng.normal(size=100)
    model = Model(np.array([alpha]), 3 * beta / np.linalg.norm(beta), power_law_covariance(100, 1.0))
    rule = Momentum(scale * 2 * (1 + mu) / (1.1 * alpha), mu)
    start = State(np.sqrt(0.88), 0.4 * b / np.linalg.norm(b), np.array([0.01]))
    state = descend_with(model, start, rule, 5500).state
    half = slice(2750, None)
    edge = float(alpha * (state.c[half] ** 2).mean() / rule.threshold)
    return edge, float((state.s[half, 0] ** 2).mean() / edge_amplitude(model, state)[half].mean())


def applies(model: Model, state: State, lr: float) -> bool:
    """There is an opposing pair for the threshold to concern, and a step."""
    return bool((model.alpha > 0).any() and lr > 0)


STATEMENT = Statement(
    name="T13",
    title="thresholds of momentum, Adam and sign descent",
    hypotheses=(
        "Any Σ; 0 ≤ μ, τ, β₁ < 1; PyTorch's conventions. The thresholds are those of a coordinate of fixed curvature "
        "(for Adam: and fixed preconditioner P = √v̂ + ε); in the model Λ = αc² must change slowly."
    ),
    claim=(
        "s grows iff αc² exceeds 2(1+μ)/(η(1−τ)) for heavy ball, 2(1+μ)/(η(1+2μ)) for Nesterov momentum, and iff "
        "αc²/P exceeds (2+2β₁)/((1−β₁)η) for Adam, 38/η at β₁ = 0.9. Exactly, whatever c does: "
        "s_{t+1} = (1+μ−η(1−τ)αc_t²)s_t − μs_{t−1}. Sign descent has no threshold: s ends in a two-cycle of gap η "
        "whatever αc², with values s(0) mod η and that less η. At the edge momentum leaves T9's amplitude "
        "s² = D/(αc) as it is; Adam has a two-cycle of half-width η(1−β₁)/(2(1+β₁)) − ε/Λ instead."
    ),
    status=Status.CHECKED,
    source="Cohen et al. 2021 (arXiv 2103.00065) and 2022 (arXiv 2207.14484) for the thresholds; derived here",
    applies=applies,
    derivation=derivation,
    check=check,
    remarks=(
        "Proved for fixed curvature and fixed P; the recursion of s and sign descent's cycle are exact in the "
        "model. On a slow ramp the turn of |s| lies within 0.1 % of the threshold for μ = ½ and within 0.5 % for μ "
        "= 0.9, with an error that falls with the ramp's rate; for Adam, where P's decay makes the ramp, within 1 "
        "%. Nesterov's threshold is below plain descent's. Adam's two-cycle attracts for β₁ = 0 (seen); for β₁ = "
        "0.9 it exists but does not attract: s bursts and dies down in turn, with a root mean square 6 to 9 % "
        "above the cycle's. With momentum the edge state was seen for μ ≤ ½ (mean αc² to 1 %, mean s² to 7 % for "
        "slow drive); at μ = 0.9 runs that cross fast diverge. Sign descent: a start at a multiple of η lands on 0 "
        "and stays there, up to rounding."
    ),
)
