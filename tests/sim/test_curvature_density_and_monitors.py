"""Spectral density against known spectra and traces; free monitors against quadratics and integrated curvature."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from sim import descend, mlp
from sim.curvature import (
    EdgeMonitor,
    MatrixOperator,
    MeanLoss,
    MeanLossHessian,
    rayleigh_quotient,
    spectral_density,
)
from theory import InputError


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _matrix(values: np.ndarray, seed: int = 0) -> torch.Tensor:
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    return torch.from_numpy(rotation @ np.diag(values) @ rotation.T)


def test_a_uniform_spectrum_with_an_outlier_has_its_density() -> None:
    values = np.concatenate([np.linspace(-1, 1, 799), [8.0]])
    operator = MatrixOperator(torch.diag(torch.from_numpy(values)))
    found = spectral_density(operator, generator=_generator(), probes=40, steps=60, width=0.1, together=7)
    expected = np.exp(-0.5 * ((found.grid[:, None] - values) / 0.1) ** 2).mean(axis=1) / (0.1 * np.sqrt(2 * np.pi))
    # Standard errors are themselves estimates of 40 probes; where there is no density, neither is there scatter.
    misses = np.abs(found.density - expected) > 4 * found.standard_error + 1e-3
    assert misses.mean() < 0.01
    assert np.trapezoid(found.density, found.grid) == pytest.approx(1, abs=1e-4)
    assert found.standard_error.max() < 0.05
    assert found.nodes[:, -1] == pytest.approx(8.0)
    assert found.products == 2400
    for power in (1, 2, 5):
        mean, error = found.mean(lambda x, power=power: x**power)
        assert abs(mean - (values**power).mean()) < 4 * error
    share, error = found.mean(lambda x: (x > 4).astype(float))
    assert abs(share - 1 / 800) < 4 * error


def test_the_standard_error_is_that_of_repetitions() -> None:
    """Scatter of estimates over independent repetitions, against the error that each claims."""
    operator = MatrixOperator(_matrix(np.linspace(-1, 3, 60)))
    grid = np.linspace(-1, 3, 9)
    runs = [
        spectral_density(operator, generator=_generator(s), probes=8, steps=30, width=0.4, grid=grid) for s in range(30)
    ]
    scatter = np.std([run.density for run in runs], axis=0, ddof=1)
    claimed = np.sqrt(np.mean([run.standard_error**2 for run in runs], axis=0))
    np.testing.assert_allclose(scatter, claimed, rtol=0.4)


def test_the_standard_error_of_two_probes_is_half_their_difference() -> None:
    operator = MatrixOperator(torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64)))
    found = spectral_density(operator, generator=_generator(), probes=2)
    first, second = (found.weights * found.nodes).sum(axis=1)
    assert found.mean(lambda x: x) == pytest.approx(((first + second) / 2, abs(first - second) / 2), rel=1e-12)


spectra = st.lists(st.sampled_from([-30.0, -1.0, 0.0, 0.0, 1.0, 1.0, 7.5]), min_size=1, max_size=12)


@given(spectra, st.integers(0, 99), st.integers(1, 3))
@example([0.0] * 6, 0, 1)
@example([-3.0], 0, 2)
@example([2.0] * 5, 0, 3)
def test_quadrature_is_exact_where_the_krylov_space_is_exhausted(values: list[float], seed: int, together: int) -> None:
    """Enough steps for every distinct eigenvalue: uᵀf(H)u is exact for any f, and the means are those of the probes."""
    matrix = _matrix(np.array(values), seed)
    found = spectral_density(MatrixOperator(matrix), generator=_generator(seed), probes=3, together=together)
    generator = _generator(seed)
    starts = torch.stack([torch.randn(len(values), generator=generator) for _ in range(3)]).double().numpy()
    starts /= np.linalg.norm(starts, axis=1, keepdims=True)
    exact_values, vectors = np.linalg.eigh(matrix.numpy())
    for function in (np.cos, lambda x: x, lambda x: x**4 / 1e4):
        expected = ((starts @ vectors) ** 2 * function(exact_values)).sum(axis=1)
        np.testing.assert_allclose((found.weights * function(found.nodes)).sum(axis=1), expected, atol=1e-7)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1)
    assert np.isfinite(found.density).all()
    assert np.trapezoid(found.density, found.grid) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("wrong", [{"probes": 1}, {"steps": 0}, {"width": -1.0}, {"points": 0}, {"together": 0}])
def test_senseless_densities_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        spectral_density(MatrixOperator(torch.eye(3)), generator=_generator(), **wrong)  # type: ignore[arg-type]


@given(st.lists(st.floats(0.1, 30), min_size=2, max_size=6), st.integers(0, 99))
def test_on_a_quadratic_the_growth_factor_is_one_minus_eta_times_the_curvature(values: list[float], seed: int) -> None:
    """Δ_t = (1 − ηH) Δ_{t−1} exactly, and the curvature is the Rayleigh quotient along the step."""
    matrix, lr = _matrix(np.array(values), seed), 0.1
    theta, monitor, steps = torch.ones(len(values), dtype=torch.float64), EdgeMonitor(), []
    for step in range(6):
        monitor(step, [theta], [matrix @ theta])
        steps.append(-lr * (matrix @ theta))
        theta = theta + steps[-1]
    data = monitor.dataset()
    assert data["monitored"].values.tolist() == [1, 2, 3, 4, 5]
    expected = [rayleigh_quotient(MatrixOperator(matrix), step) for step in steps[:5]]
    np.testing.assert_allclose(data["secant_curvature"], expected, rtol=1e-6)
    np.testing.assert_allclose(
        data["growth_factor"][1:], 1 - lr * data["secant_curvature"].values[:-1], rtol=1e-6, atol=1e-9
    )
    assert np.isnan(data["growth_factor"][0])


def test_a_monitor_goes_on_from_a_checkpoint() -> None:
    x = torch.randn(60, 8, generator=_generator(), dtype=torch.float64)
    y = torch.randint(0, 3, (60,), generator=_generator())
    whole, points = EdgeMonitor(), []

    def keep(step: int, parameters: list[nn.Parameter], gradients: list[torch.Tensor]) -> None:
        points.append((step, [p.detach().clone() for p in parameters], [g.clone() for g in gradients]))

    network = mlp([8, 10, 3], "tanh", seed=5).double()
    descend(network, x, y, lr=0.5, steps=8, probes=[whole, keep], progress=False)  # type: ignore[list-item]
    for at in range(len(points)):
        first, second = EdgeMonitor(), EdgeMonitor()
        for point in points[:at]:
            first(*point)
        held = io.BytesIO()
        torch.save(first.state_dict(), held)
        second.load_state_dict(torch.load(io.BytesIO(held.getvalue()), weights_only=True))
        for point in points[at:]:
            second(*point)
        xr.testing.assert_identical(second.dataset(), whole.dataset())


def test_on_a_network_the_secant_curvature_is_the_segments_mean_and_monitors_change_nothing() -> None:
    x = torch.randn(60, 8, generator=_generator(), dtype=torch.float64)
    y = torch.randint(0, 3, (60,), generator=_generator())
    network, bare = (mlp([8, 10, 3], "tanh", seed=5).double() for _ in range(2))
    monitor, points = EdgeMonitor(), []

    def keep(step: int, parameters: list[nn.Parameter], gradients: list[torch.Tensor]) -> None:
        points.append([p.detach().clone() for p in parameters])

    descend(network, x, y, lr=0.5, steps=6, probes=[monitor, keep], progress=False)  # type: ignore[list-item]
    descend(bare, x, y, lr=0.5, steps=6, progress=False)
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), bare.parameters(), strict=True))
    # ∫₀¹ uᵀ H(θ + sΔ) u ds by Gauss–Legendre quadrature
    nodes, weights = np.polynomial.legendre.leggauss(5)
    objective = MeanLoss(network, x, y)
    for t, found in enumerate(monitor.dataset()["secant_curvature"].values):
        delta = [b - a for a, b in zip(points[t], points[t + 1], strict=True)]
        flat = torch.cat([d.reshape(-1) for d in delta])
        along = [
            rayleigh_quotient(
                MeanLossHessian(objective, [a + (s + 1) / 2 * d for a, d in zip(points[t], delta, strict=True)]), flat
            )
            for s in nodes
        ]
        assert found == pytest.approx(float(weights @ along) / 2, rel=1e-7)
