"""Two runs at equal loss: the one with less loss at its crossing stays there, the other is taken later."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from cases import planted

from validate.opposing_score import opposing_score
from validate.scores_at_equal_loss import STEPS, at_equal_loss, equal_stretches


def run(crossing: int | None, start: float, *, steps: int = 400, slope: float = 0.005, seed: int = 0) -> xr.Dataset:
    """A planted pair on mean losses that fall in a straight line."""
    measured = np.arange(0, steps, 10)
    losses = planted(seed, n=100, steps=steps, size=5, noise=0.0)
    losses += (start - slope * np.arange(steps) - losses.mean(1))[:, None]
    data = xr.Dataset({"loss": (("step", "example"), losses)}, coords={"measured": measured}, attrs={"lr": 0.05})
    data["sharpness_iterate"] = "measured", np.where(measured < (steps if crossing is None else crossing), 34.0, 44.0)
    return data


def test_the_run_with_less_loss_stays_at_its_crossing() -> None:
    # At their crossings 100 and 120 the losses are 2.5 and 1.9: 0.6 more, which a slope of 0.005 takes 120 steps for.
    higher, lower = run(100, 3.0), run(120, 2.5, seed=1)
    assert equal_stretches(higher, lower) == (slice(220, 220 + STEPS), slice(120, 120 + STEPS))
    assert equal_stretches(lower, higher) == (slice(120, 120 + STEPS), slice(220, 220 + STEPS))
    found = at_equal_loss("mlp", "gaussian", 0.05, 3, higher, lower)
    assert found is not None
    of = [
        opposing_score(r["loss"].values[s : s + STEPS], np.random.default_rng(3))
        for r, s in ((higher, 220), (lower, 120))
    ]
    assert (found.reference, found.score) == (of[0].score, of[1].score)
    assert found.reference != found.score
    # The medians of both stretches are those of straight lines at their middle.
    assert found.loss == pytest.approx(1.9 - 0.005 * (STEPS - 1) / 2)


def test_equal_runs_are_both_taken_at_the_crossing() -> None:
    assert equal_stretches(run(100, 3.0), run(100, 3.0)) == (slice(100, 100 + STEPS),) * 2


def test_there_is_none_where_a_run_does_not_come_down_in_time_or_never_crosses() -> None:
    assert equal_stretches(run(100, 3.0, steps=270), run(120, 2.5, steps=270)) is None
    assert equal_stretches(run(None, 3.0), run(120, 2.5)) is None
    assert at_equal_loss("mlp", "gaussian", 0.05, 3, run(None, 3.0), run(120, 2.5)) is None
    # Comes down in time, but has no windows of 150 steps of its own.
    assert at_equal_loss("mlp", "gaussian", 0.05, 3, run(100, 3.0), run(330, 3.0)) is None
