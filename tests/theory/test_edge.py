"""The slow state and its stability against descent written out here, finite differences and a simulated response."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from strategies import finite

from theory import InputError, Model, State, drive
from theory.edge import (
    edge_stability,
    edge_units,
    effective_damping,
    settled,
    slow_state,
    spikes_between,
)


def _map(q: float, l: float, g: float, m: float) -> tuple[float, float]:
    """Descent with b fixed in units of the threshold, in ln w."""
    return q * (1 - math.exp(l) / 4) + g / 4 - m * (q - 1), l + 2 * math.log(abs(2 * q * q - 1))


def _descent(model: Model, c: float, b: np.ndarray, s: float, lr: float, steps: int) -> State:
    """Descent on (c, b, s), one pair, as the setting writes it."""
    alpha, sigma, beta = model.alpha[0], model.covariance, model.beta
    rows = []
    for _ in range(steps):
        rows.append((c, b, s))
        residual = beta - c * b
        c, b, s = (
            c + lr * (b @ (sigma * residual) - alpha * c * s * s),
            b + lr * c * sigma * residual,
            (1 - lr * alpha * c * c) * s,
        )
    return State(
        np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), np.array([[r[2]] for r in rows], dtype=float)
    )


def _state_with_drive(model: Model, c: np.ndarray, force: np.ndarray, s: np.ndarray) -> State:
    """States of a one-feature model whose drive b(β − cb) is the one given: the larger root b."""
    beta = model.beta[0]
    b = (beta + np.sqrt(beta**2 - 4 * c * force)) / (2 * c)
    return State(c, b[:, None], s[:, None])


@given(
    alpha=finite(0.1, 100),
    lr=finite(1e-3, 1),
    b=finite(-3, 3),
    s=finite(-2, 2),
    beta=finite(-5, 5),
    sigma=finite(0, 3),
    relative=finite(0.5, 1.5),
)
def test_units_turn_a_step_of_descent_with_b_fixed_into_the_map(
    alpha: float, lr: float, b: float, s: float, beta: float, sigma: float, relative: float
) -> None:
    assume(abs(s) > 1e-100)  # the square must be a normal number
    c = relative * math.sqrt(2 / (lr * alpha))
    model = Model([alpha], [beta], [sigma])
    now = edge_units(model, State(c, [b], [s]), lr)
    new_c = c + lr * (b * sigma * (beta - c * b) - alpha * c * s * s)
    new_s = (1 - lr * alpha * c * c) * s
    new = edge_units(model, State(new_c, [b], [new_s]), lr)
    q, g, m, w = relative, float(now.drive), float(now.damping), float(now.height)
    expected_q = q * (1 - w / 4) + g / 4 - m * (q - 1)
    scale = 1 + abs(q) + w + abs(g) + m
    assert new.excess == pytest.approx(2 * expected_q**2 - 2, abs=1e-11 * scale**2)
    assert new.height == pytest.approx((2 * q * q - 1) ** 2 * w, rel=1e-9, abs=1e-12 * w)
    assert (new.drive, new.damping) == (now.drive, now.damping)


@given(e=finite(-0.02, 0.02), alpha=finite(1, 100), lr=finite(1e-3, 0.3), level=finite(0.01, 0.2))
def test_a_drive_of_constant_relative_rate_moves_the_slow_state_exactly(
    e: float, alpha: float, lr: float, level: float
) -> None:
    model, steps = Model([alpha], [3.0], [1.0]), 12
    c0 = math.sqrt((2 + e) / (lr * alpha))
    force = level * 9 / (4 * c0) * (1 + e) ** (2 * np.arange(steps))
    c, s = c0, math.sqrt(force[0] / (alpha * c0))
    cs, ss = [], []
    for value in force:
        cs.append(c)
        ss.append(s)
        c, s = c + lr * (value - alpha * c * s * s), (1 - lr * alpha * c * c) * s
    states = _state_with_drive(model, np.array(cs), force, np.array(ss))
    slow = slow_state(model, states, lr)
    np.testing.assert_allclose(slow.excess, e, atol=1e-10)
    np.testing.assert_allclose(slow.leading, np.array(ss[:-2]) ** 2, rtol=1e-8)
    g = 4 * lr * force[:-2] / math.sqrt(2 / (lr * alpha))
    np.testing.assert_allclose(slow.correction * g, 0, atol=1e-10)


def _errors_of_a_slow_drive(rate: float) -> tuple[float, float, float]:
    """Errors of s² = D/(αc), of its correction and of e_slow while ln D swings by 0.2 at a rate, well damped."""
    alpha, lr, g = 50.0, 0.04, 0.01
    model, threshold = Model([alpha], [9.0], [1.0]), math.sqrt(2 / (0.04 * 50.0))
    steps = int(14 / rate)
    base = g * threshold / (4 * lr) * np.exp(0.2 * np.tanh(rate * np.arange(steps) - 6))
    slope = 4 * 7 * g / 4 / lr
    c, s = threshold, math.sqrt(base[0] / (alpha * threshold))
    rows = np.empty((steps, 3))
    for t in range(steps):
        force = base[t] - slope * (c - threshold)
        rows[t] = c, s, force
        c, s = c + lr * (force - alpha * c * s * s), (1 - lr * alpha * c * c) * s
    states = _state_with_drive(model, rows[:, 0], rows[:, 2], rows[:, 1])
    slow = slow_state(model, states, lr)
    square, excess = rows[:-2, 1] ** 2, lr * alpha * rows[:-2, 0] ** 2 - 2
    return (
        float(np.abs(square / slow.leading - 1).max()),
        float(np.abs(square / slow.amplitude - 1).max()),
        float(np.abs(excess - slow.excess).max()),
    )


def test_the_correction_raises_the_order_in_slowness() -> None:
    rates = np.array([0.002, 0.004, 0.008])
    errors = np.log(np.array([_errors_of_a_slow_drive(r) for r in rates]))
    leading, corrected, excess = np.polyfit(np.log(rates), errors, 1)[0]
    assert leading == pytest.approx(2, abs=0.15)
    assert corrected > 2.8
    assert excess > 2.8  # e itself is of order 1


@given(
    alpha=finite(20, 200),
    lr=finite(0.005, 0.06),
    power=finite(0.5, 1.5),
    distance=finite(0.03, 0.15),
    kick=finite(0.8, 1.25),
    seed=st.integers(0, 99),
)
@example(alpha=50.0, lr=0.04, power=1.0, distance=0.1, kick=1.1, seed=0)
def test_where_the_hypotheses_hold_the_amplitude_is_right_to_one_percent(
    alpha: float, lr: float, power: float, distance: float, kick: float, seed: int
) -> None:
    beta = np.random.default_rng(seed).normal(size=30)
    model = Model([alpha], 3 * beta / np.linalg.norm(beta), np.arange(1, 31.0) ** -power)
    c = math.sqrt(2 / (lr * alpha))
    b = (1 - distance) * model.beta / c
    force = float(b @ (model.covariance * (model.beta - c * b)))
    states = _descent(model, c, b, math.sqrt(kick * force / (alpha * c)), lr, 1200)
    if not np.isfinite(states.vector).all():
        states = State(states.c[:50], states.b[:50], states.s[:50])
    where = settled(model, states, lr)
    d = drive(model, states)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.abs(alpha * states.c * states.s[:, 0] ** 2 / d - 1)
    assert (deviation[where] < 0.01).all()
    if (alpha, kick) == (50.0, 1.1):
        assert where.sum() > 100
        assert (deviation > 0.03).any()


def test_settled_is_the_rule_checked_step_by_step() -> None:
    model, lr = Model([50.0], [3.0, 1.0], [1.0, 0.1]), 0.04
    c = 1.0
    b = 0.9 * model.beta
    states = _descent(model, c, b, math.sqrt(1.02 * float(drive(model, State(c, b, [0.0]))) / 50), lr, 400)
    d, e = drive(model, states), lr * 50 * states.c**2 - 2
    g = 4 * lr * d
    n = 398
    second = np.array([np.log(d[t + 2] * d[t] / d[t + 1] ** 2) for t in range(n)])
    off = np.array([e[t] - (math.sqrt(d[t + 1] / d[t]) - 1) for t in range(n)])
    good = (np.abs(second) < 0.006 * g[:n]) & (np.abs(off) < 0.006 * np.sqrt(g[:n] / 2))
    expected = [
        t < n and good[t] and t + math.ceil(2 * math.pi / math.sqrt(2 * g[t])) <= n
        and good[t : t + math.ceil(2 * math.pi / math.sqrt(2 * g[t]))].all()
        for t in range(400)
    ]  # fmt: skip
    np.testing.assert_array_equal(settled(model, states, lr), expected)
    assert 0 < sum(expected) < n


@given(g=finite(1e-6, 2), m=finite(-1, 4))
@example(g=0.04, m=0.0701)
@example(g=0.04, m=0.0699)
@example(g=0.4, m=2.29)
@example(g=0.4, m=2.31)
@example(g=0.02, m=0.395)  # just over-damped
def test_stability_is_that_of_the_maps_jacobian(g: float, m: float) -> None:
    h, l = 1e-6, math.log(g)
    columns = []
    for dl, dq in ((h, 0.0), (0.0, h)):
        (q1, l1), (q0, l0) = _map(1 + dq, l + dl, g, m), _map(1 - dq, l - dl, g, m)
        columns.append([(l1 - l0) / (2 * h), (q1 - q0) / (2 * h)])
    eigenvalues = np.linalg.eigvals(np.array(columns).T)
    modulus = np.abs(eigenvalues).max()
    result = edge_stability(g, m)
    if abs(modulus - 1) > 1e-7:
        assert result.stable == (modulus < 1)
    # Near a double eigenvalue finite differences see only the square root of their accuracy.
    assert math.exp(-result.decay) == pytest.approx(modulus, rel=1e-4)
    assert abs(result.multiplier) == pytest.approx(math.exp(-result.decay), rel=1e-12)
    if abs(eigenvalues[0].imag) > 1e-3:
        assert result.period == pytest.approx(2 * np.pi / abs(np.angle(eigenvalues[0])), rel=1e-4)
        assert result.decay_per_spike == pytest.approx(result.decay * result.period)


@given(g=finite(1e-3, 0.03), margin=finite(0.05, 0.5), below=st.booleans(), depth=finite(0.1, 4))
def test_large_spikes_shrink_iff_the_rest_point_is_stable(g: float, margin: float, below: bool, depth: float) -> None:
    m = 7 * g / 4 * (1 - margin if below else 1 + margin)
    # Below the border heights saturate near (70/23)(1 − r); stay well under that.
    assume(not below or depth < math.log(1 + 0.3 * margin / g))
    peaks = _peaks(g, m, depth, spikes=12)
    assert (peaks[-1] < peaks[0]) == bool(edge_stability(g, m).stable)


def _peaks(g: float, m: float, depth: float, spikes: int, floor: float = 0.0) -> list[float]:
    """Heights of the first spikes that start at rest's c and a depth below rest's ln w."""
    q, l, best, peaks = 1.0, math.log(g) - depth, -math.inf, []
    while len(peaks) < spikes:
        q, l = _map(q, l, g, m)
        best = max(best, l)
        if l < math.log(g) < best:
            peaks.append(math.exp(best))
            best = -math.inf
            if peaks[-1] < floor:
                break
    return peaks


@pytest.mark.parametrize(
    ("g", "ratio", "depth"), [(1e-3, 1.3, 3), (1e-3, 2, 6), (3e-4, 1.5, 8), (3e-3, 3, 5), (1e-2, 1.5, 20)]
)
def test_the_area_law_counts_the_spikes_until_settled(g: float, ratio: float, depth: float) -> None:
    m = 7 * g / 4 * ratio
    peaks = _peaks(g, m, depth, 200, floor=1.1 * g)
    assert spikes_between(g, m, peaks[0], peaks[-1]) == pytest.approx(len(peaks) - 1, abs=0.3)


def test_growing_spikes_are_counted_too() -> None:
    peaks = _peaks(1e-3, 0.0, 1.0, 14)
    assert spikes_between(1e-3, 0.0, peaks[0], peaks[-1]) == pytest.approx(13, abs=0.3)
    assert spikes_between(1e-3, 0.0, peaks[-1], peaks[0]) == np.inf
    assert spikes_between(1e-3, 0.1, peaks[0], peaks[0]) == 0


@given(g=finite(1e-6, 0.1), ratio=finite(1.1, 10))
def test_the_count_has_its_two_limits(g: float, ratio: float) -> None:
    m = 7 * g / 4 * ratio
    small = np.log(1e-3 / 1e-4) * np.sqrt(2 * g) / (np.pi * (m - 7 * g / 4))
    assert spikes_between(g, m, g * math.exp(1e-3), g * math.exp(1e-4)) == pytest.approx(small, rel=1e-3)
    w0, w1 = 1e8 * g, 1e6 * g
    large = (w1**-0.5 - w0**-0.5) / (7 / 6 * (ratio - 1))
    assert spikes_between(g, m, w0, w1) == pytest.approx(large, rel=1e-4)


@given(
    alpha=finite(2.5, 30),
    lr=finite(1e-3, 0.1),
    omega=finite(0.05, 1.0),
    beta=st.lists(finite(-3, 3), min_size=3, max_size=3),
    closeness=finite(0.3, 1.0),
)
def test_effective_damping_is_the_in_phase_response_of_the_drive(
    alpha: float, lr: float, omega: float, beta: list[float], closeness: float
) -> None:
    model = Model([alpha], beta, [1.0, 0.6, 0.3])
    c = math.sqrt(2 / (lr * alpha))
    b = closeness * model.beta / c
    assume(np.abs(b).max() > 0.05)
    sigma, small, steps, settle = model.covariance, 1e-6, 3000, 2500
    # c is shaken by hand; b answers as in descent, its drift at the base point taken out.
    drift = lr * c * sigma * (model.beta - c * b)
    moved, response = b.copy(), np.empty(steps)
    base = b @ (sigma * (model.beta - c * b))
    for t in range(steps):
        there = c * (1 + small * math.cos(omega * t))
        residual = model.beta - there * moved
        response[t] = -lr * (moved @ (sigma * residual) - base) / (small * c)
        moved = moved + lr * there * sigma * residual - drift
    time = omega * np.arange(settle, steps)
    design = np.stack([np.cos(time), np.sin(time), np.ones_like(time)], axis=1)
    in_phase = np.linalg.lstsq(design, response[settle:], rcond=None)[0][0]
    scale = lr * float((sigma * (np.abs(b) + np.abs(model.beta)) ** 2 + sigma * b * b).sum()) * (1 + 1 / omega)
    found = effective_damping(model, State(c, b, [0.0]), lr, omega)
    assert found == pytest.approx(in_phase, abs=1e-4 * scale)


def test_effective_damping_gives_the_rate_to_first_order_in_the_drive() -> None:
    model = Model([20.0], [2.0, -1.0, 1.5], [1.0, 0.3, 0.05])
    drives, errors = [], []
    for lr in (0.02, 0.01, 0.005, 0.0025):  # g and m fall as the square of the step size
        c = math.sqrt(2 / (lr * 20.0))
        b = 0.9 * model.beta / c
        state = State(c, b, [0.0])
        g = float(edge_units(model, state, lr).drive)
        s = math.sqrt(float(drive(model, state)) / (20 * c))

        def step(v: np.ndarray, lr: float = lr) -> np.ndarray:
            residual = model.beta - v[0] * v[1:4]
            return np.concatenate(
                [
                    [v[0] + lr * (v[1:4] @ (model.covariance * residual) - 20 * v[0] * v[4] ** 2)],
                    v[1:4] + lr * v[0] * model.covariance * residual,
                    [-(1 - lr * 20 * v[0] ** 2) * v[4]],
                ]
            )

        v = np.concatenate([[c], b, [s]])
        jacobian = np.stack([(step(v + d) - step(v - d)) / 2e-6 for d in 1e-6 * np.eye(5)], axis=1)
        eigenvalues = np.linalg.eigvals(jacobian)
        omega = math.sqrt(2 * g)
        rate = math.log(abs(eigenvalues[np.argmin(np.abs(eigenvalues - np.exp(1j * omega)))]))
        drives.append(g)
        errors.append(abs(rate - (7 * g / 4 - float(effective_damping(model, state, lr))) / 2))
    assert np.polyfit(np.log(drives), np.log(errors), 1)[0] > 1.35
    assert errors[-1] < 0.01 * abs(rate)


def test_leading_axes_and_later_pairs_pass_through() -> None:
    model = Model([4.0, 9.0], [1.0, -2.0], [1.0, 0.3])
    rng = np.random.default_rng(0)
    batch = State(rng.uniform(1, 2, 7), model.beta / 3 + 0.01 * rng.normal(size=(7, 2)), rng.normal(size=(7, 2)))
    for field in ("excess", "height", "drive", "damping"):
        each = [getattr(edge_units(model, batch.at(i), 0.1), field) for i in range(7)]
        np.testing.assert_allclose(getattr(edge_units(model, batch, 0.1), field), each, rtol=1e-13)
    each = [effective_damping(model, batch.at(i), 0.1) for i in range(7)]
    np.testing.assert_allclose(effective_damping(model, batch, 0.1), each, rtol=1e-13)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: edge_stability(0.0, 1.0), "g is 0.0"),
        (lambda: edge_stability([0.1, float("nan")], 1.0), "g is nan"),
        (lambda: edge_stability(0.1, float("inf")), "m is inf"),
        (lambda: spikes_between(0.1, 1.0, 0.1, 0.2), "first is 0.1"),
        (lambda: edge_units(Model([0.0], [1.0], [1.0]), State(1.0, [1.0], [1.0]), 0.1), "alpha"),
        (lambda: slow_state(Model([1.0], [1.0], [1.0]), State([1.0], [[1.0]], [[1.0]]), 0.1), "three consecutive"),
        (lambda: effective_damping(Model([1.0], [0.0], [1.0]), State(1.0, [1.0], [1.0]), 0.1), "drive"),
    ],
)
def test_unusable_input_is_refused_in_one_line(call: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_a_drive_that_is_not_positive_has_no_slow_state() -> None:
    model = Model([1.0], [1.0], [1.0])
    states = State(np.ones(5), np.array([[0.5], [0.5], [0.5], [1.5], [0.5]]), np.ones((5, 1)))
    assert np.isnan(slow_state(model, states, 0.1).amplitude[1:]).all()
    assert not settled(model, states, 0.1).any()
