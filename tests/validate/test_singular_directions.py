"""Streamed singular vectors are those of the dense matrix, read block by block; stability is against chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from cases import planted
from hypothesis import given
from hypothesis import strategies as st

import validate.singular_directions as module
from sim.record import Record
from theory.command_line import InputError
from validate.opposing_groups import OpposingPair, singular_pairs, stability
from validate.singular_directions import singular_directions


def _close_to_dense(losses: np.ndarray, count: int, block_bytes: int, rtol: float = 1e-9) -> None:
    """SciPy and NumPy share LAPACK, not the way: the dense SVD never forms a Gram matrix."""
    changes = np.diff(np.asarray(losses, dtype=np.float64), axis=0)
    left, values, right = np.linalg.svd(changes, full_matrices=False)
    found = singular_directions(losses, count=count, block_bytes=block_bytes)
    k = len(found.values)
    assert found.total == pytest.approx((changes**2).sum(), rel=1e-10)
    np.testing.assert_allclose(found.values, values[:k], rtol=rtol)
    # Signs are ours: both factors flip together.
    signs = np.sign((found.directions * right[:k]).sum(1))[:, None]
    np.testing.assert_allclose(found.directions * signs, right[:k], atol=1e-6)
    np.testing.assert_allclose(found.phases * signs, left[:, :k].T, atol=1e-6)


@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 60), st.sampled_from([1, 100, 1000, 10**6]))
def test_streamed_triplets_are_those_of_the_dense_matrix(seed: int, steps: int, n: int, block_bytes: int) -> None:
    rng = np.random.default_rng(seed)
    # Well separated strengths: vectors of equal singular values are not determined.
    rank = min(steps - 1, n, 4)
    left = np.linalg.qr(rng.normal(size=(steps - 1, rank)))[0]
    right = np.linalg.qr(rng.normal(size=(n, rank)))[0]
    changes = (left * 10.0 ** -np.arange(rank)) @ right.T
    losses = np.concatenate([np.zeros((1, n)), changes.cumsum(0)])
    _close_to_dense(losses, rank, block_bytes)


def test_pairs_found_in_a_record_on_disk_are_those_of_the_array(tmp_path: Path) -> None:
    losses = planted(0, n=300, steps=50).astype(np.float32)
    record = Record(tmp_path / "trajectory.zarr", chunk_bytes=4000)
    record.declare("loss", ("step", "example"), (300,), "float32")
    for row in losses:
        record.append("loss", row)
    lazily = record.dataset()["loss"]
    dense = singular_directions(losses.astype(np.float64))
    streamed = singular_directions(lazily, block_bytes=5000)
    np.testing.assert_allclose(streamed.directions, dense.directions, atol=1e-12)
    _close_to_dense(losses, 3, 5000)
    pairs = singular_pairs(lazily, count=2, size=10)
    assert sorted(pairs[0].positive.tolist() + pairs[0].negative.tolist()) == list(range(20))


def test_no_block_is_larger_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    whole = module._changes

    def watched(*args: object) -> np.ndarray:
        block = whole(*args)  # type: ignore[arg-type]
        sizes.append(block.nbytes)
        return block

    monkeypatch.setattr(module, "_changes", watched)
    for steps, n in ((20, 3000), (400, 30)):
        sizes.clear()
        singular_directions(np.random.default_rng(0).normal(size=(steps, n)), block_bytes=8000)
        assert max(sizes) <= 8000 < 8 * steps * n
        # Two passes over every change.
        assert sum(sizes) == 2 * 8 * (steps - 1) * n


def test_what_has_no_directions_is_refused_or_left_out() -> None:
    assert singular_directions(np.ones((5, 4))).energy.tolist() == [0.0]
    rank_one = np.outer([1.0, -1.0, 1.0], [3.0, -4.0, 0.0])
    assert len(singular_directions(rank_one, count=3).values) == 1
    for bad in (np.ones((1, 4)), np.ones(4), np.array([[1.0, np.nan], [1.0, 2.0]])):
        with pytest.raises(InputError):
            singular_directions(bad)


def test_steps_that_come_second_are_not_read_as_examples() -> None:
    losses = xr.DataArray(np.random.default_rng(0).normal(size=(30, 50)), dims=("step", "example"))
    assert len(singular_pairs(losses, size=5)) == 3
    with pytest.raises(InputError, match=r"losses are example × step: give steps × examples, as \.T gives them"):
        singular_pairs(losses.T, size=5)


def test_stability_is_one_for_the_same_examples_and_chance_for_others() -> None:
    rng = np.random.default_rng(0)
    same = [singular_pairs(planted(seed), count=2, size=10) for seed in range(3)]
    steady = stability(same, 1000, rng)
    assert steady.mean == 1.0
    noise = [singular_pairs(rng.normal(size=(30, 1000)), count=2, size=10) for _ in range(4)]
    wandering = stability(noise, 1000, rng)
    # 20 of 1,000 examples: about 2 % by chance with two pairs to match.
    assert wandering.mean < 0.1
    assert steady.chance < 0.05
    assert np.isnan(stability(same[:1], 1000, rng).mean)


@pytest.mark.parametrize("pairs", [1, 3])
def test_chance_is_that_of_the_best_of_as_many_pairs_as_the_longest_list_holds(pairs: int) -> None:
    """Of four examples two a side: a random pair is the same in one case of three, and half the same in the others."""
    pair = OpposingPair(np.array([0, 1]), np.array([2, 3]), 1.0, 1.0)
    found = stability([[pair], [pair] * pairs], 4, np.random.default_rng(0), draws=1000)
    assert found.chance == pytest.approx(1 - (2 / 3) ** pairs / 2, abs=0.025)
