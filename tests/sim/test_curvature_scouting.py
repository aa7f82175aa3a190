"""Cheap searches before exact ones: what is reported is exact, whatever the scout was off by."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sim import SharpnessProbe, mlp
from sim.curvature import EigenpairTracker, MatrixOperator, MeanLoss, MeanLossHessian, layer_blocks
from sim.curvature.scouting import Scout
from sim.curvature.subspace import Subspace
from sim.networks import layer_of_parameter

NOISE = 2e-3


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _drifting(seed: int, steps: int = 20) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(300, 300)))[0]
    values = np.concatenate([[40.0, 36.0, 33.0, 30.0, 26.0, 22.0, 18.0], np.linspace(15, -1, 293)])
    base, drift = torch.from_numpy(rotation @ np.diag(values) @ rotation.T), rng.normal(size=(300, 300)) * 0.02
    return [base + i * torch.from_numpy(drift + drift.T) for i in range(steps)]


def _off_by(noise: float, seed: int) -> Tensor:
    """Symmetric, so large that ‖E v‖ is about `noise` times 40 for a unit v."""
    wrong = np.random.default_rng(seed).normal(size=(300, 300)) * noise * 40 / np.sqrt(2 * 300)
    return torch.from_numpy(wrong + wrong.T)


@pytest.mark.parametrize("criterion", ["value", "residual"])
@pytest.mark.parametrize("noise", [NOISE, 0.3])
def test_a_scout_saves_exact_products_and_only_those_are_reported(
    criterion: Literal["value", "residual"], noise: float
) -> None:
    """A scout that is off a little, and as the control one that is off by a third: slow, but as right."""
    tolerance = 1e-3 if criterion == "value" else 1e-2
    alone = EigenpairTracker(_generator(), tolerance=tolerance, criterion=criterion)
    led = EigenpairTracker(_generator(), tolerance=tolerance, criterion=criterion)
    for i, matrix in enumerate(_drifting(0)):
        alone.refresh(MatrixOperator(matrix))
        pairs = led.refresh(MatrixOperator(matrix), Scout(MatrixOperator(matrix + _off_by(noise, i)), noise))
        vector, value = pairs.vectors[0], float(pairs.values[0])
        assert pairs.converged
        assert pairs.verified == (i == 0)
        # Of the matrix itself, not of the scout's.
        assert value == pytest.approx(float(vector @ matrix @ vector), rel=1e-12)
        assert float((matrix @ vector - value * vector).norm()) / value == pytest.approx(float(pairs.residuals[0]))
        assert value == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=3e-3)
    assert led.scouted > 20
    if noise == NOISE:
        assert led.products <= 1.2 * 20
        assert led.products < alone.products / 2
    else:
        assert led.products > 1.5 * 20


def test_a_scout_that_is_not_finite_leaves_a_search_from_nothing() -> None:
    matrix = _drifting(1, 1)[0]
    tracker = EigenpairTracker(_generator())
    pairs = tracker.refresh(MatrixOperator(matrix), Scout(MatrixOperator(matrix * torch.nan), NOISE))
    assert pairs.converged
    assert pairs.verified  # from random vectors, by exact products
    assert float(pairs.values[0]) == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=3e-3)


def test_a_scout_verifies_for_the_exact_search() -> None:
    """An eigenvector that no kept vector touches rises to the top; the verification by the scout finds it."""
    found = {}
    for verify_every in (4, 0):
        tracker, values = EigenpairTracker(_generator(), verify_every=verify_every, guard_every=0), []
        for i, inner in enumerate(_drifting(2, 8)):
            matrix = torch.zeros(301, 301, dtype=torch.float64)
            matrix[0, 0], matrix[1:, 1:] = 20.0 if i < 4 else 60.0, inner
            if i:
                assert tracker.recycled is not None
                tracker.recycled.vectors[:, 0] *= float(i > 4)
            values.append(float(tracker.refresh(MatrixOperator(matrix), Scout(MatrixOperator(matrix), 1e-6)).values))
        found[verify_every] = values
    assert found[4][4:] == pytest.approx([60] * 4, rel=1e-3)
    assert found[0][4] < 45  # the control


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 4), st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_inner_products_are_kept_up_through_growth_and_folding(
    seed: int, old: int, fold: int, sizes: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(12, 12))
    operator, beside = MatrixOperator(torch.from_numpy(matrix + matrix.T)), torch.from_numpy(rng.normal(size=(old, 12)))
    space = Subspace(operator, 12, beside)
    for i, count in enumerate(sizes):
        rows = torch.from_numpy(rng.normal(size=(count, 12)))
        if i % 2:
            rows[0] = space.basis[0]  # dropped again
        if i and count > 1:
            rows[1] = space.basis[-1] + 1e-7 * rows[1]  # to be made orthogonal twice
        extension = space.extend(rows)
        asked = next(extension)
        with pytest.raises(StopIteration):
            extension.send(operator.matmat(asked))
        if fold and space.filled > fold:
            space.fold(fold)
    np.testing.assert_allclose(space.basis @ space.basis.T, np.eye(space.filled), atol=1e-12)
    np.testing.assert_allclose(space.images, operator.matmat(space.basis), atol=1e-10)
    np.testing.assert_allclose(space.gram, beside @ beside.T, atol=1e-12)
    np.testing.assert_allclose(space.inside, beside @ space.basis.T, atol=1e-10)
    np.testing.assert_allclose(space.across, beside @ space.images.T, atol=1e-10)


def _problem() -> tuple[nn.Module, Tensor, Tensor]:
    x = torch.randn(80, 8, generator=_generator(2))
    return mlp([8, 12, 12, 3], "tanh", seed=1), x, torch.randint(0, 3, (80,), generator=_generator(3))


def test_a_probe_in_float64_scouts_in_float32_and_reports_the_dense_hessians_eigenvalues() -> None:
    network, x, y = _problem()
    parameters = [p.detach() for p in network.parameters()]
    before = [p.clone() for p in parameters]
    probe = SharpnessProbe(network, x, y, 0.3, tolerance=1e-6, criterion="residual", precision="float64")
    for step in range(0, 60, 10):
        probe(step, parameters, parameters)
    data = probe.dataset()
    hessian = MeanLossHessian(MeanLoss(network, x, y).in_float64(), [p.double() for p in parameters])
    dense = {
        name: float(torch.linalg.eigvalsh(torch.stack([h.matvec(e) for e in torch.eye(h.size).double()]))[-1])
        for name, h in {"whole": hessian, **layer_blocks(hessian, layer_of_parameter(network))}.items()
    }
    whole, *blocks = dense.values()
    assert data["converged_iterate"].all()
    assert data["block_converged"].all()
    assert float(data["residual_iterate"].max()) <= 1e-6
    np.testing.assert_allclose(data["sharpness_iterate"], whole, rtol=1e-10)
    np.testing.assert_allclose(data["block_sharpness"], [blocks] * 2, rtol=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(parameters, before, strict=True))
    assert probe._trackers["iterate"].scouted > 0
