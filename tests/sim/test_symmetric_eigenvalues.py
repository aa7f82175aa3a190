"""Batched Lanczos against dense eigenvalues, on matrices: nothing of networks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sim import symmetric_eigenvalues
from sim.symmetric_eigenvalues import DENSE_SIZE, largest_eigenvalue


def _matrices(seed: int, eigenvalues: Tensor) -> Tensor:
    """Symmetric matrices of these eigenvalues (*batch, n), in random bases."""
    n = eigenvalues.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(*eigenvalues.shape, n, generator=generator, dtype=torch.float64)).Q
    return (q * eigenvalues[..., None, :]) @ q.mT


def _largest(matrix: Tensor, **options: float) -> tuple[Tensor, Tensor]:
    return largest_eigenvalue(lambda x: x @ matrix, matrix.shape[:-2], matrix.shape[-1], matrix, **options)


@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 2 * DENSE_SIZE),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
    negative=st.floats(0, 20),
)
def test_the_largest_algebraic_eigenvalue_is_found_at_any_size_and_scale(
    seed: int, n: int, scale: float, negative: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    eigenvalues = torch.rand(3, n, generator=generator, dtype=torch.float64)
    eigenvalues[:, 1:] -= negative * torch.rand(3, n - 1, generator=generator, dtype=torch.float64)  # larger in size
    values, residuals = _largest(scale * _matrices(seed, eigenvalues))
    # residual² / gap bounds the error; close gaps still leave less than the residual itself.
    torch.testing.assert_close(values / scale, eigenvalues.amax(-1), rtol=2e-8, atol=1e-12 * (1 + negative))
    assert bool((residuals <= 2e-8).all())


def test_matrices_that_converge_early_wait_for_the_last_and_keep_their_value() -> None:
    spread = torch.linspace(0, 1, 300, dtype=torch.float64)
    easy = torch.cat([spread * 0.1, torch.ones(1, dtype=torch.float64) * 5])
    hard = torch.cat([spread, torch.ones(1, dtype=torch.float64) * 1.003])
    low_rank = torch.zeros(301, dtype=torch.float64)
    low_rank[:2] = torch.tensor([2.0, 1.0])
    values, residuals = _largest(_matrices(0, torch.stack([easy, hard, low_rank, 0 * easy])))
    torch.testing.assert_close(values, torch.tensor([5.0, 1.003, 2.0, 0.0], dtype=torch.float64), rtol=1e-12, atol=0)
    assert float(residuals.max()) < 2e-8


def test_the_residual_given_is_that_of_the_product_and_an_unfinished_search_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(symmetric_eigenvalues, "MAX_PRODUCTS", 8)
    matrix = _matrices(1, torch.linspace(0, 1, 400, dtype=torch.float64)[None])
    values, residuals = _largest(matrix)
    exact = torch.linalg.eigvalsh(matrix)
    # A residual bounds the distance to the nearest eigenvalue.
    assert float((exact - values).abs().min()) <= float(residuals * values)
    assert 1e-3 < float(residuals) < 1


def test_operators_that_are_not_finite_are_nan_and_spare_the_others() -> None:
    for n in (10, 100):
        matrix = _matrices(2, torch.linspace(0, 1, n, dtype=torch.float64).expand(3, n)).clone()
        matrix[1, 3, 4] = torch.nan
        matrix[2, 0, 0] = torch.inf
        values, residuals = _largest(matrix)
        assert values.isnan().tolist() == [False, True, True]
        assert residuals.isnan().tolist() == [False, True, True]
        assert float(values[0]) == pytest.approx(1.0)


def test_a_coarser_tolerance_takes_fewer_products() -> None:
    matrix = _matrices(3, torch.linspace(0, 1, 200, dtype=torch.float64)[None])
    taken = []
    for tolerance in (1e-2, 1e-10):
        calls: list[Tensor] = []

        def product(x: Tensor, calls: list[Tensor] = calls) -> Tensor:
            calls.append(x)
            return x @ matrix

        _, residuals = largest_eigenvalue(product, matrix.shape[:-2], 200, matrix, tolerance=tolerance)
        assert float(residuals) <= tolerance
        taken.append(len(calls))
    assert taken[0] < taken[1] / 2


def test_float32_reaches_the_root_of_its_rounding() -> None:
    matrix = _matrices(4, torch.linspace(0, 1, 100, dtype=torch.float64)[None]).float()
    values, residuals = _largest(matrix)
    assert values.dtype == torch.float32
    assert float(residuals) <= 4e-4
    assert float(values) == pytest.approx(1.0, rel=1e-5)
