"""The sweeps made for figures: the fit of a Chebyshev polynomial, and amplitudes over step sizes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from sim.networks import mlp
from sim.sweeps import make_sweep
from sim.sweeps.amplitude import AmplitudeConfig, EdgeUnit
from sim.sweeps.chebyshev import TOLERANCE, ChebyshevConfig
from theory import InputError
from theory.descent import gradient_descent
from theory.edge import settled

CPU = torch.device("cpu")
FIT = ChebyshevConfig(examples=12, hidden=(8,), activation="tanh", lr=0.1, steps=31, measure_every=10, seeds=(0, 1))
AMPLITUDES = AmplitudeConfig(
    spike_lrs=(0.04, 0.045), edge_lrs=(0.08,), seeds=(0, 1, 2), examples=4000, spike_steps=450, edge_steps=1300
)


@pytest.fixture(scope="module")
def amplitudes() -> xr.Dataset:
    return AMPLITUDES.combine([unit.run(CPU) for unit in AMPLITUDES.units()])


def test_the_fit_descends_and_its_sharpness_is_the_dense_hessian_s() -> None:
    """Weights by a loop over PyTorch's own optimiser, Hessian by its dense routine: neither is the sweep's."""
    data = FIT.units()[1].run(CPU)
    x = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]
    target = torch.cos(FIT.degree * torch.arccos(x))
    network = mlp([1, 8, 1], "tanh", 1).double()
    names, shapes = zip(*((n, p.shape) for n, p in network.named_parameters()), strict=True)

    def mean_loss(flat: torch.Tensor) -> torch.Tensor:
        parts = torch.split(flat, [shape.numel() for shape in shapes])
        values = {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return (torch.func.functional_call(network, values, (x,)) - target).square().mean() / 2

    optimizer = torch.optim.SGD(network.parameters(), lr=FIT.lr)
    for step in range(FIT.steps):
        np.testing.assert_allclose(data["output"][step], network(x).detach()[:, 0], atol=1e-9)
        if step % FIT.measure_every == 0:
            flat = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
            dense = torch.linalg.eigvalsh(torch.autograd.functional.hessian(mean_loss, flat))[-1]
            assert float(data["sharpness"].sel(measured=step)) == pytest.approx(float(dense), rel=TOLERANCE)
        optimizer.zero_grad()
        ((network(x) - target).square().mean() / 2).backward()
        optimizer.step()


def test_a_fit_that_diverges_ends_there() -> None:
    data = dataclasses.replace(FIT, lr=300.0, steps=200).units()[0].run(CPU)
    step = int(data["diverged_at"])
    assert 0 < step < 200
    assert np.isfinite(data["output"][:step]).all()
    assert np.isnan(data["output"][step:]).all()
    steep = dataclasses.replace(FIT, lr=300.0, steps=200, seeds=(0,))
    assert f"→ diverged at step {step}, ηλ/2" in steep.table(steep.combine([data]))


def test_the_sweeps_go_through_the_run_store_and_print_a_table(tmp_path: Path) -> None:
    data = make_sweep(FIT, tmp_path, CPU, progress=False)
    assert data.sizes == {"seed": 2, "step": 31, "example": 12, "measured": 4}
    assert data["target"].dims == ("example",)
    table = FIT.table(data)
    assert "seed 1: loss" in table
    assert f"{float(data['sharpness'].sel(seed=1).max()) * FIT.lr / 2:.2f} at most" in table


def test_spikes_are_predicted_before_the_run_and_not_by_another_step_size(amplitudes: xr.Dataset) -> None:
    ratio = (amplitudes["spike"] / amplitudes["predicted_spike"]).values
    assert np.isfinite(ratio).all()
    assert np.abs(np.log(ratio)).max() < 0.06
    other = amplitudes["spike"].values / amplitudes["predicted_spike"].values[::-1]
    assert np.median(np.abs(np.log(other))) > 0.4


def test_heights_are_the_amplitudes_in_the_edge_s_units(amplitudes: xr.Dataset) -> None:
    measured = amplitudes["spike_height"] / amplitudes["predicted_height"]
    np.testing.assert_allclose(measured, (amplitudes["spike"] / amplitudes["predicted_spike"]) ** 2)
    # α̂ of a sample of light tail lies near α: a factor of two would not.
    of_sample = amplitudes["spike_height"] / (4 * amplitudes["spike_lr"] * AMPLITUDES.alpha * amplitudes["spike"] ** 2)
    np.testing.assert_allclose(of_sample, 1, atol=0.3)
    unit = amplitudes["settled_height"] / amplitudes["settled"]
    np.testing.assert_allclose(unit, 4 * 0.08 * AMPLITUDES.alpha * np.ones((1, 3)))
    told = amplitudes["predicted_settled_height"] / amplitudes["predicted_settled"]
    np.testing.assert_allclose(told, unit)


def test_the_settled_oscillation_has_the_predicted_size_and_the_start_has_not(amplitudes: xr.Dataset) -> None:
    np.testing.assert_allclose(amplitudes["settled"] / amplitudes["predicted_settled"], 1, atol=0.02)
    assert (amplitudes["settled_steps"] > 100).all()
    unit = EdgeUnit(0.08, (0,), 20.0, 200)
    early = gradient_descent(unit.model, unit.start(0), 0.08, 60).state
    assert not settled(unit.model, early, 0.08).any()


def test_runs_that_never_settle_or_oscillate_are_undefined_not_zero() -> None:
    edge = EdgeUnit(0.08, (0,), 20.0, 50).run(CPU)
    assert np.isnan(edge["settled"]).all()
    assert (edge["settled_steps"] == 0).all()
    calm = dataclasses.replace(AMPLITUDES, spike_lrs=(0.02,), seeds=(0,), spike_steps=60).units()[0].run(CPU)
    assert np.isnan(calm["spike"]).all()
    assert np.isnan(calm["predicted_spike"]).all()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda: ChebyshevConfig(lr=0.0), "--lr is 0.0"),
        (lambda: ChebyshevConfig(examples=1), "count is 1"),
        (lambda: ChebyshevConfig(activation="step"), "activation is step"),
        (lambda: ChebyshevConfig(seeds=(1, 1)), "--seeds has 1 twice"),
        (lambda: AmplitudeConfig(spike_lrs=(0.04, -1.0)), "--spike-lrs is -1.0"),
        (lambda: AmplitudeConfig(edge_lrs=()), "--edge-lrs is empty"),
        (lambda: AmplitudeConfig(fraction=3.0), "--fraction is 3.0"),
    ],
)
def test_bad_input_is_one_line(bad: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        bad()  # type: ignore[operator]
