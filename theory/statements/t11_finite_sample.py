"""T11: on a finite sample s trails the valley's floor smoothly; the oscillation grows from residue or rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import sympy as sp

from theory.finite_sample import SampleMoments, lag_series, sample_descent
from theory.model import Model, State, drive, power_law_covariance
from theory.onset import Onset, observed_onset, sample_onset
from theory.statements.base import Check, Statement, Status, Step
from theory.symbolic import Array
from theory.unequal_groups import biased_amplitude, biased_edge

_S, _v, _w, _M, _Y, b, s, beta, delta = sp.symbols("S v w M Y b s beta delta", real=True)
alpha, c, lr = sp.symbols("alpha c eta", positive=True)


def derivation() -> Sequence[Step]:
    """Floor and exact recursion; the lag; what noise adds; unequal groups."""
    return (*_floor_and_lag(), *_seeds(), *_unequal_groups())


def _floor_and_lag() -> Sequence[Step]:
    """From the mean square on the sample to the lag's first two orders."""
    slope = sp.diff(_sample_loss(), s)
    floor = (_M - c * b * _v) / (alpha * c)
    floors, x = sp.symbols("s*_t s*_{t+1}", real=True), sp.Symbol("x", positive=True)
    stepped = (s - lr * slope).subs(_M, sp.solve(sp.Eq(floor, floors[0]), _M)[0]).subs(lr, x / (alpha * c**2))
    m, path = sp.Symbol("m", real=True), sp.Function("c", positive=True)
    t = sp.Symbol("t", real=True)
    # c s* constant, so that s*' = d(δ/c)/dt, and x = αc² dt in flow time
    lag_of_flow = -sp.diff(delta / path(t), t) / (alpha * path(t) ** 2)
    first, second, expected = _slow_lag()
    return (
        Step("On a sample, ∂_s L = αc²(s − s*) with s* = (M − c bᵀv)/(αc).", slope, alpha * c**2 * (s - floor)),
        Step(
            "For y = βᵀx + |o|, M = m + vᵀβ with m = mean o|o|: the chance correlation leaves the floor as cb → β.",
            (c * floor).subs({_M: m + _v * beta, b: beta / c}),
            m / alpha,
        ),
        Step(
            "Exact recursion with x = ηαc²: s_{t+1} − s*_{t+1} = (1 − x)(s_t − s*_t) − (s*_{t+1} − s*_t).",
            stepped - floors[1],
            (1 - x) * (s - floors[0]) - (floors[1] - floors[0]),
        ),
        Step("Slow drift, first order in its rate: the lag is −s*'/x.", first[0], first[1]),
        Step("Second order: s*''(1/x² − 1/(2x)) − x's*'/x³, whose s*'' part vanishes at x = 2.", second, expected),
        Step(
            "With cs* constant the first-order lag of the flow is s* c'/(αc³).",
            lag_of_flow,
            delta / path(t) * sp.diff(path(t), t) / (alpha * path(t) ** 3),
        ),
    )


def _seeds() -> Sequence[Step]:
    """Variance of the noise a step adds, its sum, and the wait on a steady ramp."""
    x, k, n, power = sp.symbols("x k n q", real=True)
    sigma, rho, variance = sp.symbols("sigma rho V", positive=True)
    normal = sp.exp(-(n**2) / 2) / sp.sqrt(2 * sp.pi)
    # a² = V at this step, plus independent noise: mean of ((1 − x) √V + σ n)²
    square = ((1 - x) * sp.sqrt(variance) + sigma * n) ** 2
    # E|N|^{2q} = 2^q Γ(q + ½)/√π, whose derivative at q = 0 is E ln N²
    moment = 2**power * sp.gamma(power + sp.Rational(1, 2)) / sp.sqrt(sp.pi)
    u, branch = sp.symbols("u W", positive=True)
    tau = (sp.exp(1 + branch) - 1) / rho
    # ρL from W₀((ρL − 1)/e) = W, that is W e^W = (ρL − 1)/e
    length = (1 + sp.E * branch * sp.exp(branch)) / rho
    area = sp.integrate(sp.log(1 + rho * u), (u, 0, sp.Symbol("tau", positive=True)))
    return (
        Step(
            "Noise of variance σ² a step: V_{t+1} = (1 − x)² V_t + σ².",
            sp.integrate(sp.expand(square * normal), (n, -sp.oo, sp.oo)),
            (1 - x) ** 2 * variance + sigma**2,
        ),
        Step(
            "Carried to the crossing on a ramp of ρ a step, noise of k steps away weighs e^(−ρk²): √(π/ρ) σ² in all.",
            sp.integrate(sigma**2 * sp.exp(-rho * k**2), (k, -sp.oo, sp.oo)),
            sigma**2 * sp.sqrt(sp.pi / rho),
        ),
        Step(
            "A typical square is exp(E ln N²) = e^(−γ)/2 of the mean one.",
            sp.exp(sp.diff(sp.log(moment), power).subs(power, 0)).rewrite(sp.EulerGamma),
            sp.exp(-sp.EulerGamma) / 2,
        ),
        Step(
            "Growth by e^L on that ramp takes τ = (exp(1 + W₀((ρL − 1)/e)) − 1)/ρ: ∫₀^τ ln(1 + ρu) du = L.",
            area.subs(sp.Symbol("tau", positive=True), tau),
            length,
        ),
    )


def _unequal_groups() -> Sequence[Step]:
    """Groups of unequal size in the population: floor, edge, amplitude."""
    loss = alpha / 2 * (c**2 * s**2 - 2 * delta * c * s + 1)
    plus, minus, p = (1 - c * s) ** 2, (1 + c * s) ** 2, sp.Symbol("p", positive=True)
    # p± = p(1 ± δ)/2 and ℓ± = α/(2p) (1 ∓ cs)²
    mixture = p * (1 + delta) / 2 * alpha / (2 * p) * plus + p * (1 - delta) / 2 * alpha / (2 * p) * minus
    curvature = sp.hessian(loss, (s, c)).subs(s, delta / c)
    a, mean_s, sign = sp.symbols("a s_0 sigma", real=True)
    # s = s_0 + σa, c = c + σ aδ/c², σ = ±1; s_0 is what leaves ∂_s L no mean
    at = {s: mean_s + sign * a, c: c + sign * a * delta / c**2}
    slopes = [sp.expand(sp.diff(loss, q).subs(at, simultaneous=True)) for q in (s, c)]
    means = [sum(slope.subs(sign, sigma) for sigma in (1, -1)) / 2 for slope in slopes]
    # leading order in a
    offset = sp.Symbol("epsilon", positive=True)
    shift = sp.solve(
        sp.expand(means[0].subs({a: offset * a, mean_s: delta / c + offset**2 * mean_s})).coeff(offset, 2), mean_s
    )
    second = sp.expand(means[1].subs({a: offset * a, mean_s: delta / c + offset**2 * shift[0]})).coeff(offset, 2)
    return (
        Step("Unequal groups, δ = (p₊ − p₋)/p: p₊ℓ₊ + p₋ℓ₋ = (α/2)(c²s² − 2δcs + 1).", sp.expand(mixture), loss),
        Step("The floor is at cs = δ.", c * sp.solve(sp.diff(loss, s), s)[0], delta),
        Step("The floor's loss is 2αp₊p₋/p² = α(1 − δ²)/2.", loss.subs(s, delta / c), alpha * (1 - delta**2) / 2),
        Step(
            "Its Hessian over (s, c) has rank one and eigenvalue α(c² + δ²/c²): trace,",
            curvature.trace(),
            alpha * (c**2 + delta**2 / c**2),
        ),
        Step("and determinant.", curvature.det(), sp.Integer(0)),
        Step(
            "Two-cycle s ± a, c ± aδ/c²: the mean of ∂_c L vanishes at D = αc a²(1 − δ⁴/c⁸), to leading order.",
            second,
            alpha * c * a**2 * (1 - delta**4 / c**8),
        ),
    )


def _sample_loss() -> sp.Expr:
    """Mean of ½(c(bx + so) − y)², the mean taken monomial by monomial."""
    x, o, y = sp.symbols("x o y")
    moments = {(2, 0, 0): _S, (1, 1, 0): _v, (0, 2, 0): alpha, (0, 1, 1): _M, (1, 0, 1): _w, (0, 0, 2): _Y}
    terms = sp.Poly((c * (b * x + s * o) - y) ** 2 / 2, x, o, y).terms()
    return sum(coefficient * moments[powers] for powers, coefficient in terms)


def _slow_lag() -> tuple[tuple[sp.Expr, sp.Expr], sp.Expr, sp.Expr]:
    """Solves δ(t+1) = (1 − x)δ(t) − (s*(t+1) − s*(t)) for s*(εt), x(εt) in powers of ε, by Taylor's formula."""
    tau, epsilon = sp.symbols("tau epsilon", positive=True)
    floor, x = sp.Function("s*")(tau), sp.Function("x")(tau)
    one, two = sp.Function("d_1")(tau), sp.Function("d_2")(tau)

    def ahead(f: sp.Expr) -> sp.Expr:
        return f + epsilon * sp.diff(f, tau) + epsilon**2 * sp.diff(f, tau, 2) / 2

    lag = epsilon * one + epsilon**2 * two
    left = sp.expand(ahead(lag) - (1 - x) * lag + ahead(floor) - floor)
    first = sp.solve(left.coeff(epsilon, 1), one)[0]
    second = sp.solve(left.coeff(epsilon, 2).subs(one, first).doit(), two)[0]
    slope, bend = sp.diff(floor, tau), sp.diff(floor, tau, 2)
    expected = bend * (1 / x**2 - 1 / (2 * x)) - sp.diff(x, tau) * slope / x**3
    return (first, -slope / x), second, expected


def check() -> Sequence[Check]:
    """Floor on raw data, the lag's order, onset steps, the edge of unequal groups."""
    return (_check_floor(), _check_lag(), _check_onset(), _check_amplitude())


def _check_floor() -> Check:
    x, o, y, start, _, beta_hat = next(_draws(1, seed=5))
    moments = SampleMoments.from_samples(x, o, y)
    c0, b0, s0 = float(start.c), start.b, float(start.s[0])
    slope = np.mean(c0 * o * (c0 * (x @ b0 + s0 * o) - y))
    curvature = moments.alpha * c0**2
    bare = (moments.alpha * moments.imbalance(beta_hat) - c0 * moments.cross @ b0) / (moments.alpha * c0)
    return Check(
        "floor: relative error of αc²(s − s*) against mean ∂_s ½(f − y)² on the examples",
        float(abs(curvature * (s0 - moments.floor(start)) / slope - 1)),
        1e-10,
        float(abs(curvature * (s0 - bare) / slope - 1)),
        "m in place of M = m + vᵀβ",
    )


def _check_lag() -> Check:
    errors, sizes = [], (200.0, 400.0, 800.0)
    for size in sizes:
        errors.append([_lag_error(size, order) for order in (1, 2)])
    slopes = [-np.polyfit(np.log(sizes), np.log([e[i] for e in errors]), 1)[0] for i in (0, 1)]
    return Check(
        "lag: distance from 3 of the order, in the drift's rate, of what two terms of the series leave",
        float(abs(slopes[1] - 3)),
        0.1,
        float(abs(slopes[0] - 3)),
        "one term",
    )


def _lag_error(alpha_: float, order: int) -> float:
    """Largest error of the series where ηαc² rises from 1.2 to 1.8; the drift's rate goes like 1/α."""
    model = Model(np.array([alpha_]), np.array([3.0, 1.0, -0.5]), power_law_covariance(3, 0.5))
    lr_ = 2 / (alpha_ * 1.9)
    state = sample_descent(
        SampleMoments.from_model(model, 0.1),
        State(np.array(1.0), np.full(3, 0.15), np.array([0.5])),
        lr_,
        int(3 * alpha_),
    ).state
    rate = lr_ * alpha_ * state.c**2
    lag = lag_series(0.1 / state.c, rate, order)
    error = np.abs(state.s[: lag.size, 0] - 0.1 / state.c[: lag.size] - lag)
    steps = np.arange(lag.size)
    top = np.argmax(rate > 1.8)
    rising = np.flatnonzero((rate[: lag.size] > 1.2) & (steps < top) & (steps > rate[:top].argmin()))
    return float(error[rising[rising.size // 8 :]].max())


def _check_onset() -> Check:
    """Misses of the stated error, and those of the lag as the seed."""
    missed, missed_by_lag, runs = 0, 0, 0
    for x, o, y, start, lr_, _ in _draws(30, seed=7):
        moments = SampleMoments.from_samples(x, o, y)
        state = sample_descent(moments, start, lr_, 2500).state
        seen = observed_onset(moments, state, lr_)
        if seen.step is None:
            continue
        predicted = sample_onset(moments, start, lr_)
        runs += 1
        missed += predicted.step is None or abs(predicted.step - seen.step) > predicted.error
        missed_by_lag += abs(_onset_from_lag(moments, state, lr_, seen) - seen.step) > predicted.error
    return Check(
        "onset: share of random samples whose onset lies outside the predicted step's stated error",
        missed / runs,
        0.25,
        missed_by_lag / runs,
        "the lag at the crossing as the seed, as first written",
    )


def _onset_from_lag(moments: SampleMoments, state: State, lr_: float, seen: Onset) -> int:
    """The onset if the oscillation grew from the lag at the crossing, along the c of the run itself."""
    end, crossing = (seen.step or 0) + 300, seen.crossing_step or 0
    state = State(state.c[:end], state.b[:end], state.s[:end])
    floor = moments.floor(state)
    rate = lr_ * moments.alpha * state.c**2
    log_a = np.log(abs((floor[crossing + 1] - floor[crossing]) / rate[crossing]))
    growth = np.concatenate([[0.0], np.cumsum(np.log(np.abs(1 - rate[crossing:-1]) + 1e-300))])
    with np.errstate(over="ignore", invalid="ignore"):  # the end of a diverging run
        visible = moments.drive(state)[crossing:] / (moments.alpha * state.c[crossing:])
    reached = np.flatnonzero((visible > 0) & (2 * (log_a + growth) > np.log(np.where(visible > 0, visible, 1.0))))
    return crossing + int(reached[0]) if reached.size else state.c.size


def _check_amplitude() -> Check:
    size, imbalance, d1 = 100.0, 0.8, 100
    rng = np.random.default_rng(0)
    beta_, b_ = rng.normal(size=(2, d1))
    model = Model(np.array([size]), 4 * beta_ / np.linalg.norm(beta_), power_law_covariance(d1, 1.0))
    # the step size for which the edge is at c² = 1.1²
    lr_ = 2 / (size * (1.1**2 + imbalance**2 / 1.1**2))
    start = State(np.array(1.0), 0.3 * b_ / np.linalg.norm(b_), np.array([0.3]))
    state = sample_descent(SampleMoments.from_model(model, imbalance), start, lr_, 9000).state
    late = State(state.c[6000:], state.b[6000:], state.s[6000:])
    square = np.mean(((2 * late.s[1:-1] - late.s[2:] - late.s[:-2]) / 4) ** 2)
    c_mean = (late.c[:-1] + late.c[1:]) / 2
    middle = State(c_mean, (late.b[:-1] + late.b[1:]) / 2, late.s[1:])
    plain = np.mean(drive(model, middle) / (size * c_mean))
    edge_error = abs(np.mean(c_mean**2) / float(biased_edge(size, lr_, imbalance)) - 1)
    return Check(
        "unequal groups (δ = 0.8): relative error of a² = D/(αc(1 − δ⁴/c⁸)) and of c² at the edge, the larger",
        float(max(abs(square / np.mean(biased_amplitude(model, middle, imbalance)) - 1), edge_error)),
        0.01,
        float(abs(square / plain - 1)),
        "a² = D/(αc)",
    )


def _draws(count: int, seed: int) -> Iterator[tuple[Array, Array, Array, State, float, Array]]:
    """Random samples x, o, y with a start, a step size whose edge c reaches, and β."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        n, d1, p = int(rng.integers(200, 2000)), int(rng.integers(3, 8)), rng.uniform(0.05, 0.3)
        size = float(np.exp(rng.uniform(np.log(20), np.log(200))))
        beta_, b_ = rng.normal(size=(2, d1))
        beta_ *= rng.uniform(2, 5) / np.linalg.norm(beta_)
        s_ = rng.uniform(0.6, 0.95)
        x = rng.normal(size=(n, d1))
        o = np.where(rng.random(n) < p, np.sqrt(size / p) * rng.choice([-1.0, 1.0], size=n), 0.0)
        start = State(np.array(1.0), b_ * np.sqrt(1 - s_**2) / np.linalg.norm(b_), np.array([s_]))
        lr_ = 2 / (size * (1 + rng.uniform(0.2, 0.8) * (np.linalg.norm(beta_) - 1)))
        yield x, o, x @ beta_ + np.abs(o), start, float(lr_), beta_


def applies(model: Model, state: State, lr: float) -> bool:
    """One opposing pair that acts at all, and a last layer that does not vanish."""
    return bool(model.alpha.size == 1 and model.alpha[0] > 0 and np.all(state.c != 0) and lr > 0)


STATEMENT = Statement(
    name="T11",
    title="finite sample: floor, lag and onset",
    hypotheses=(
        "Squared loss on any finite sample with one opposing coordinate o = uᵀx_o, c ≠ 0; G = mean zzᵀ and h = mean zy "
        "of z = (x, o), with v = mean xo, α = mean o², M = mean oy. For the lag: slow drift, 0 < ηαc². For unequal "
        "groups: the population with δ = (p₊ − p₋)/p, c⁴ > δ², slow D > 0."
    ),
    claim=(
        "∂_s L = αc²(s − s*) with s* = (M − c bᵀv)/(αc), and cs* → m/α, m = mean o|o|, as cb → β: (n₊ − n₋)/(n₊ + n₋) "
        "for outliers of equal size. s trails the floor by −Δs*/(ηαc²), next orders in the series Σ(−(1/x)Δ)^k s*. The "
        "oscillation grows from the larger of the residue |s_0 − s*_0|∏|1 − ηαc_t²| and what each step adds, "
        "V_{t+1} = (1 − ηαc²)²V_t + σ² (rounding, noise). Unequal groups: floor cs = δ, edge at c² + δ²/c² = 2/(ηα), "
        "amplitude a² = D/(αc(1 − δ⁴/c⁸)); the groups trade places each step, to leading order in a, if and only if "
        "a(c + δ²/c³) > |δ|."
    ),
    status=Status.CORRECTED,
    source="derived here; delayed loss of stability is classical",
    applies=applies,
    derivation=derivation,
    check=check,
    remarks=(
        "As first written: the lag of s behind s* is what the oscillation grows from, so that it sets the delay "
        "between the crossing of 2/η and the visible onset. To first order the lag is as written, but it is smooth and "
        "does not alternate, and the onset depends on the arithmetic, which the lag does not. Counterexample: one "
        "sample of 2,000 examples at α = 158.4 crosses at step 132 with Δs* = 3.777e-4 in every arithmetic; the onset "
        "is at step 172 in float32, 200 in float64, 209 in 80-bit (predicted 172, 201, 211). The first floor, "
        "(m − c bᵀv)/(αc), lacked vᵀβ. "
        "What the prediction leaves: of 400 random samples in float64 the onset lay within max(5, 4 % of the delay) "
        "steps of the prediction in 96 % of those where rounding is the seed, and within max(5, 20 % of the delay) in "
        "92 % of those where the residue is; the median miss was 1 step, the largest 21 (108 in 530 other samples), "
        "mostly a run earlier than predicted; one onset in 400 was predicted not to come at all. Left out: a part that "
        "the moving floor excites beyond all orders of the series; it shows in exact arithmetic, or at small α with "
        "strongly unequal groups. The sample matters for the onset because its floor makes the gradient a difference "
        "of terms of order 1, whose rounding is absolute; the population with equal groups has no such floor, and "
        "there s can underflow to 0 and never return."
    ),
)
