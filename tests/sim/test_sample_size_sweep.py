"""Sample size: the predicted exponents are measured, other exponents are not, and above the threshold none holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr

from sim.opposing_data import draw_examples
from sim.sweeps import SampleSizeConfig
from sim.sweeps.sample_size import predicted_exponent
from sim.sweeps.slopes import power_law
from theory import InputError, gradient_descent
from theory.finite_sample import SampleMoments, sample_descent

CPU = torch.device("cpu")
CONFIG = SampleSizeConfig(
    examples=(1000, 4000, 16000, 64000), tail_indices=(math.inf, 3.0), seeds=tuple(range(14)), d1=3, steps=250
)


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return CONFIG.combine([unit.run(CPU) for unit in CONFIG.units()])


def test_a_unit_is_the_distance_between_theorys_two_descents(data: xr.Dataset) -> None:
    descent = CONFIG.descent()
    unit = next(u for u in CONFIG.units() if u.examples == 4000 and math.isinf(u.tail_index))
    (chunk,) = draw_examples(descent.model, 4000, CONFIG.fraction, unit._seed(3), CPU)
    z, y = chunk.features.numpy(), chunk.target.numpy()
    moments = SampleMoments.from_samples(z[:, :-1], z[:, -1], y)
    sample = sample_descent(moments, descent.initial_state, CONFIG.lr, CONFIG.steps).state.vector
    population = gradient_descent(descent.model, descent.initial_state, CONFIG.lr, CONFIG.steps).state.vector
    told = np.linalg.norm(sample - population, axis=1).max()
    assert float(data["distance"].sel(tail_index=math.inf, examples=4000, seed=3)) == pytest.approx(told, rel=1e-9)


@pytest.mark.parametrize(("tail", "other"), [(math.inf, -1 / 3), (3.0, -1 / 2)])
def test_the_distance_falls_with_the_exponent_predicted_and_no_other(
    data: xr.Dataset, tail: float, other: float
) -> None:
    row = data.sel(tail_index=tail)
    n = row["examples"].values[:, None]
    for name in ("distance", "linear"):
        slope = power_law(n, row[name].values)
        assert slope.holds(predicted_exponent(tail))
        assert not slope.holds(other)
        assert slope.high - slope.low < 0.25
    assert not power_law(n, row["distance_edge"].values).holds(predicted_exponent(tail))
    # Shuffled over n there is no slope.
    shuffled = np.random.default_rng(0).permutation(row["distance"].values.ravel()).reshape(row["distance"].shape)
    assert not power_law(n, shuffled).holds(predicted_exponent(tail))


def test_the_distance_is_linear_in_the_moments_deviation_for_large_samples(data: xr.Dataset) -> None:
    off = np.abs(data["distance"] / data["linear"] - 1).sel(tail_index=math.inf).median("seed")
    assert float(off.sel(examples=64000)) < 0.02
    assert float(off.sel(examples=1000)) > 2 * float(off.sel(examples=64000))


def test_the_exponent_is_that_of_the_mean_of_squares() -> None:
    """NumPy's Pareto sizes alone, no dynamics: |mean X² − E X²| against n."""
    rng, sizes = np.random.default_rng(1), (1000, 10_000, 100_000)
    for a in (2.5, 3.0, 12.0):
        strays = np.array([[abs(np.mean((1 + rng.pareto(a, n)) ** 2) - a / (a - 2)) for _ in range(60)] for n in sizes])
        middle = np.median(strays, axis=1)
        assert math.log(middle[2] / middle[0]) / math.log(100) == pytest.approx(predicted_exponent(a), abs=0.08)


def test_the_intervals_of_slopes_cover_the_true_one_as_often_as_they_say() -> None:
    rng, x = np.random.default_rng(0), np.repeat([1.0, 10.0, 100.0], 5)
    fits = [power_law(x, 2 * x**-0.5 * np.exp(0.3 * rng.normal(size=x.size))) for _ in range(400)]
    assert 0.92 < np.mean([fit.holds(-0.5) for fit in fits]) < 0.98
    assert np.mean([fit.holds(-0.2) for fit in fits]) < 0.3
    with pytest.raises(InputError, match="a slope needs three"):
        power_law([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(InputError, match="a slope needs three"):
        power_law([1.0, 2.0, 3.0], [1.0, 0.0, 2.0])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"examples": (10, 20)}, "--examples is"),
        ({"examples": (10, 20, 0)}, "--examples is 0"),
        ({"tail_indices": (2.0,)}, "--tail-indices is 2.0"),
        ({"fraction": 1.5}, "--fraction is 1.5"),
        ({"lr_edge": 0.0}, "--lr-edge is 0"),
        ({"seeds": (1, 1)}, "--seeds has 1 twice"),
    ],
)
def test_sweeps_that_cannot_be_are_refused(bad: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        SampleSizeConfig(**bad)  # type: ignore[arg-type]
