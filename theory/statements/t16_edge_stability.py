"""T16: whether the state of T9 is stable, how fast it is reached or left, and after how many spikes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy as sp

from theory.edge import edge_stability, edge_units, effective_damping, spikes_between
from theory.model import Model, State, drive, hessian, power_law_covariance
from theory.statements.base import Check, Statement, Status, Step
from theory.statements.t10_spike_height import NEXT_HEIGHT, NEXT_Q, g, height, l, m, order_up_to, q
from theory.statements.t10_spike_height import e as excess
from theory.symbolic import COORDINATE_LOSS, Array, c, curvature, target, w

alpha, lr = sp.symbols("alpha eta", positive=True)


def derivation() -> Sequence[Step]:
    """Stability with b fixed, the area law of large spikes, and b's response."""
    return (*_linear_stability(), *_area_law(), *_response())


def _jacobian() -> sp.Matrix:
    """Of map (1) of `theory.edge` in (ln w, q), at any point."""
    step = sp.Matrix([l + sp.log(NEXT_HEIGHT / height), NEXT_Q.subs(height, sp.exp(l))])
    return step.jacobian([l, q]).subs(sp.exp(l), height)


def _linear_stability() -> Sequence[Step]:
    matrix = _jacobian().subs({q: 1, height: g})
    trace, determinant = sp.expand(matrix.trace()), sp.expand(matrix.det())
    power, overlap = sp.symbols("B K", positive=True)  # bᵀΣb and bᵀΣβ
    damping, force = lr * power, 4 * lr * (overlap - c * power) / c
    threshold = sp.solve((1 - determinant).subs({m: damping, g: force}), c)[0]
    return (
        Step("At rest, w = g and q = 1, the Jacobian in (ln w, q) has trace 2 − g/4 − m …", trace, 2 - g / 4 - m),
        Step("… and determinant 1 + 7g/4 − m.", determinant, 1 + 7 * g / 4 - m),
        Step("Both multipliers lie within the unit circle iff three numbers are positive (Jury): 1 − tr + det = 2g, …",
             1 - trace + determinant, 2 * g),
        Step("… 1 + tr + det, which bounds m from above by 2 + 3g/4, …",
             1 + trace + determinant, 2 * (2 + 3 * g / 4 - m)),
        Step("… and 1 − det, which bounds it from below by 7g/4.", 1 - determinant, m - 7 * g / 4),
        Step(
            "With m = ηbᵀΣb and g = 4η(bᵀΣβ − c bᵀΣb)/c the lower bound says that c is beyond 7/8 of the "
            "c_opt = bᵀΣβ/bᵀΣb that is best for the present b.",
            threshold,
            sp.Rational(7, 8) * overlap / power,
        ),
        Step(
            "They are a complex pair, an oscillation, of modulus √det iff (g/4 + m)² < 8g.",
            trace**2 - 4 * determinant,
            (g / 4 + m) ** 2 - 8 * g,
        ),
    )  # fmt: skip


def _area_law() -> Sequence[Step]:
    energy, top, x = sp.symbols("H W x", positive=True)
    orbit = sp.sqrt(energy - sp.exp(l) + g * l)
    area = 2 * sp.integrate(sp.sqrt(g * x), (x, 0, top / g))
    determinant = _jacobian().det().subs(q, sp.sqrt(1 + excess / 2))
    return (
        Step(
            "Anywhere else a step multiplies areas of the (ln w, q) plane by 1 + 7w/4 − m, to leading order; over an "
            "orbit e' = g − w makes the mean of w equal g. So A = ∮ e d ln w changes by 7g/4 − m a step at any height.",
            order_up_to(determinant, 2),
            1 + 7 * height / 4 - m,
        ),
        Step(
            "Of the orbit e² = H − w + g ln w, dA/dH is the period, since ∂e/∂H = 1/(2e) = 1/l'. So spikes are counted "
            "by n = ∫ dH/((7g/4 − m) A).",
            sp.diff(orbit, energy),
            1 / (2 * orbit),
        ),
        Step("Far above g the orbit is e² = W + g ln(w/W), of area (4/3) W^(3/2)/g, …",
             area, sp.Rational(4, 3) * top ** sp.Rational(3, 2) / g),
        Step(
            "… so that W^(−1/2) changes by (7/6)(m/(7g/4) − 1) a spike, in which W changes by (7g/4 − m) A.",
            sp.diff(1 / sp.sqrt(top), top) * (7 * g / 4 - m) * area,
            sp.Rational(7, 6) * (m / (7 * g / 4) - 1),
        ),
    )  # fmt: skip


def _response() -> Sequence[Step]:
    b, sigma, beta, force, s, multiplier = sp.symbols("b sigma beta D s lambda", positive=True)
    ordinary = COORDINATE_LOSS.subs({w: b, curvature: sigma, target: beta}, simultaneous=True)
    loss = ordinary + COORDINATE_LOSS.subs({w: s, curvature: alpha, target: 0}, simultaneous=True)
    # In ln s² and |s|: s' = −(1 − ηαc²) s near threshold.
    growth = 2 * sp.log(lr * sp.diff(loss, s) / s - 1)
    step = sp.Matrix([l + growth, c - lr * sp.diff(loss, c).subs(s, sp.exp(l / 2)), b - lr * sp.diff(loss, b)])
    threshold = sp.sqrt(2 / (lr * alpha))
    rest = {l: sp.log(force / (alpha * threshold)), c: threshold}
    matrix = step.jacobian([l, c, b]).subs(rest)
    rho = lr * threshold**2 * sigma
    gain = (lr * sigma * (beta - 2 * threshold * b)) ** 2
    damping = lr * sigma * b**2 - gain / (multiplier - 1 + rho)
    drive_units = 4 * lr * force / threshold
    reduced = (1 - multiplier) * (1 - drive_units / 4 - damping - multiplier) + 2 * drive_units
    return (
        Step(
            "One feature's b responding as it does in descent: the characteristic polynomial is that of b fixed with "
            "m replaced by ηbᵀΣb − (ησ(β − 2c*b))²/(λ − 1 + ρ), ρ = ηc*²σ; each further feature adds its own term. "
            "With λ near exp(iω), ω = √(2g), its real part is m_eff.",
            sp.expand((matrix - multiplier * sp.eye(3)).det()),
            sp.expand(sp.simplify((1 - rho - multiplier) * reduced)),
        ),
    )


def check() -> Sequence[Check]:
    """Descent beside the rest point, with b fixed and with b responding, and the count of large spikes."""
    return (_check_fixed(), _check_response(), _check_count(), _check_saturation())


def _check_fixed() -> Check:
    rng = np.random.default_rng(0)
    drive_units = 10 ** rng.uniform(-2, -1, 200)
    ratio = 1 + rng.choice([-1, 1], 200) * rng.uniform(0.03, 0.5, 200)
    damping = ratio * 7 * drive_units / 4
    orbit = _descend(drive_units, damping, drive_units * np.exp(1e-6), 3000)
    # Leading invariant of small oscillations: e² + g (Δ ln w)²/2.
    size = (4 * (orbit[:, 0] - 1)) ** 2 + drive_units / 2 * (orbit[:, 1] - np.log(drive_units)) ** 2
    grows = size[-300:].mean(0) > size[:300].mean(0)
    return Check(
        "b fixed: share of 200 starts, 3 to 50 % from the border, whose small oscillation goes the other way",
        float((edge_stability(drive_units, damping).stable == grows).mean()),
        0.0,
        float(((damping > 2 * drive_units) == grows).mean()),
        "border at m = 2g",
    )


def _check_response() -> Check:
    rng = np.random.default_rng(1)
    wrong, wrong_fixed, cases = 0, 0, 0
    for _ in range(400):
        model = Model(
            10 ** rng.uniform(0.7, 2, 1), rng.normal(size=8) * 3, power_law_covariance(8, rng.uniform(0.3, 2))
        )
        lr_ = 10 ** rng.uniform(-2.5, -1)
        threshold = np.sqrt(2 / (lr_ * model.alpha[0]))
        b = model.beta / threshold * (1 - 10 ** rng.uniform(-2.5, -0.3))
        free = State(threshold, b, np.zeros(1))
        units = edge_units(model, free, lr_)
        omega = np.sqrt(2 * units.drive)
        rest = State(threshold, b, np.sqrt(drive(model, free) / (model.alpha * threshold)))
        # A step of descent with s mirrored: the rest point is a fixed point of it in (c, s).
        mirrored = np.eye(10) - lr_ * hessian(model, rest)
        mirrored[-1] *= -1
        eigenvalues = np.linalg.eigvals(mirrored)
        found = eigenvalues[np.argmin(np.abs(eigenvalues - np.exp(1j * omega)))]
        rate = np.log(np.abs(found))
        # To first order in g the border itself is not sharp: with rates down to 0.001 ω, 1 of 307 is missorted.
        if not 1e-5 < units.drive < 0.1 or abs(found.imag) < 0.2 * omega or abs(rate) < 3e-3 * omega:
            continue
        cases += 1
        wrong += bool((effective_damping(model, rest, lr_) > 7 * units.drive / 4) != (rate < 0))
        wrong_fixed += bool((units.damping > 7 * units.drive / 4) != (rate < 0))
    return Check(
        f"b responding: share of {cases} states, rate over 0.003 ω, that m_eff > 7g/4 sorts unlike eigenvalues",
        wrong / cases,
        0.0,
        wrong_fixed / cases,
        "m in place of m_eff",
    )


def _check_count() -> Check:
    force = np.array([1e-3])
    damping = 2 * 7 * force / 4
    peaks = _peaks(_descend(force, damping, force * np.exp(-6.0), 5000)[:, 1, 0], force[0])
    last = int(np.argmax(peaks < 1.1 * force[0]))
    return Check(
        f"count of spikes until the peak is within 10 % of rest, {last} in descent: difference",
        float(abs(spikes_between(force, damping, peaks[0], peaks[last])[0] - last)),
        0.5,
        float(abs(spikes_between(force, damping + force / 4, peaks[0], peaks[last])[0] - last)),
        "7g/4 replaced by 6g/4",
    )


def _check_saturation() -> Check:
    force = np.array([0.01, 0.01])
    orbit = _descend(force, np.array([0.9, 1.1]) * 7 * force / 4, force * np.exp(-1.0), 20000)
    late = np.exp(orbit[-3000:, 1].max(0))
    return Check(
        "m = 0.9 · 7g/4, g = 0.01: spikes neither die out nor diverge; highest late w over 0.48, its logarithm",
        float(abs(np.log(late[0] / 0.48))),
        0.1,
        float(abs(np.log(late[1] / 0.48))),
        "m = 1.1 · 7g/4, where they die out",
    )


def _descend(drive_units: Array, damping: Array, start: Array, steps: int) -> Array:
    """(steps + 1, 2, n) c and ln w of descent on (c, s) at α = 1, η = 2, where c* = 1, w = 8s², g = 8D, m = 2bᵀΣb."""
    orbit = np.empty((steps + 1, 2, drive_units.size))
    orbit[0] = np.ones_like(drive_units), np.log(start)
    for t in range(steps):
        c_now, log_height = orbit[t]
        force = drive_units / 8 - damping / 2 * (c_now - 1)
        orbit[t + 1, 0] = c_now + 2 * (force - c_now * np.exp(log_height) / 8)
        orbit[t + 1, 1] = log_height + 2 * np.log(np.abs(1 - 2 * c_now**2))
    return orbit


def _peaks(log_height: Array, force: float) -> Array:
    inside = log_height[1:-1]
    top = (inside > log_height[:-2]) & (inside >= log_height[2:]) & (inside > np.log(force))
    return np.asarray(np.exp(inside[top]))


def applies(model: Model, state: State, lr: float) -> bool:
    """A rest point at c = c* for the present b: a drive above 0 there, and one pair oscillating."""
    if state.c <= 0 or model.alpha[0] == 0 or (state.s[..., 1:] != 0).any():
        return False
    return bool(edge_units(model, state, lr).drive > 0)


STATEMENT = Statement(
    name="T16",
    title="stability of the state at the edge",
    hypotheses=(
        "c > 0, D > 0 at c = c* = √(2/(ηα)), one pair oscillating. g = 4ηD(c*)/c*, m = ηbᵀΣb. First part: b fixed "
        "over an oscillation. Second part: b responding, the oscillation's rate small beside its frequency √(2g)."
    ),
    claim=(
        "b fixed: the state s² = D/(αc), c = c* is stable iff 7g/4 < m < 2 + 3g/4; the lower bound says c > (7/8) "
        "c_opt, c_opt = bᵀΣβ/bᵀΣb. ln of a small departure changes by ½ ln(1 + 7g/4 − m) a step, of period near "
        "2π/√(2g). Large spikes: A = ∮ e d ln w changes as exp((7g/4 − m)t), which counts the spikes, n = ∫ "
        "dH/((7g/4 − m) A). b responding: the same with m_eff = ηbᵀΣb − Re Σ_i (ησ_i(β_i − 2c*b_i))²/(exp(i√(2g)) − "
        "1 + ηc*²σ_i)."
    ),
    status=Status.CHECKED,
    source="the setting's notes for what is seen; derived here",
    applies=applies,
    derivation=derivation,
    check=check,
    remarks=(
        "The border for b fixed is proved; the area law is leading order and the replacement of λ by exp(i√(2g)) "
        "first order in g. As first written: with D held the spikes grow until the run diverges, with D falling as c "
        "rises they die out. The first is what is seen; the second holds only for m > 7g/4. Counterexample: g = "
        "0.01, m = 0.9 · 7g/4 spikes for ever, to heights of w = 0.48. The run diverges for small m/(7g/4) only (0.1 "
        "and below at g = 0.01); just below the border heights saturate. b's response takes damping away: the state "
        "can be unstable though m > 7g/4. Seen, not derived: a falling drive makes the relative oscillation of s² "
        "grow as g^(−1/4). Peaks are compared at the same phase, so none of T10's correction enters the count."
    ),
)
