"""Comparison at equal loss on made-up runs with known answers."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from theory.alternation import alternating_part
from validate.equal_loss import (
    LEAST_STEPS,
    edge_losses,
    gap_amplitude,
    sharpness_at_loss,
    sharpness_ratio,
    steps_between,
)
from validate.windows import Windows

WINDOWS = Windows(100, slice(0, 70), slice(100, 175), slice(175, 250), slice(100, 250), slice(0, 50))


def run(steps: int, *, speed: float, bounce: float = 0.0, n: int = 60, seed: int = 0) -> xr.Dataset:
    """Every loss falls from 3 at `speed` a step; 0…9 and 10…19 bounce against each other with amplitude `bounce`."""
    rng = np.random.default_rng(seed)
    losses = 3 - speed * np.arange(steps)[:, None] + 1e-6 * rng.normal(size=(steps, n))
    swing = bounce * (-1.0) ** np.arange(steps)[:, None]
    losses[:, :10] += swing
    losses[:, 10:20] -= swing
    measured = np.arange(0, steps, 10)
    data = xr.Dataset(coords={"measured": measured, "step": np.arange(steps)}, attrs={"lr": 0.05})
    data["loss"] = ("step", "example"), losses
    data["sharpness_iterate"] = "measured", measured * 0.5
    return data


def test_a_run_twice_as_fast_is_compared_at_half_the_steps() -> None:
    base = run(300, speed=0.005)
    steps = steps_between(run(300, speed=0.01), edge_losses(base, WINDOWS))
    assert steps is not None
    # Medians over 20 steps lie 9.5 steps inside the window's ends.
    assert (steps.start, steps.stop) == (pytest.approx(109.5 / 2, abs=1), pytest.approx(239.5 / 2, abs=1))


def test_a_run_that_never_gets_there_is_not_compared() -> None:
    assert steps_between(run(300, speed=0.001), edge_losses(run(300, speed=0.005), WINDOWS)) is None


def test_a_run_too_short_for_a_stretch_is_not_compared_and_a_fast_one_has_the_least_number_of_steps() -> None:
    losses = edge_losses(run(300, speed=0.005), WINDOWS)
    steps = steps_between(run(100, speed=0.2), losses)
    assert steps is not None
    assert steps.stop - steps.start == LEAST_STEPS
    assert steps_between(run(steps.stop - 1, speed=0.2), losses) is None


@given(st.floats(0.01, 10), st.integers(0, 5))
def test_the_amplitude_is_that_of_the_planted_bounce(bounce: float, seed: int) -> None:
    """The gap of two groups of 10 in pairs of 20 each: half of the planted groups' own gap, 2 · bounce."""
    found = gap_amplitude(run(60, speed=0.005, bounce=bounce, n=40, seed=seed), slice(10, 50))
    assert found == pytest.approx(bounce, rel=1e-3)


def test_groups_are_not_judged_on_the_steps_that_they_were_chosen_on() -> None:
    """Pure noise σ: a gap of two means of 20 has variance σ²/10, its alternating part (1 + 4 + 1)/16 of that."""
    noise = run(200, speed=0.0, n=400)
    noise["loss"].values += np.random.default_rng(1).normal(size=(200, 400))
    found = [gap_amplitude(noise, slice(i, i + 24)) for i in range(0, 168, 24)]
    assert np.mean(found) == pytest.approx((0.1 * 6 / 16) ** 0.5, rel=0.2)


def test_the_second_half_of_the_steps_is_judged() -> None:
    data = run(60, speed=0.005, bounce=1.0, n=40)
    data["loss"].values[:30] = 2 + 10 * (data["loss"].values[:30] - 2)
    assert gap_amplitude(data, slice(10, 50)) == pytest.approx(1.0, rel=1e-3)


def test_a_trend_is_no_bounce() -> None:
    assert np.abs(alternating_part(np.linspace(3, 0, 50))).max() < 1e-12
    assert gap_amplitude(run(60, speed=0.05), slice(10, 50)) < 1e-5


def test_the_sharpness_is_read_at_the_step_of_the_loss_and_nowhere_else() -> None:
    of_all = np.ones(60, dtype=bool)
    at = run(300, speed=0.005)
    assert sharpness_at_loss(at, 2.5, of_all) == pytest.approx(50, abs=0.6)
    assert np.isnan(sharpness_at_loss(at, 1.0, of_all))
    some = np.arange(60) < 30
    at["loss"].values[:, 30:] = 0.0  # examples left out must not count
    assert sharpness_at_loss(at, 2.5, some) == pytest.approx(50, abs=0.6)


def test_a_swing_of_the_iterates_sharpness_does_not_show() -> None:
    """Measured at even steps alone, iterates read at an odd step what holds at even ones."""
    of_all = np.ones(60, dtype=bool)
    smooth, swinging = run(300, speed=0.005), run(300, speed=0.005)
    swing = np.where(swinging["measured"] % 2 == 0, 1.1, 0.9)
    swinging["sharpness_midpoint"] = "measured", swinging["sharpness_iterate"].values + 0.25  # half a step further
    swinging["sharpness_iterate"].values[:] = swinging["sharpness_iterate"].values * swing
    for loss in (2.5, 2.495, 2.493):
        assert sharpness_at_loss(swinging, loss, of_all) == pytest.approx(
            sharpness_at_loss(smooth, loss, of_all), rel=0.01
        )
    assert sharpness_ratio(swinging, smooth, 2.5, of_all) == pytest.approx(1, rel=0.01)
