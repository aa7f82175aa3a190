"""Spike heights against the first spike of descent, written out here in ln w so that deep starts do not underflow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from scipy.integrate import quad
from strategies import finite

from theory import InputError, Model, State
from theory.spikes import approach_energy, error_bound, lambert_height, spike_height, spike_of


def _first_spike(g: float, start: float, e: float = 0.0, m: float = 0.0, between_steps: bool = False) -> float:
    """Highest w of the first spike of the map; through the top three steps by a parabola in ln w if asked."""
    q, l, rest = math.sqrt(1 + e / 2), math.log(start), math.log(g)
    before, last = -math.inf, -math.inf
    for _ in range(400_000):
        before, last = last, l
        q, l = q * (1 - math.exp(l) / 4) + g / 4 - m * (q - 1), l + 2 * math.log(abs(2 * q * q - 1))
        if last > rest and l <= last and last >= before:
            vertex = (l - before) ** 2 / (8 * (2 * last - l - before)) if between_steps else 0.0
            return math.exp(last + vertex)
        if l > 3:
            return math.inf
    raise AssertionError("no spike")


@given(log_g=finite(-12, 2), height=finite(1.0, 1e4))
@example(log_g=0.0, height=1.0)
@example(log_g=-12.0, height=1e4)
def test_lambert_height_is_the_larger_root(log_g: float, height: float) -> None:
    g = math.exp(log_g)
    w = height * g
    # At the double root rounding of H costs half the digits.
    assert lambert_height(w - g * math.log(w), g) == pytest.approx(w, rel=1e-6 if height < 1.1 else 1e-10)


def test_lambert_height_has_no_root_below_the_least_energy() -> None:
    np.testing.assert_array_equal(lambert_height([-5.0, 0.9999], [1.0, 1.0]), 1.0)


@given(e=finite(-0.9, 10))
@example(e=0.0)
@example(e=1e-3)
def test_approach_energy_is_its_integral(e: float) -> None:
    expected, _ = quad(lambda t: 8 * math.log(2 * t * t - 1), 1, math.sqrt(1 + e / 2))
    assert approach_energy(e) == pytest.approx(expected, rel=1e-8, abs=1e-14)


_G, _DEPTH, _EXCESS = finite(-4.5, -1.2), finite(2, 30), finite(-0.2, 0.2)


@given(log_g=_G, depth=_DEPTH, e=_EXCESS)
@example(log_g=-2.0, depth=10.0, e=0.0)
@example(log_g=-4.5, depth=30.0, e=-0.2)
@example(log_g=-1.3, depth=2.0, e=0.2)
def test_the_error_bound_holds_with_the_drive_held(log_g: float, depth: float, e: float) -> None:
    g = 10**log_g
    spike = spike_height(g, g * math.exp(-depth), e)
    assume(bool(spike.valid))
    assert abs(spike.height / _first_spike(g, g * math.exp(-depth), e) - 1) <= spike.error


@given(log_g=_G, depth=_DEPTH, e=_EXCESS, ratio=finite(0, 10))
@example(log_g=-2.5, depth=10.0, e=0.0, ratio=1.0)
@example(log_g=-2.5, depth=30.0, e=0.1, ratio=2.0)
def test_the_error_bound_holds_with_the_drive_falling(log_g: float, depth: float, e: float, ratio: float) -> None:
    g = 10**log_g
    m = ratio * 7 * g / 4
    spike = spike_height(g, g * math.exp(-depth), e, m)
    assume(bool(spike.valid))
    assert abs(spike.height / _first_spike(g, g * math.exp(-depth), e, m) - 1) <= spike.error


def test_a_falling_drive_widens_the_bound_by_twice_its_square_over_the_height() -> None:
    height, m = np.array(0.3), 0.05
    assert error_bound(height) == pytest.approx(0.06)
    assert error_bound(height, m) == pytest.approx(0.06 + 2 * m**2 / 0.3)


def test_the_bound_is_not_idle_and_the_simpler_formulas_break_it() -> None:
    g, start = 3e-3, 3e-3 * math.exp(-15)
    held, damped = spike_height(g, start), spike_height(g, start, 0.0, 7 * g / 4)
    seen, seen_damped = _first_spike(g, start), _first_spike(g, start, 0.0, 7 * g / 4)
    assert abs(held.leading / seen - 1) > 5 * held.error
    assert abs(held.height / seen_damped - 1) > 5 * damped.error


def test_the_correction_raises_the_order_from_one_to_three() -> None:
    # w = ε² and g = ε⁴, so that g ≪ w as the formula asks; the steps' phase is taken out by interpolation.
    sizes, leading, corrected = [], [], []
    for eps in (0.05, 0.07, 0.1, 0.14, 0.2):
        g = eps**4
        start = math.exp(-(eps**2) / g) * eps**2  # w − g ln w = −g ln w₀ at w = ε² = W
        spike = spike_height(g, start)
        seen = _first_spike(g, start, between_steps=True)
        sizes.append(math.sqrt(seen))
        leading.append(abs(spike.leading / seen - 1))
        corrected.append(abs(spike.height * math.exp(spike.leading / 12) / seen - 1))
    slopes = np.polyfit(np.log(sizes), np.log(np.array([leading, corrected]).T), 1)[0]
    assert slopes[0] == pytest.approx(1, abs=0.12)
    assert slopes[1] > 2.5


@given(log_g=_G, depth=_DEPTH, e=_EXCESS)
def test_the_damped_equation_becomes_the_closed_form_without_damping(log_g: float, depth: float, e: float) -> None:
    g = 10**log_g
    start = g * math.exp(-depth)
    closed = spike_height(g, start, e)
    assume(bool(closed.height > 2 * g))
    assert spike_height(g, start, e, 1e-15).height == pytest.approx(closed.height, rel=1e-8)


def test_arrays_give_what_single_starts_give() -> None:
    g, start, m = np.array([1e-3, 1e-2])[:, None], np.array([1e-7, 1e-5, 1e-4]), np.array([0.0, 1e-3, 2e-3])
    whole = spike_height(g, start, 0.05, m)
    for i in range(2):
        for j in range(3):
            one = spike_height(float(g[i, 0]), start[j], 0.05, m[j])
            for field in ("height", "leading", "error", "valid"):
                assert getattr(whole, field)[i, j] == pytest.approx(getattr(one, field), rel=1e-12)


def test_degenerate_starts_have_their_limits() -> None:
    assert spike_height(0.01, 0.01).height == pytest.approx(0.01, rel=0.2)  # at rest
    over_damped = spike_height(1e-4, 1e-6, 0.0, 1.0)
    assert over_damped.height == 1e-4  # creeps up to rest
    assert not over_damped.valid
    assert not spike_height(1e-4, 1e-6, 5.0).valid


def test_a_spike_of_the_model_is_that_of_descent_with_b_fixed() -> None:
    model, lr = Model([30.0], [2.0, 1.0], [1.0, 0.2]), 0.01
    c, s = math.sqrt(2 / (lr * 30.0)) * 0.995, 1e-3
    b = 0.93 * model.beta / c
    spike, peak = spike_of(model, State(c, b, [s]), lr), 0.0
    for _ in range(5000):
        force = float(b @ (model.covariance * (model.beta - c * b)))
        c, s = c + lr * (force - 30 * c * s * s), (1 - lr * 30 * c * c) * s
        if peak > 1e-4 and s * s < 0.5 * peak:
            break
        peak = max(peak, s * s)
    assert spike.valid
    assert abs(spike.height / peak - 1) <= spike.error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0.0, 1e-4), "g is 0.0"),
        ((0.1, 0.0), "start_height is 0.0"),
        ((0.1, 0.1, -1.0), "start_excess is -1.0"),
        ((0.1, [0.1, float("nan")]), "start_height is nan"),
        ((0.1, 0.1, 0.0, -0.1), "m is -0.1"),
    ],
)
def test_unusable_input_is_refused_in_one_line(arguments: tuple, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        spike_height(*arguments)
    assert "\n" not in str(caught.value)
