"""The reduced map against itself written out here: orbits, finite differences, and series with noise of known size."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from strategies import finite

from theory import InputError
from theory.reduced_map import ReducedMap, fit_reduced_map, loss_rise


def _orbit(a: float, b: float, lr: float, x: float, y: float, steps: int) -> np.ndarray:
    """(steps + 1, 2) x and y of the map as the literature writes it."""
    rows = [(x, y)]
    for _ in range(steps):
        x, y = -(1 + lr * y) * x, y + lr * (a - b * x * x / 2)
        rows.append((x, y))
    return np.array(rows)


def _first_spike(g: float, start: float, e: float, between_steps: bool = False) -> float:
    """Highest w of the first spike in e = ηy, w = η²bx²/2; through the top three steps by a parabola if asked."""
    l, rest, before, last = math.log(start), math.log(g), -math.inf, -math.inf
    for _ in range(400_000):
        before, last = last, l
        e, l = e + g - math.exp(l), l + 2 * math.log(abs(1 + e))
        if last > rest and l <= last and last >= before:
            vertex = (l - before) ** 2 / (8 * (2 * last - l - before)) if between_steps else 0.0
            return math.exp(last + vertex)
        if l > 3:
            return math.inf
    raise AssertionError("no spike")


positive = finite(0.01, 100)


@given(a=positive, b=positive, lr=finite(1e-3, 0.05), x=finite(-0.1, 0.1), y=finite(-1, 1))
def test_iterate_is_the_map(a: float, b: float, lr: float, x: float, y: float) -> None:
    xs, ys = ReducedMap(a, b, lr).iterate(x, y, 20)
    expected = _orbit(a, b, lr, x, y, 20)
    np.testing.assert_allclose(np.stack([xs, ys], axis=1), expected, rtol=1e-12, atol=1e-12)


def test_iterate_follows_many_starts_at_once_and_lets_tall_spikes_diverge() -> None:
    reduced = ReducedMap(10.0, 2.0, 0.02)
    xs, ys = reduced.iterate(np.array([0.1, 0.5]), np.array([[0.0], [1.0], [2.0]]), 30)
    assert xs.shape == ys.shape == (31, 3, 2)
    np.testing.assert_array_equal(xs[:, 2, 1], reduced.iterate(0.5, 2.0, 30)[0])
    assert not np.isfinite(ReducedMap(1.0, 1.0, 1.0).iterate(100.0, 0.0, 50)[0]).all()


@given(a=positive, b=positive, lr=finite(1e-3, 0.2))
@example(a=1.0, b=5.0, lr=0.1)
def test_rest_period_and_growth_are_those_of_the_jacobian(a: float, b: float, lr: float) -> None:
    reduced = ReducedMap(a, b, lr)
    x = math.sqrt(reduced.rest_square)
    assert _orbit(a, b, lr, x, 0.0, 1)[1] == pytest.approx([-x, 0.0], rel=1e-12, abs=1e-12 * a * lr)
    columns = []
    hx, hy = 1e-5 * x, 1e-5 / lr  # of the map with the alternating sign taken out
    for dx, dy, h in ((hx, 0.0, hx), (0.0, hy, hy)):
        up, down = _orbit(a, b, lr, x + dx, dy, 1)[1], _orbit(a, b, lr, x - dx, -dy, 1)[1]
        columns.append((up - down) * [-1, 1] / (2 * h))
    scaled = np.array(columns).T * np.array([[1, x * lr], [1 / (x * lr), 1]]) ** -1.0
    eigenvalue = np.linalg.eigvals(scaled)[0]
    assert 2 * np.pi / abs(np.angle(eigenvalue)) == pytest.approx(reduced.period, rel=1e-5)
    assert math.log(abs(eigenvalue)) == pytest.approx(reduced.growth, rel=1e-4, abs=1e-9)


def test_the_invariant_gains_two_g_times_the_area_an_orbit() -> None:
    measured = []
    for scale in (1.0, 0.25, 0.0625):
        g = 1e-2 * scale
        reduced = ReducedMap(a=g / 0.01**2, b=3.0, lr=0.01)
        x = math.sqrt(reduced.rest_square * math.exp(-3))
        orbit = _orbit(reduced.a, reduced.b, reduced.lr, x, 0.0, int(14 / math.sqrt(g)))
        l, e = 2 * np.log(np.abs(orbit[:, 0])), reduced.lr * orbit[:, 1]
        # Whole orbits: from one upward crossing of e = 0 to the next, taken where both ends look alike.
        ups = np.flatnonzero((e[:-1] < 0) & (e[1:] >= 0))
        i, j = ups[0], ups[1]
        area = float(((e[i:j] + e[i + 1 : j + 1]) / 2 * np.diff(l)[i:j]).sum())
        share = [-e[k] / (e[k + 1] - e[k]) for k in (i, j)]
        h = reduced.invariant(orbit[:, 0], orbit[:, 1])
        # H + e³ + (w − g)e is what grows steadily.
        w = reduced.scale * orbit[:, 0] ** 2
        h = h + e**3 + (w - g) * e
        ends = [h[k] + s * (h[k + 1] - h[k]) for k, s in zip((i, j), share, strict=True)]
        measured.append((ends[1] - ends[0]) / (2 * g * area))
    assert measured[-1] == pytest.approx(1, abs=0.01)
    assert abs(measured[-1] - 1) < abs(measured[0] - 1) + 0.01


@given(log_g=finite(-4.5, -1.2), depth=finite(2, 30), e=finite(-0.2, 0.2), b=positive, lr=finite(1e-3, 1))
@example(log_g=-2.0, depth=10.0, e=0.0, b=1.0, lr=0.1)
@example(log_g=-4.5, depth=30.0, e=-0.2, b=1.0, lr=0.1)
@example(log_g=-1.3, depth=2.0, e=0.2, b=1.0, lr=0.1)
def test_the_error_bound_of_a_spike_holds(log_g: float, depth: float, e: float, b: float, lr: float) -> None:
    g = 10**log_g
    reduced = ReducedMap(g / lr**2, b, lr)
    x = math.sqrt(g * math.exp(-depth) / reduced.scale)
    spike = reduced.spike(x, e / lr)
    assume(bool(spike.valid))
    seen = _first_spike(g, g * math.exp(-depth), e) / reduced.scale
    assert abs(spike.height / seen - 1) <= spike.error


@given(log_g=finite(-4.5, -1.2), depth=finite(2, 30), e=finite(-0.2, 0.2), b=positive, lr=finite(1e-3, 1))
def test_the_alternating_part_at_a_peak_is_the_orbits(
    log_g: float, depth: float, e: float, b: float, lr: float
) -> None:
    g = 10**log_g
    reduced = ReducedMap(g / lr**2, b, lr)
    start = math.sqrt(g * math.exp(-depth) / reduced.scale)
    orbit = _orbit(reduced.a, b, lr, start, e / lr, int(6 * depth / math.sqrt(g)) + 50)[:, 0]
    peaks = _peaks(np.abs(orbit))
    assume(peaks.any())
    at = int(np.argmax(peaks))
    w = reduced.scale * orbit[at] ** 2
    assume(w <= 0.6)
    seen = np.max(np.diff(orbit[at - 2 : at + 3], 2) ** 2) / 16
    assert abs(reduced.alternating_square(orbit[at] ** 2) / seen - 1) < 0.12 * w


def _peaks(values: np.ndarray) -> np.ndarray:
    """True at each inner peak."""
    inner = (values[1:-1] > values[:-2]) & (values[1:-1] >= values[2:])
    return np.concatenate([[False], inner, [False]])


def test_the_error_bound_is_not_idle() -> None:
    reduced = ReducedMap(30.0, 200.0, 0.02)
    spike = reduced.spike(0.01)
    x, _ = reduced.iterate(0.01, 0.0, 100)
    seen = float((x[: int(np.argmax(x**2)) + 1] ** 2).max())
    assert abs(spike.height / seen - 1) <= spike.error < abs(spike.leading / seen - 1) / 5


def test_the_correction_raises_the_order_from_one_to_three() -> None:
    sizes, leading, corrected = [], [], []
    for eps in (0.05, 0.07, 0.1, 0.14, 0.2):
        g = eps**4
        start = math.exp(-(eps**2) / g) * eps**2
        reduced = ReducedMap(g, 2.0, 1.0)  # w = x²
        spike = reduced.spike(math.sqrt(start))
        seen = _first_spike(g, start, 0.0, between_steps=True)
        sizes.append(math.sqrt(seen))
        leading.append(abs(spike.leading / seen - 1))
        corrected.append(abs(spike.height * math.exp(spike.leading / 12) / seen - 1))
    slopes = np.polyfit(np.log(sizes), np.log(np.array([leading, corrected]).T), 1)[0]
    assert slopes[0] == pytest.approx(1, abs=0.12)
    assert slopes[1] > 2.5


@given(
    g=finite(1e-3, 0.03),
    b=positive,
    lr=finite(1e-3, 0.5),
    depth=finite(0.5, 6),
    y0=finite(-0.05, 0.05),
    offset=finite(-5, 5),
)
def test_the_fit_recovers_the_map_exactly_without_noise(
    g: float, b: float, lr: float, depth: float, y0: float, offset: float
) -> None:
    reduced = ReducedMap(g / lr**2, b, lr)
    steps = int(1.5 * reduced.period)
    x, y = reduced.iterate(math.sqrt(reduced.rest_square * math.exp(-depth)), y0 / lr, steps)
    # The fit needs neither the signs of x nor the right threshold.
    fit = fit_reduced_map(np.abs(x), y + offset, lr)
    assert (fit.a, fit.b) == pytest.approx((reduced.a, b), rel=1e-7)
    assert fit.explained == pytest.approx(1, abs=1e-9)


@given(
    g=finite(1e-4, 0.1),
    lr=finite(1e-3, 0.5),
    excess=finite(-0.3, 0.5),
    log_ratio=finite(0.5, 20),
)
@example(g=0.0133, lr=0.05, excess=0.056, log_ratio=12.0)
def test_the_wait_is_the_orbits_while_the_oscillation_is_small(
    g: float, lr: float, excess: float, log_ratio: float
) -> None:
    """Against the map's own steps with b so small that nothing acts back."""
    x, goal, e, steps = 1e-9, 1e-9 * math.exp(log_ratio), excess, 0
    while abs(x) < goal or e < 0:
        x, e, steps = -(1 + e) * x, e + g, steps + 1
    told = ReducedMap(g / lr**2, 1e-12, lr).wait(1e-9, goal, excess / lr)
    # The step that passes the goal may pass it by up to a whole step.
    assert steps - 1.1 <= told <= steps + 0.1


def test_the_wait_is_never_negative_and_grows_with_the_way() -> None:
    reduced = ReducedMap(1.0, 1.0, 0.1)
    for x in (0.1, 0.2):
        assert reduced.wait(x, 0.1, 1.0) == pytest.approx(0.0, abs=1e-9)
    assert reduced.wait(1e-3, 0.1) < reduced.wait(1e-6, 0.1)
    # Back at the size of the start: the way down to threshold and up again, longer than twice the way to threshold.
    assert reduced.wait(0.1, 0.1, -1.0) > 2 * 1.0 / 0.1


@given(a=positive, b=positive, lr=finite(0.01, 0.1), share=finite(0.05, 0.5))
def test_peaks_are_those_of_the_orbit(a: float, b: float, lr: float, share: float) -> None:
    reduced = ReducedMap(a, b, lr)
    x = share * math.sqrt(reduced.rest_square)
    steps, heights = reduced.peaks(x, 0.0, 200)
    with np.errstate(over="ignore"):
        squares = _orbit(a, b, lr, x, 0.0, 200)[:, 0] ** 2
    found = [t for t in range(1, 200) if squares[t - 1] < squares[t] >= squares[t + 1] and math.isfinite(squares[t])]
    assert steps.tolist() == found
    np.testing.assert_allclose(heights, squares[found], rtol=1e-9)


@given(lr=finite(1e-3, 1.0), x=finite(-2.0, 2.0))
def test_the_loss_rises_by_the_parabola_at_threshold(lr: float, x: float) -> None:
    curvature = 2 / lr
    assert float(loss_rise(x**2, lr)) == pytest.approx(curvature * x**2 / 2, rel=1e-12)


def _fits(noise_x: float, noise_y: float, correct: bool, repeats: int = 200) -> np.ndarray:
    """(repeats, 5) a, b, standardised a and b, autocorrelation: fits of one orbit under white noise."""
    a, b, lr = 30.0, 200.0, 0.02
    orbit, rng = _orbit(a, b, lr, 0.05, 0.0, 249), np.random.default_rng(0)
    sx, sy = (noise * math.sqrt(float(np.mean(v**2))) for noise, v in zip((noise_x, noise_y), orbit.T, strict=True))
    rows = []
    for _ in range(repeats):
        x, y = orbit[:, 0] + sx * rng.normal(size=250), orbit[:, 1] + sy * rng.normal(size=250)
        fit = fit_reduced_map(x, y, lr, x_noise=sx if correct else 0.0)
        rows.append((fit.a / a, fit.b / b, (fit.a - a) / fit.a_error, (fit.b - b) / fit.b_error, fit.autocorrelation))
    return np.array(rows)


def test_standard_errors_are_right_for_noise_in_y() -> None:
    rows = _fits(0.0, 0.1, correct=False)
    # 200 repeats: means to 0.07, deviations to 5 %.
    np.testing.assert_allclose(rows[:, 2:4].mean(0), 0, atol=0.22)
    np.testing.assert_allclose(rows[:, 2:4].std(0), 1, atol=0.16)
    assert abs(rows[:, 4].mean()) < 0.03


def test_standard_errors_of_a_short_series_are_those_of_least_squares() -> None:
    """By QR, with the squares left over divided by 8 − 3."""
    n, lr, rng = 8, 0.1, np.random.default_rng(0)
    x, y = rng.normal(size=(2, n))
    summed = np.append(0.0, np.cumsum(x[:-1] ** 2))
    design = np.stack([np.ones(n), lr * np.arange(n), -lr / 2 * summed], axis=1)
    q, r = np.linalg.qr(design)
    inverse = np.linalg.inv(r)
    left = y - q @ (q.T @ y)
    errors = np.linalg.norm(inverse, axis=1) * math.sqrt(left @ left / 5)
    fit = fit_reduced_map(x, y, lr)
    assert (fit.a, fit.b) == pytest.approx((inverse @ q.T @ y)[1:], rel=1e-9)
    assert (fit.a_error, fit.b_error) == pytest.approx(errors[1:], rel=1e-9)


def test_noise_in_x_biases_a_by_its_variance_and_the_correction_removes_it() -> None:
    a, b = 30.0, 200.0
    size = math.sqrt(float(np.mean(_orbit(a, b, 0.02, 0.05, 0.0, 249)[:, 0] ** 2)))
    raw, corrected = _fits(0.3, 0.0, correct=False), _fits(0.3, 0.0, correct=True)
    assert raw[:, 0].mean() - 1 == pytest.approx(b * (0.3 * size) ** 2 / 2 / a, rel=0.1)
    assert corrected[:, 0].mean() == pytest.approx(1, abs=0.005)
    # Summed noise wanders: the flag of standard errors that are too small.
    assert raw[:, 4].mean() > 0.5
    assert raw[:, 3].std() > 2


@given(st.integers(0, 5), finite(0.1, 3))
def test_a_constant_square_cannot_tell_a_from_b(seed: int, size: float) -> None:
    signs = np.random.default_rng(seed).choice([-1, 1], 20)
    with pytest.raises(InputError, match="constant"):
        fit_reduced_map(size * signs, np.arange(20.0), 0.1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ReducedMap(0.0, 1.0, 0.1), "a is 0.0"),
        (lambda: ReducedMap(1.0, -1.0, 0.1), "b is -1.0"),
        (lambda: ReducedMap(1.0, 1.0, float("nan")), "lr is nan"),
        (lambda: ReducedMap(1.0, 1.0, 0.1).spike(0.0), "x is 0"),
        (lambda: ReducedMap(1.0, 1.0, 0.1).spike(0.1, -10.0), "y is at most"),
        (lambda: ReducedMap(1.0, 1.0, 0.1).iterate(1.0, 0.0, 0), "steps is 0"),
        (lambda: ReducedMap(1.0, 1.0, 0.1).wait(0.0, 1.0), "x is 0"),
        (lambda: ReducedMap(1.0, 1.0, 0.1).wait(0.1, 0.0), "visible is 0"),
        (lambda: ReducedMap(1.0, 1.0, 0.1).wait(0.1, 1.0, -11.0), "y is at most"),
        (lambda: fit_reduced_map([1.0, 2.0, 1.0], [1.0, 2.0, 1.0], 0.1), "at least 4"),
        (lambda: fit_reduced_map(np.ones(5), np.ones(6), 0.1), "one length"),
        (lambda: fit_reduced_map([1, 2, 3, float("nan")], np.ones(4), 0.1), "not finite"),
        (lambda: fit_reduced_map(np.arange(5), np.ones(5), 0.0), "lr is 0"),
    ],
)
def test_unusable_input_is_refused_in_one_line(call: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
