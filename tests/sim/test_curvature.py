"""Hessian products and eigenpairs against dense Hessians, LAPACK, SciPy, curvlinops and central differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from curvlinops import HessianLinearOperator
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh

from sim import mlp
from sim.curvature import HessianOperator, MatrixOperator, layer_blocks, layer_shares, top_eigenpairs
from sim.networks import layer_of_parameter


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _problem(activation: str = "tanh") -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    network = mlp([5, 6, 4, 3], activation, seed=1).double()
    x = torch.randn(40, 5, generator=_generator(2), dtype=torch.float64)
    y = torch.randint(0, 3, (40,), generator=_generator(3))
    return network, x, y


def _operator(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> HessianOperator:
    return HessianOperator(F.cross_entropy(network(x), y), list(network.parameters()))


@st.composite
def symmetric(draw: st.DrawFn) -> torch.Tensor:
    """Symmetric matrices of a drawn spectrum: any signs, repeated and zero eigenvalues included."""
    values = draw(
        st.lists(st.sampled_from([-50.0, -1.0, 0.0, 1e-6, 1.0, 1.0, 3.0, 7.5, 100.0]), min_size=1, max_size=30)
    )
    n = len(values)
    rotation = np.linalg.qr(np.random.default_rng(draw(st.integers(0, 99))).normal(size=(n, n)))[0]
    return torch.from_numpy(rotation @ np.diag(values) @ rotation.T)


@given(symmetric(), st.integers(1, 3))
@example(torch.zeros(4, 4, dtype=torch.float64), 2)
@example(torch.tensor([[-3.0]], dtype=torch.float64), 1)
@example(-torch.eye(5, dtype=torch.float64), 3)
def test_top_eigenpairs_are_the_algebraically_largest(matrix: torch.Tensor, k: int) -> None:
    pairs = top_eigenpairs(MatrixOperator(matrix), generator=_generator(), k=k, tolerance=1e-8)
    expected = np.linalg.eigvalsh(matrix.numpy())[::-1][: min(k, len(matrix))]
    assert pairs.converged
    scale = max(1.0, float(matrix.abs().max()))
    np.testing.assert_allclose(pairs.values.numpy(), expected, atol=1e-6 * scale)
    residual = matrix @ pairs.vectors[0] - pairs.values[0] * pairs.vectors[0]
    assert float(residual.norm()) <= 1e-7 * scale


def test_the_largest_is_found_where_the_largest_in_magnitude_is_negative() -> None:
    matrix = torch.diag(torch.tensor([-22.6, *np.linspace(-1, 2, 200)], dtype=torch.float64))
    pairs = top_eigenpairs(MatrixOperator(matrix), generator=_generator(), tolerance=1e-6)
    assert float(pairs.values[0]) == pytest.approx(2.0, abs=1e-6)


def test_an_unmet_tolerance_is_said() -> None:
    matrix = torch.diag(torch.linspace(0, 1, 400, dtype=torch.float64))
    pairs = top_eigenpairs(MatrixOperator(matrix), generator=_generator(), tolerance=1e-12, max_products=8)
    assert not pairs.converged
    assert float(pairs.residuals[0]) > 1e-12
    assert pairs.products <= 10


def test_restarts_keep_converging_in_a_small_basis() -> None:
    matrix = torch.diag(torch.cat([torch.linspace(0, 1, 300), torch.tensor([1.05, 1.3])]).double())
    pairs = top_eigenpairs(
        MatrixOperator(matrix), generator=_generator(), k=2, tolerance=1e-6, max_basis=12, max_products=2000
    )
    assert pairs.converged
    np.testing.assert_allclose(pairs.values, [1.3, 1.05], atol=1e-8)


def test_a_warm_start_takes_few_products() -> None:
    rng = np.random.default_rng(0)
    base = torch.diag(torch.cat([torch.linspace(0, 1, 500), torch.tensor([1.5, 2.0])]).double())
    cold = top_eigenpairs(MatrixOperator(base), generator=_generator(), tolerance=1e-3)
    nudge = torch.from_numpy(rng.normal(size=(502, 502))) * 1e-4
    warm = top_eigenpairs(
        MatrixOperator(base + nudge + nudge.T), generator=_generator(), start=cold.vectors, tolerance=1e-2
    )
    assert warm.converged
    assert warm.products <= 4 < cold.products


def test_a_warm_start_follows_a_crossing_of_eigenvalues() -> None:
    """The guard vector sees the second eigenvalue overtake the first."""
    values = torch.linspace(0, 1, 300, dtype=torch.float64)
    before = top_eigenpairs(
        MatrixOperator(torch.diag(torch.cat([values, torch.tensor([2.0, 1.9]).double()]))),
        generator=_generator(),
        tolerance=1e-8,
    )
    after = top_eigenpairs(
        MatrixOperator(torch.diag(torch.cat([values, torch.tensor([2.0, 2.1]).double()]))),
        generator=_generator(),
        start=before.vectors,
        tolerance=1e-3,
    )
    assert float(after.values[0]) == pytest.approx(2.1, rel=1e-6)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_hessian_products_equal_curvlinops_and_differences_of_gradients(activation: str) -> None:
    network, x, y = _problem(activation)
    parameters = list(network.parameters())
    operator = _operator(network, x, y)
    vector = torch.randn(operator.size, generator=_generator(4), dtype=torch.float64)
    product = operator.matvec(vector)
    oracle = HessianLinearOperator(network, torch.nn.CrossEntropyLoss(), parameters, [(x, y)])
    torch.testing.assert_close(product, (oracle @ vector).detach(), rtol=1e-8, atol=1e-10)

    def gradient_at(shift: float) -> torch.Tensor:
        moved = [
            (p + shift * v.view_as(p)).detach().requires_grad_()
            for p, v in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True)
        ]
        names = [name for name, _ in network.named_parameters()]
        output = torch.func.functional_call(network, dict(zip(names, moved, strict=True)), (x,))
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(F.cross_entropy(output, y), moved)])

    difference = (gradient_at(1e-5) - gradient_at(-1e-5)) / 2e-5
    torch.testing.assert_close(product, difference, rtol=1e-5, atol=1e-7)


def test_sharpness_and_blocks_equal_the_dense_hessian_and_scipy() -> None:
    network, x, y = _problem()
    operator = _operator(network, x, y)
    dense = torch.stack([operator.matvec(e) for e in torch.eye(operator.size, dtype=torch.float64)])
    torch.testing.assert_close(dense, dense.T, rtol=1e-10, atol=1e-12)
    top = top_eigenpairs(operator, generator=_generator(), tolerance=1e-9)
    assert float(top.values[0]) == pytest.approx(np.linalg.eigvalsh(dense.numpy())[-1], rel=1e-10)
    assert float(top.values[0]) == pytest.approx(eigsh(dense.numpy(), k=1, which="LA")[0][0], rel=1e-8)
    layers = layer_of_parameter(network)
    begin = 0
    for name, block in layer_blocks(operator, layers).items():
        part = dense[begin : begin + block.size, begin : begin + block.size]
        begin += block.size
        found = top_eigenpairs(block, generator=_generator(), tolerance=1e-9).values[0]
        assert float(found) == pytest.approx(np.linalg.eigvalsh(part.numpy())[-1], rel=1e-9), name
        assert float(found) <= float(top.values[0]) * (1 + 1e-9)
    assert begin == operator.size


def test_a_linear_loss_has_a_zero_hessian_and_one_parameter_is_enough() -> None:
    weight = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    linear = HessianOperator((3 * weight).sum(), [weight])
    assert float(top_eigenpairs(linear, generator=_generator()).values[0]) == 0
    square = HessianOperator((weight**2).sum() * -2, [weight])
    pairs = top_eigenpairs(square, generator=_generator())
    assert float(pairs.values[0]) == pytest.approx(-4)
    assert pairs.converged


@given(
    st.lists(st.floats(-10, 10, allow_subnormal=False), min_size=3, max_size=3).filter(
        lambda v: sum(abs(a) for a in v) > 0.1
    )
)
def test_layer_shares_sum_to_one(values: list[float]) -> None:
    shares = layer_shares(torch.tensor(values, dtype=torch.float64), [1, 1, 1], ["a", "b", "a"])
    assert shares.sum() == pytest.approx(1)
    assert shares[1] == pytest.approx(values[1] ** 2 / sum(v**2 for v in values))
