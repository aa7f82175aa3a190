"""The sparsest rotation: of the same span, no less sparse; disjoint supports come apart from any mixture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from validate.quartimax import quartimax


def orthonormal(rng: np.random.Generator, rows: int, n: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(n, rows)))[0].T


def fourth_powers(rows: np.ndarray) -> float:
    return float((rows**4).sum())


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(6, 40))
def test_it_is_a_rotation_and_never_less_sparse(seed: int, count: int, n: int) -> None:
    rows = orthonormal(np.random.default_rng(seed), count, n)
    kept = rows.copy()
    turned = quartimax(rows)
    np.testing.assert_array_equal(rows, kept)
    np.testing.assert_allclose(turned @ turned.T, np.eye(count), atol=1e-10)
    np.testing.assert_allclose(turned.T @ turned, rows.T @ rows, atol=1e-10)
    assert fourth_powers(turned) >= fourth_powers(rows) - 1e-12
    # No plane turns any more: a local maximum.
    assert fourth_powers(quartimax(turned)) == pytest.approx(fourth_powers(turned), rel=1e-6)


@given(st.integers(0, 10**6), st.integers(2, 12), st.booleans())
@example(0, 2, True)
@example(0, 4, True)
def test_disjoint_supports_come_apart_from_any_mixture(seed: int, count: int, even: bool) -> None:
    """Also from even mixtures (Hadamard), of which every entry is as large: there the criterion is least, and flat."""
    rng = np.random.default_rng(seed)
    sparse = np.kron(np.eye(count), rng.choice([-1.0, 1.0], 3) / np.sqrt(3))
    turn = orthonormal(rng, count, count)
    if even and count in (2, 4, 8):
        turn = np.array([[1.0]])
        while len(turn) < count:
            turn = np.block([[turn, turn], [turn, -turn]]) / np.sqrt(2)
    found = np.abs(quartimax(turn @ sparse))
    np.testing.assert_allclose(np.sort(found @ np.abs(sparse).T, axis=1)[:, -1], 1.0, atol=1e-6)


@given(st.integers(0, 10**6), st.integers(2, 30))
def test_two_directions_get_the_best_of_all_angles(seed: int, n: int) -> None:
    x, y = orthonormal(np.random.default_rng(seed), 2, n)
    angles = np.linspace(0, np.pi / 2, 2001)[:, None]
    best = (
        ((np.cos(angles) * x + np.sin(angles) * y) ** 4 + (np.cos(angles) * y - np.sin(angles) * x) ** 4).sum(1).max()
    )
    assert fourth_powers(quartimax(np.stack([x, y]))) == pytest.approx(best, rel=1e-5)
