"""Width and depth: rank-one networks of any width are the scalar chain; what lies across rank one leaves it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr

from sim.sweeps import ShapeConfig
from theory import InputError
from theory.configuration import DescentConfig
from theory.deep_network import DeepState, deep_descent
from theory.wide_network import WideState, wide_descent

CPU = torch.device("cpu")
CONFIG = ShapeConfig(widths=(1, 3), depths=(2, 3), spreads=(0.0, 0.3), seeds=(0, 1), d1=6, steps=600)


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return CONFIG.combine([unit.run(CPU) for unit in CONFIG.units()])


def test_descent_that_is_still_on_its_way_is_not_held_against_theory() -> None:
    """The step size shrinks with 1/α, the steps are as many."""
    short = ShapeConfig(widths=(1,), depths=(2,), spreads=(0.0,), seeds=(0, 1), d1=6, alpha=500.0, steps=600)
    data = short.combine([unit.run(CPU) for unit in short.units()])
    assert np.isnan(data["sharpness"]).all()
    assert "2 not at a minimum: raise --steps" in short.table(data)


def test_rank_one_networks_end_and_oscillate_as_the_scalar_chain_does(data: xr.Dataset) -> None:
    exact = data.sel(spread=0.0)
    np.testing.assert_allclose(exact["sharpness"], exact["predicted_sharpness"], rtol=5e-4)
    assert (np.abs(exact["onset"] - exact["predicted_onset"]) <= 1).all()
    height = exact["amplitude"] / exact["predicted_amplitude"]  # `theory.deep_edge.deep_spike` says 6 and 10 % too low
    assert (height > 1.0).all()
    assert (height.sel(depth=2) < 1.1).all()
    assert (height.sel(depth=3) < 1.15).all()
    # Width changes nothing, to rounding.
    np.testing.assert_allclose(exact["amplitude"].sel(width=3), exact["amplitude"].sel(width=1), rtol=1e-6)
    np.testing.assert_allclose(exact["sharpness"].sel(width=3), exact["sharpness"].sel(width=1), rtol=1e-9)
    assert (exact["final_edge"] <= 1).all()
    # Controls: one layer more.
    assert (np.abs(exact["sharpness"] / exact["deeper_sharpness"] - 1) > 0.1).all()
    assert (np.abs(exact["onset"] - exact["deeper_onset"]) > 1).all()
    assert ((exact["amplitude"] / exact["deeper_amplitude"]).values < 0.7).all()


@pytest.mark.parametrize("depth", [2, 3])
def test_a_rank_one_unit_is_theorys_descent_on_all_features(data: xr.Dataset, depth: int) -> None:
    row = data.sel(depth=depth, width=3, spread=0.0, seed=1)
    config = DescentConfig(20.0, 3.0, 3.0, 6, start_seed=1)
    lr = 1.2 * 2 / float(row["predicted_sharpness"])
    chain = DeepState(np.ones(depth - 1), config.initial_state.b, config.initial_state.s)
    run = deep_descent(config.model, chain, lr, CONFIG.steps)
    z = run.effective.c * run.s[:, 0]
    assert float(row["amplitude"]) == pytest.approx(np.abs(z[40:]).max(), rel=1e-6)
    assert float(row["final_edge"]) == pytest.approx(lr * 20 * float(run.effective.c[-1]) ** 2 / 2, rel=1e-6)
    assert float(row["crossing"]) == np.flatnonzero(lr * 20 * run.effective.c**2 > 2)[0]


def test_a_wide_unit_is_theorys_wide_descent(data: xr.Dataset) -> None:
    (unit,) = (u for u in CONFIG.units() if (u.depth, u.width, u.spread) == (2, 3, 0.3))
    model, start = unit._reduced(0)
    first, last = (layer.numpy() for layer in unit._layers(start, 0))
    assert np.linalg.norm(first - np.outer(last[0], start.first_layer)) == pytest.approx(0.3, rel=1e-12)
    wide = WideState(last[0], first[:, :2], first[:, 2:])
    np.testing.assert_allclose(wide.effective.vector, [1, *start.first_layer], atol=1e-12)
    run = wide_descent(model, wide, 1.2 * 2 / 60, CONFIG.steps)
    z = run.effective.s[:, 0]
    row = data.sel(depth=2, width=3, spread=0.3, seed=0)
    assert float(row["amplitude"]) == pytest.approx(np.abs(z[int(row["onset"]) :]).max(), rel=1e-4)


def test_what_lies_across_rank_one_moves_the_end_within_qs_bounds_and_the_onset(
    data: xr.Dataset,
) -> None:
    across = data.sel(depth=2, width=3, spread=0.3)
    end, low, high = (across[name].values for name in ("first_layer", "first_layer_low", "first_layer_high"))
    assert (low < end).all()
    assert (end < high).all()
    assert (np.abs(end / 60 - 1) > 1e-3).all()  # and not at the scalar chain's end
    assert (high - low < 8).all()
    wide = data.sel(width=3, spread=0.3)
    assert (np.abs(wide["onset"] - wide["predicted_onset"]) > 1).sum() >= 3
    assert data["first_layer_low"].sel(depth=3).isnull().all()
    # At width 1 there is no across.
    one = data.sel(width=1)
    xr.testing.assert_equal(one.sel(spread=0.3, drop=True), one.sel(spread=0.0, drop=True))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"depths": (1,)}, "--depths is 1"),
        ({"widths": (0,)}, "--widths is 0"),
        ({"spreads": (-0.1,)}, "--spreads is -0.1"),
        ({"gentle": 1.0}, "--gentle is 1.0"),
        ({"edge": 0.9}, "--edge is 0.9"),
        ({"edge": math.inf}, "--edge is inf"),
        ({"seeds": ()}, "--seeds is empty"),
    ],
)
def test_sweeps_that_cannot_be_are_refused(bad: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ShapeConfig(**bad)  # type: ignore[arg-type]
