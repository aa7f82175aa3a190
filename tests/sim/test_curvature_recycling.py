"""Stopping on the value's error, and recycled directions: what they promise, and what garbage does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from sim import SharpnessProbe, mlp
from sim.curvature import EigenpairTracker, MatrixOperator, MeanLoss, MeanLossHessian, top_eigenpairs
from sim.curvature.error_bounds import ritz_value_errors
from sim.curvature.recycling import Mixture, Recycled
from sim.curvature.subspace import Subspace
from theory import InputError


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _rotation(n: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


def _matrix(values: np.ndarray, seed: int = 0) -> Tensor:
    rotation = _rotation(len(values), seed)
    return torch.from_numpy(rotation @ np.diag(values) @ rotation.T)


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 4), st.floats(-6, 1), st.floats(0, 3))
def test_residuals_bound_the_errors_of_ritz_values(seed: int, k: int, more: int, exponent: float, gap: float) -> None:
    """Dense eigenvalues of random matrices against Rayleigh–Ritz on a perturbed invariant subspace."""
    rng = np.random.default_rng(seed)
    n = k + 1 + more
    values = np.sort(rng.normal(size=n))[::-1].copy()
    values[:k] += gap
    rotation = _rotation(n, seed)
    matrix = rotation @ np.diag(values) @ rotation.T
    basis = np.linalg.qr(rotation[:, :k] + 10**exponent * rng.normal(size=(n, k)))[0]
    theta, y = np.linalg.eigh(basis.T @ matrix @ basis)
    theta, vectors = theta[::-1], (basis @ y)[:, ::-1]
    norms = np.linalg.norm(matrix @ vectors - vectors * theta, axis=0)
    rest = np.linalg.svd(vectors, full_matrices=True)[0][:, k:]
    beyond = values[1] if k == 1 else np.linalg.eigvalsh(rest.T @ matrix @ rest)[-1]
    errors = ritz_value_errors(torch.from_numpy(norms), torch.from_numpy(theta.copy()), float(beyond)).numpy()
    if beyond >= theta[-1]:
        assert np.isinf(errors).all() or not norms.any()  # no claim
        return
    assert (values[:k] - theta <= errors * np.abs(theta) + 1e-12).all()


def test_the_bound_is_reached_in_two_dimensions() -> None:
    """With two eigenvalues, Temple's inequality is an equality: no smaller bound holds."""
    for angle in (0.05, 0.3, 0.7):
        c, s = np.cos(angle) ** 2, np.sin(angle) ** 2
        theta = 5 * c + 2 * s
        norm = np.sqrt(25 * c + 4 * s - theta**2)
        error = float(ritz_value_errors(torch.tensor([norm]), torch.tensor([theta]), 2.0)[0])
        assert error * theta == pytest.approx(5 - theta)


def test_the_residuals_of_all_pairs_count_in_the_bound_of_each() -> None:
    """0.3² + 0.4² over the gap of 9 − 8, relative to each value."""
    errors = ritz_value_errors(torch.tensor([0.3, 0.4]), torch.tensor([10.0, 9.0]), 8.0)
    assert errors.tolist() == pytest.approx([0.25 / 10, 0.25 / 9])


def _recycled(matrix: Tensor, chosen: list[int]) -> Recycled:
    values, vectors = torch.linalg.eigh(matrix)
    return Recycled(vectors.flip(1)[:, chosen].T.contiguous(), values.flip(0)[chosen])


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 6))
def test_the_mixture_is_rayleigh_ritz_of_the_operator_beside_its_model(seed: int, new: int, old: int) -> None:
    """H where a new vector is on one side at least, the old pairs' Ĥ where none is, all as one dense matrix."""
    rng = np.random.default_rng(seed)
    matrix = _matrix(rng.normal(size=12), seed)
    recycled = _recycled(matrix + _matrix(0.1 * rng.normal(size=12), seed + 1), list(range(old)))
    space = Subspace(MatrixOperator(matrix), 8, recycled.vectors)
    rows = torch.from_numpy(rng.normal(size=(new, 12)))
    rows[0] += 10 * recycled.vectors[0]
    extension = space.extend(rows)
    asked = next(extension)
    with pytest.raises(StopIteration):
        extension.send(asked @ matrix)
    new_part = (space.basis.T @ space.basis).numpy()
    both = np.linalg.qr(torch.cat([space.basis, recycled.vectors]).numpy().T)[0]
    old_part = both @ both.T - new_part
    model = (recycled.vectors.T @ torch.diag(recycled.values) @ recycled.vectors).numpy()
    dense = matrix.numpy() - old_part @ matrix.numpy() @ old_part + old_part @ model @ old_part
    values = np.linalg.eigvalsh(both.T @ dense @ both)
    mixture = Mixture(space, recycled)
    np.testing.assert_allclose(mixture.values, values[::-1], atol=1e-9)
    leading = mixture.leading(3)
    np.testing.assert_allclose(leading.vectors @ leading.vectors.T, np.eye(len(leading.vectors)), atol=1e-9)
    images = leading.vectors.numpy() @ both @ both.T @ dense @ both @ both.T
    np.testing.assert_allclose(images, leading.values[:, None].numpy() * leading.vectors.numpy(), atol=1e-9)


spectra = st.lists(
    st.sampled_from([-1e4, -22.6, -1.0, -1e-7, 0.0, 1e-6, 1.0, 1.0, 3.0, 7.5, 100.0]), min_size=1, max_size=30
)


@given(spectra, st.integers(1, 3), st.integers(0, 99), st.sampled_from([0.0, 1.0, -50.0, 1e6]), st.booleans())
@example([0.0] * 5, 2, 0, 0.0, False)
@example([-3.0], 1, 0, 0.0, True)
@example([-1.0] * 6, 3, 0, 1.0, True)
@example([-22.6] + [0.0] * 8, 2, 3, -50.0, False)
def test_recycled_vectors_that_know_nothing_do_no_harm(
    values: list[float], k: int, seed: int, claimed: float, repeated: bool
) -> None:
    """Random directions with made-up values: the verified pairs are the top ones all the same."""
    matrix, n = _matrix(np.array(values), seed), len(values)
    rng = np.random.default_rng(seed)
    vectors = torch.from_numpy(_rotation(n, seed + 1)[: min(6, n)].copy())
    if repeated:
        vectors[-1] = vectors[0]  # not orthonormal either
    made_up = torch.from_numpy(np.sort(claimed * rng.random(len(vectors)))[::-1].copy())
    for criterion in ("residual", "value"):
        pairs = top_eigenpairs(
            MatrixOperator(matrix),
            generator=_generator(seed),
            k=k,
            recycled=Recycled(vectors, made_up),
            keep=5,
            tolerance=1e-9,
            criterion=criterion,  # type: ignore[arg-type]
            verify=True,
        )
        scale = max(np.abs(values).max(), 1e-12)
        assert pairs.converged
        assert pairs.criterion == criterion
        np.testing.assert_allclose(pairs.values, np.sort(values)[::-1][: min(k, n)], atol=1e-8 * scale)
        kept = pairs.recycled
        assert kept is not None
        assert torch.isfinite(kept.vectors).all()
        np.testing.assert_allclose(kept.vectors @ kept.vectors.T, np.eye(len(kept.vectors)), atol=1e-6)


def _drifting(seed: int, steps: int = 30, turn: float = 0.02) -> list[Tensor]:
    """Matrices of a spectrum like a network's at the edge, whose vectors turn."""
    rng = np.random.default_rng(seed)
    base = _matrix(np.concatenate([[40.0, 36.0, 33.0, 30.0, 26.0, 22.0, 18.0], np.linspace(15, -1, 293)]), seed)
    drift = torch.from_numpy(rng.normal(size=(300, 300))) * turn
    return [base + i * (drift + drift.T) for i in range(steps)]


@pytest.mark.parametrize("seed", range(3))
def test_by_value_a_refresh_takes_fewer_products_and_keeps_its_promise(seed: int) -> None:
    matrices = _drifting(seed)
    exact = np.array([np.linalg.eigvalsh(m.numpy())[-1] for m in matrices])
    tracker = EigenpairTracker(_generator(), verify_every=0)
    pairs = [tracker.refresh(MatrixOperator(m)) for m in matrices]
    assert all(p.converged for p in pairs)
    errors = 1 - np.array([float(p.values[0]) for p in pairs]) / exact
    assert (errors >= -1e-12).all()
    # The gap is to a Ritz value, so where vectors turn as fast as here an estimate falls short now and then.
    assert np.mean(errors <= 1e-3) >= 0.8
    assert (3 * np.array([float(p.errors[0]) for p in pairs]) >= errors).all()
    assert tracker.products == sum(p.products for p in pairs)
    # The control: from the last vectors alone, to the residual that is asked for elsewhere.
    spent, start = [], None
    for m in matrices:
        last = top_eigenpairs(MatrixOperator(m), generator=_generator(), start=start, tolerance=1e-2)
        start = last.vectors
        spent.append(last.products)
    assert np.mean([p.products for p in pairs[1:]]) < min(3, np.mean(spent[1:]) - 0.5)


def test_an_eigenvalue_that_overtakes_in_directions_never_touched_is_seen_by_the_guard() -> None:
    """Two blocks that do not couple: products in the first tell nothing of the second's top, which rises past."""
    first, second = _drifting(1, 25, 0.005), _drifting(2, 25, 0.005)
    found, exact = {}, []
    for guard_every in (5, 0):
        tracker = EigenpairTracker(_generator(), verify_every=0, guard_every=guard_every)
        values, exact = [], []
        for refresh in range(25):
            matrix = torch.block_diag(first[refresh], (0.93 + refresh / 50) * second[refresh])
            values.append(float(tracker.refresh(MatrixOperator(matrix)).values[0]))
            exact.append(float(torch.linalg.eigvalsh(matrix)[-1]))
            if refresh == 0:  # no vector reaches into both blocks
                assert tracker.recycled is not None
                parts = [torch.linalg.eigh(matrix[:300, :300]), torch.linalg.eigh(matrix[300:, 300:])]
                vectors = torch.zeros(12, 600, dtype=torch.float64)
                vectors[:6, :300], vectors[6:, 300:] = parts[0][1].T[-6:], parts[1][1].T[-6:]
                kept = torch.cat([parts[0][0][-6:], parts[1][0][-6:]])
                order = kept.argsort(descending=True)
                tracker.recycled = Recycled(vectors[order], kept[order])
        found[guard_every] = np.abs(np.array(values) / exact - 1) > 2e-3
    assert exact[-1] > 1.1 * float(torch.linalg.eigvalsh(first[-1])[-1])
    assert found[5].sum() <= 4
    assert not found[5][-5:].any()
    assert found[0].sum() >= found[5].sum() + 5  # the control: without the guard it stays unseen for longer


def test_a_tracker_goes_on_from_its_state_to_the_same_bits() -> None:
    matrices = [MatrixOperator(m.float()) for m in _drifting(5, 12)]
    whole = EigenpairTracker(_generator(), verify_every=5)
    first = EigenpairTracker(_generator(), verify_every=5)
    expected = [whole.refresh(m) for m in matrices]
    for m in matrices[:7]:
        first.refresh(m)
    resumed = EigenpairTracker(torch.Generator(), verify_every=5)
    resumed.generator.set_state(first.generator.get_state())
    resumed.load_state_dict(first.state_dict(), torch.device("cpu"))
    for m, pairs in zip(matrices[7:], expected[7:], strict=True):
        again = resumed.refresh(m)
        assert torch.equal(again.values, pairs.values)
        assert torch.equal(again.vectors, pairs.vectors)
    assert (resumed.products, resumed.refreshes) == (whole.products, whole.refreshes)


def test_a_midpoint_starts_from_the_iterate_where_that_is_nearer_than_the_last_midpoint() -> None:
    x = torch.randn(60, 8, generator=_generator(2))
    y = torch.randint(0, 3, (60,), generator=_generator(3))
    network = mlp([8, 12, 12, 3], "tanh", seed=1)
    start = [p.detach() for p in network.parameters()]
    drift, bounce = ([torch.randn(p.shape, generator=_generator(seed)) for p in start] for seed in (4, 5))

    def points(swing: float) -> Iterator[tuple[int, list[Tensor], list[Tensor]]]:
        """Midpoints that drift by 0.1 from look to look, and iterates half a step from them, with η = 2."""
        for look in range(6):
            on = zip(start, drift, bounce, strict=True)
            yield 10 * look, [p + 0.1 * look * d + swing * b for p, d, b in on], [swing * b for b in bounce]

    def probe() -> SharpnessProbe:
        return SharpnessProbe(network, x, y, 2.0, blocks_every=0)

    spent = {}
    for swing in (0.002, 0.05):  # a fiftieth of the way, as before the edge, and half of it, across a valley
        whole, first, second = probe(), probe(), probe()
        calls = list(points(swing))
        for call in calls:
            whole(*call)
        near, far = (whole._trackers[place].products for place in ("midpoint", "iterate"))
        spent[swing] = near / far
        for call in calls[:3]:
            first(*call)
        second.load_state_dict(first.state_dict())
        for call in calls[3:]:
            first(*call)
            second(*call)
        for one in (first, second):
            assert all(
                np.array_equal(one.dataset()[name].values[-3:], whole.dataset()[name].values[-3:])
                for name in ("sharpness_midpoint", "sharpness_iterate", "residual_midpoint")
            )
        assert whole.dataset()["converged_midpoint"].all()
    assert spent[0.002] < 0.7
    assert spent[0.05] == pytest.approx(1, abs=0.2)  # each from its own


def test_a_residual_of_a_millionth_on_request() -> None:
    """Out of float32's reach, which says so; products in float64 meet it, and give the dense Hessian's eigenvalue."""
    x = torch.randn(60, 8, generator=_generator(2))
    y = torch.randint(0, 3, (60,), generator=_generator(3))
    network = mlp([8, 12, 12, 3], "tanh", seed=1)
    parameters = [p.detach() for p in network.parameters()]
    probes = {
        precision: SharpnessProbe(
            network, x, y, 0.3, tolerance=1e-6, criterion="residual", precision=precision, blocks_every=10
        )
        for precision in ("float32", "float64")
    }
    for probe in probes.values():
        probe(0, parameters, parameters)
    coarse, fine = (probe.dataset() for probe in probes.values())
    assert all(p.dtype == torch.float32 for p in network.parameters())
    dense_operator = MeanLossHessian(MeanLoss(network, x, y).in_float64(), [p.double() for p in parameters])
    dense = torch.stack([dense_operator.matvec(e) for e in torch.eye(dense_operator.size, dtype=torch.float64)])
    top = float(torch.linalg.eigvalsh(dense)[-1])
    assert fine["converged_iterate"].all()
    assert fine["block_converged"].all()
    assert float(fine["residual_iterate"][0]) <= 1e-6
    assert float(fine["sharpness_iterate"][0]) == pytest.approx(top, rel=1e-11)
    met = float(coarse["residual_iterate"][0]) <= 1e-6
    assert bool(coarse["converged_iterate"][0]) == met  # never silently unconverged
    assert float(coarse["sharpness_iterate"][0]) == pytest.approx(top, rel=1e-5)


def test_senseless_requests_are_refused() -> None:
    operator, vectors = MatrixOperator(torch.eye(4)), torch.eye(4)[:2]
    recycled = Recycled(vectors, torch.ones(2, dtype=torch.float64))
    with pytest.raises(InputError, match="criterion is speed"):
        top_eigenpairs(operator, generator=_generator(), criterion="speed")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one of both"):
        top_eigenpairs(operator, generator=_generator(), start=vectors, recycled=recycled)
    with pytest.raises(InputError, match="rows of 4"):
        top_eigenpairs(operator, generator=_generator(), recycled=Recycled(vectors[:, :3], recycled.values))


def test_old_vectors_that_turned_among_themselves_are_found_in_fewer_products() -> None:
    """The operator has mixed the old top vectors: its product with one of them tells where it went, the others how far.

    The control knows that one alone, and has to find the others by residuals.
    """
    values = np.concatenate([[40.0, 37.0, 33.0, 30.0, 26.0, 22.0], np.linspace(5, -1, 200)])
    spent = []
    for seed in range(10):
        matrix = _matrix(values, seed)
        recycled = _recycled(matrix, list(range(6)))
        turn = np.random.default_rng(seed).normal(size=(6, 6))
        moved = matrix + recycled.vectors.T @ torch.from_numpy(turn + turn.T) @ recycled.vectors
        exact = float(torch.linalg.eigvalsh(moved)[-1])
        for known in (6, 1):
            given = Recycled(recycled.vectors[:known], recycled.values[:known])
            pairs = top_eigenpairs(
                MatrixOperator(moved), generator=_generator(), recycled=given, tolerance=1e-3, verify=False
            )
            assert float(pairs.values[0]) == pytest.approx(exact, rel=1e-3)
            spent.append(pairs.products)
    assert np.mean(spent[::2]) < np.mean(spent[1::2]) - 0.5
