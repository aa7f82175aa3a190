"""Maps (3) and (4) against descent in the whole space, and against the maps whose approximations they take back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import finite

from theory.command_line import InputError
from theory.reduced_map import ReducedMap
from theory.valley_map import Expansion, LineMap, ValleyMap, first_peak

STEPS = 15


@given(
    seed=st.integers(0, 10_000),
    lr=finite(0.01, 0.2),
    excess=finite(-0.3, 0.8),
    cubic=finite(-3, 3),
    quartic=finite(-3, 3),
    x=finite(-0.1, 0.1),
)
def test_the_map_is_descent_in_the_valley(
    seed: int, lr: float, excess: float, cubic: float, quartic: float, x: float
) -> None:
    """All six coordinates are stepped with the gradient of L; the map knows kernels and the slope along u alone."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(5, 5))
    hessian = root @ root.T / (10 * lr)
    g, slope_z = rng.normal(size=(2, 5))
    sharpness = (2 + excess) / lr

    def along(x: float) -> float:
        return sharpness * x + cubic * x**2 / 2 + quartic * x**3 / 6

    powers = [np.linalg.matrix_power(np.eye(5) - lr * hessian, j) for j in range(STEPS)]
    valley = ValleyMap(lr, along, np.array([-g @ p @ slope_z for p in powers]), np.array([g @ p @ g for p in powers]))
    xs, ys = valley.iterate(x)
    z = np.zeros(5)
    for t in range(STEPS + 1):
        assert xs[t] == pytest.approx(x, rel=1e-8, abs=1e-12)
        assert ys[t] == pytest.approx(g @ z, rel=1e-7, abs=1e-9)
        # ∂ₓL = ℓ'(x) + x⟨g, z⟩,  ∂_zL = G + Hz + ½x² g
        x, z = x - lr * (along(x) + x * (g @ z)), z - lr * (slope_z + hessian @ z + x**2 / 2 * g)


@given(seed=st.integers(0, 10_000), lr=finite(0.01, 0.2), excess=finite(-0.3, 0.8), x=finite(0.01, 0.3))
def test_the_line_map_is_descent_where_one_hessian_serves_across(seed: int, lr: float, excess: float, x: float) -> None:
    """L = ℓ(x) + ⟨G + F(x), z⟩ + ½⟨z, Hz⟩ with an F that turns and saturates, stepped in turned coordinates.

    Map (3), which takes F = ½x² g, is another orbit there: the control.
    """
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    u, rest = basis[:, 0], basis[:, 1:]
    root = rng.normal(size=(5, 5))
    hessian = root @ root.T / (10 * lr)
    bend, turn, slope_z = rng.normal(size=(3, 5))
    sharpness = (2 + excess) / lr

    def push(x: float) -> np.ndarray:
        return bend * (1 - np.cos(3 * x)) / lr + turn * x**3 / lr  # F(x)

    def pull(x: float) -> np.ndarray:
        return bend * 3 * np.sin(3 * x) / lr + turn * 3 * x**2 / lr  # F'(x)

    def along(x: float) -> float:
        return sharpness * x - 2 * x**3 / lr

    def loss(x: float, z: np.ndarray) -> float:
        return sharpness * x**2 / 2 - x**4 / (2 * lr) + (slope_z + push(x)) @ z + z @ hessian @ z / 2

    def expansion(x: float, z: np.ndarray) -> Expansion:
        across = rest.T @ z
        gradient = along(x) * u + rest @ (slope_z + push(x))
        product = (pull(x) @ across) * u + rest @ (hessian @ across)
        return Expansion(loss(x, np.zeros(5)), gradient, product)

    orbit = LineMap(lr, u, expansion).iterate(x, STEPS)
    z, seen, told = np.zeros(5), x, []
    for t in range(len(orbit.x)):
        if abs(seen) > 10:
            break
        assert orbit.x[t] == pytest.approx(seen, rel=1e-6, abs=1e-8)
        assert orbit.loss[t] == pytest.approx(loss(seen, z), rel=1e-6, abs=1e-7 / lr)
        told.append(seen)
        seen, z = seen - lr * (along(seen) + pull(seen) @ z), z - lr * (slope_z + push(seen) + hessian @ z)
    g = 9 * bend / lr
    powers = [np.linalg.matrix_power(np.eye(5) - lr * hessian, j) for j in range(len(told))]
    parabola = ValleyMap(lr, along, np.array([-g @ p @ slope_z for p in powers]), np.array([g @ p @ g for p in powers]))
    assert len(told) < 4 or x < 0.1 or parabola.iterate(x)[0][3] != pytest.approx(told[3], rel=1e-5)


def test_the_line_map_in_the_valley_of_map_3_is_map_3() -> None:
    lr, g, slope_z = 0.1, np.array([3.0, -1.0]), np.array([-0.4, 0.2])
    hessian = np.diag([4.0, 1.0])

    def expansion(x: float, z: np.ndarray) -> Expansion:
        across = z[1:]
        gradient = np.array([21 * x - 9 * x**3, *(slope_z + x**2 / 2 * g)])
        return Expansion(21 * x**2 / 2, gradient, np.array([x * (g @ across), *(x * z[0] * g + hessian @ across)]))

    powers = [np.linalg.matrix_power(np.eye(2) - lr * hessian, j) for j in range(60)]
    kernels = np.array([-g @ p @ slope_z for p in powers]), np.array([g @ p @ g for p in powers])
    told = ValleyMap(lr, lambda x: 21 * x - 9 * x**3, *kernels).iterate(0.02)[0]
    orbit = LineMap(lr, np.array([1.0, 0.0, 0.0]), expansion).iterate(0.02, 60)
    peak = first_peak(told)
    assert peak is not None
    assert len(orbit.x) == peak.step + 3  # it ends where the peak is seen
    np.testing.assert_allclose(orbit.x, told[: len(orbit.x)], rtol=1e-9)


def test_an_orbit_that_diverges_ends_there() -> None:
    runaway = LineMap(0.1, np.array([1.0]), lambda x, z: Expansion(30 * x**2, np.array([60 * x]), np.zeros(1)))
    orbit = runaway.iterate(1.0, 100)
    assert len(orbit.x) < 20
    assert first_peak(orbit.x) is None
    with pytest.raises(InputError, match="norm 2"):
        LineMap(0.1, np.array([2.0]), runaway.expansion)


@given(a=finite(0.1, 10), b=finite(0.1, 10), lr=finite(0.01, 0.1), x=finite(0.01, 1), excess=finite(-0.5, 1))
def test_a_parabola_without_memory_is_the_reduced_map(a: float, b: float, lr: float, x: float, excess: float) -> None:
    sharpness = (2 + excess) / lr
    xs, ys = ValleyMap(lr, lambda x: sharpness * x, np.full(30, a), np.full(30, b)).iterate(x)
    told, y = ReducedMap(a, b, lr).iterate(x, excess / lr, 30)
    small = np.abs(told) < 1e3
    np.testing.assert_allclose(xs[small], told[small], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose((ys + excess / lr)[small], y[small], rtol=1e-6, atol=1e-6)


def square_at_peak(valley: ValleyMap, x: float) -> float:
    peak = first_peak(valley.iterate(x)[0])
    assert peak is not None
    return peak.square


def test_softening_and_memory_move_the_peak_as_told() -> None:
    """A softer cross-section stops the growth sooner; what springs back stops it later."""
    lr, sharpness = 0.05, 2.5 / 0.05
    ramp, constant = np.full(60, 4.0), np.full(60, 50.0)

    def peak(quartic: float, back_action: np.ndarray) -> float:
        return square_at_peak(ValleyMap(lr, lambda x: sharpness * x + quartic * x**3, ramp, back_action), 1e-3)

    plain = peak(0.0, constant)
    assert peak(-20.0, constant) < 0.9 * plain
    assert peak(0.0, np.concatenate([constant[:1], constant[1:] / 3])) > 1.3 * plain
    # Against a spike slow enough to have the closed form's height.
    slow = square_at_peak(ValleyMap(0.01, lambda x: 200 * x, np.full(400, 10.0), np.full(400, 2.0)), 0.1)
    assert slow == pytest.approx(float(ReducedMap(10.0, 2.0, 0.01).spike(0.1).height), rel=0.02)


def test_an_orbit_that_diverges_or_never_peaks_has_no_peak() -> None:
    for slope, steps in ((30, 60), (21, 9)):
        valley = ValleyMap(0.1, lambda x, slope=slope: slope * x, np.zeros(steps), np.zeros(steps))  # type: ignore[misc]
        assert first_peak(valley.iterate(1.0)[0]) is None
    assert np.isinf(ValleyMap(0.1, lambda x: 60 * x, np.zeros(60), np.zeros(60)).iterate(1.0)[0][-1])


def test_bad_kernels_are_named() -> None:
    with pytest.raises(InputError, match=r"drive has shape \(3,\), back_action \(2,\)"):
        ValleyMap(0.1, lambda x: x, np.zeros(3), np.zeros(2))
    with pytest.raises(InputError, match="lr"):
        ValleyMap(0.0, lambda x: x, np.zeros(3), np.zeros(3))
