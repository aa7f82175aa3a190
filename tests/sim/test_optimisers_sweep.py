"""Optimisers: each rule's threshold stands where theory says; at matched progress plain descent alone oscillates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from sim.opposing_data import draw_examples
from sim.sweeps import OptimisersConfig
from sim.sweeps.optimisers import VISIBLE
from theory import InputError, optimizer_maps
from theory.descent import descend
from theory.finite_sample import SampleMoments

CPU = torch.device("cpu")
CONFIG = OptimisersConfig(seeds=(0, 1), choices=24, d1=4, examples=8000, steps=600)


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return CONFIG.combine([unit.run(CPU) for unit in CONFIG.units()])


def test_every_rule_turns_unstable_where_theory_says(data: xr.Dataset) -> None:
    bounded = data.drop_sel(rule="sign")
    growth = bounded["growth"]
    assert (growth.where(growth["relative"] < 1, 0) < 1).all()
    assert (growth.where(growth["relative"] > 1, 2) > 1).all()
    np.testing.assert_allclose(growth, bounded["predicted_growth"], atol=2e-3)
    told = bounded["threshold_in_gd"].to_series().to_dict()
    # 1, 1 + μ, (1 + μ)/(1 − τ), (1 + β₁)/(1 − β₁)
    expected = {"gd": 1, "momentum": 1.9, "momentum_dampened": 19, "adam": 19, "split_sgd": 19}
    assert told == pytest.approx(expected)
    # Control: another rule's growth does not fit.
    assert np.abs(growth.sel(rule="momentum") - bounded["predicted_growth"].sel(rule="gd")).max() > 0.01
    assert data["growth"].sel(rule="sign").isnull().all()


def test_at_matched_progress_only_plain_descent_oscillates(data: xr.Dataset) -> None:
    assert (np.abs(data["reached"] - data["reference"]) <= 20).all()
    known = data.drop_sel(rule="sign")
    assert ((known["amplitude"] >= VISIBLE) == (known["stability"] > 1)).all()
    assert (data["amplitude"].sel(rule="gd") > 0.1).all()
    assert (data["amplitude"].drop_sel(rule="gd") < VISIBLE).all()
    steps = data["step_rms"].median("seed")
    assert (steps.drop_sel(rule=["gd", "sign"]) < 0.05 * steps.sel(rule="gd")).all()
    gd = data.sel(rule="gd")
    np.testing.assert_allclose(gd["told_amplitude"], gd["predicted_amplitude"], rtol=0.06)
    assert (gd["amplitude"] < gd["told_amplitude"]).all()  # both neighbours of a peak are smaller


def test_sign_descent_ends_in_its_two_cycle(data: xr.Dataset) -> None:
    sign = data.sel(rule="sign")
    np.testing.assert_allclose(sign["told_amplitude"], sign["predicted_amplitude"], rtol=0.05)
    # z moves by c η a step, far from 0 and from a step of another rule.
    np.testing.assert_allclose(sign["step_largest"], 2 * sign["predicted_amplitude"], rtol=0.1)


@pytest.mark.parametrize("rule", ["momentum", "adam", "sign"])
def test_a_run_is_theorys_descent_by_the_same_rule(data: xr.Dataset, rule: str) -> None:
    config = CONFIG.unit("gd").config(1)
    (chunk,) = draw_examples(config.model, CONFIG.examples, CONFIG.fraction, 1, CPU)
    z, y = chunk.features.numpy(), chunk.target.numpy()
    sample = SampleMoments.from_samples(z[:, :-1], z[:, -1], y)
    row = data.sel(rule=rule, seed=1)
    lr, begin = float(row["lr"]), int(row["reached"])
    maps = {
        "momentum": optimizer_maps.Momentum(lr, 0.9),
        "adam": optimizer_maps.Adam(lr),
        "sign": optimizer_maps.SignDescent(lr),
    }
    run = descend(sample.gradient, config.initial_state, lr, CONFIG.steps, maps[rule].displacement()).state
    steps = np.abs(np.diff((run.c * run.s[:, 0])[begin:]))
    assert float(row["step_largest"]) == pytest.approx(steps.max(), rel=1e-4)
    assert float(row["step_rms"]) == pytest.approx(np.sqrt((steps**2).mean()), rel=1e-4)


def test_a_rule_that_never_makes_the_progress_is_left_out_and_the_table_still_prints() -> None:
    short = OptimisersConfig(rules=("gd", "sign"), seeds=(0,), choices=3, d1=4, examples=2000, steps=20)
    data = short.combine([unit.run(CPU) for unit in short.units()])
    assert data["reached"].isnull().all()
    assert data["amplitude"].isnull().all()
    assert "gd" in short.table(data)
    assert "1 of 1 samples did not come so far, and are left out" in short.table(data)


def test_a_sample_that_does_not_come_so_far_leaves_the_others_medians(data: xr.Dataset) -> None:
    lacking = data.copy(deep=True)
    for name, column in lacking.data_vars.items():
        if "seed" in column.dims and column.dtype.kind == "f":
            lacking[name] = column.where(lacking["seed"] == data["seed"][0])
    of_first = OptimisersConfig(seeds=(0,), choices=24, d1=4, examples=8000, steps=600).table(data.isel(seed=[0]))
    told = CONFIG.table(lacking).splitlines()
    assert [line.split()[1:6] for line in told if "left out" not in line][2:-2] == [
        line.split()[1:6] for line in of_first.splitlines()[2:-2]
    ]
    assert sum("1 of 2 samples did not come so far" in line for line in told) == data.sizes["rule"]
    assert "left out" not in CONFIG.table(data)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"progress": 1.0}, "--progress is 1.0"),
        ({"threshold": 0.0}, "--threshold is 0.0"),
        ({"choices": 0}, "--choices is 0"),
        ({"fraction": 0.0}, "--fraction is 0.0"),
        ({"rules": ("gd", "gd")}, "--rules has gd twice"),
        ({"lr": 0.0}, "--lr is 0"),
    ],
)
def test_sweeps_that_cannot_be_are_refused(bad: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        OptimisersConfig(**bad)  # type: ignore[arg-type]
