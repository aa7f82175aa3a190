"""A perceptron's Hessian restricted to its inputs' leading directions: what it is, and searches that begin there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sim import SharpnessProbe, mlp
from sim.curvature import EigenpairTracker, HessianOperator, MatrixOperator, MeanLoss, MeanLossHessian, layer_blocks
from sim.curvature.error_bounds import Inside, errors_from_inside
from sim.curvature.leading_inputs import Complement, LeadingInputs, begins_linearly
from sim.curvature.mean_loss import leaves_at
from sim.curvature.scouting import Beyond, Lookout, Restricted, Scout
from sim.networks import layer_of_parameter
from theory.command_line import InputError

EXAMPLES, FEATURES, UNITS = 60, 20, 7
BUILDERS: dict[str, Callable[..., Any]] = {
    "one piece": lambda loss, at, **options: HessianOperator(
        loss.of_chunk(at, slice(0, len(loss))), at, options["deferred"]
    ),
    "chunks": lambda loss, at, **options: MeanLossHessian(loss, at, chunk=17, **options),
}


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _problem(features: int = FEATURES, examples: int = EXAMPLES) -> tuple[nn.Sequential, Tensor, Tensor]:
    """Inputs whose directions fall off, as those of images do; in float64."""
    fall = torch.linspace(0, -6, features, dtype=torch.float64).exp()
    x = (torch.randn(examples, features, generator=_generator(1), dtype=torch.float64) + 0.3) * 3 * fall
    rotation = torch.linalg.qr(torch.randn(features, features, generator=_generator(2), dtype=torch.float64)).Q
    y = torch.randint(0, 3, (examples,), generator=_generator(3))
    return mlp([features, UNITS, 5, 3], "tanh", seed=4).double(), x @ rotation, y


def _dense(operator: Any) -> Tensor:
    return torch.stack([operator.matvec(e) for e in torch.eye(operator.size, dtype=torch.float64)]).T


def test_leading_directions_are_those_of_the_singular_value_decomposition() -> None:
    _, x, _ = _problem()
    leading = LeadingInputs.of(x, 6)
    expected = torch.linalg.svd(x, full_matrices=False).Vh[:6]
    torch.testing.assert_close(leading.directions @ leading.directions.T, torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close((leading.directions @ expected.T).abs(), torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(leading.both, torch.cat([x @ leading.directions.T, x], 1))
    state = torch.random.get_rng_state()
    again = LeadingInputs.of(x, 6)
    assert torch.equal(again.directions, leading.directions)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_directions_that_fall_off_slowly_are_found_by_iteration() -> None:
    """Of the square of the inputs nearly as much as by the best directions; one pass without iteration loses 4 %."""
    fall = torch.linspace(1, 0.2, 200, dtype=torch.float64)
    x = torch.randn(300, 200, generator=_generator(7), dtype=torch.float64) * fall
    held = LeadingInputs.of(x, 40).both[:, :40].square().sum()
    assert held > 0.985 * torch.linalg.svdvals(x)[:40].square().sum()


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_one_graph_gives_the_hessian_its_restriction_and_the_images_between(build: Callable[..., Any]) -> None:
    """Against the dense Hessian H of the network itself and the dense lift Pᵀ."""
    network, x, y = _problem()
    objective = MeanLoss(network, x, y)
    at = [p.detach() for p in network.parameters()]
    expected = _dense(MeanLossHessian(objective, at))
    split = LeadingInputs.of(x, 6).split(objective, at)
    joint = build(split.objective, leaves_at(split.parameters), deferred=[1])
    inside, across = joint.with_respect_to(split.inside), joint.between(split.inside, split.whole)
    lift = split.lift(torch.eye(inside.size, dtype=torch.float64))
    torch.testing.assert_close(lift @ lift.T, torch.eye(inside.size, dtype=torch.float64))
    torch.testing.assert_close(_dense(inside), lift @ expected @ lift.T)
    torch.testing.assert_close(_dense(across), expected @ lift.T)
    # Last, as the deferred gradient's graph is built for it.
    torch.testing.assert_close(_dense(joint.with_respect_to(split.whole)), expected)
    layers = layer_of_parameter(network)
    names = list(layer_blocks(joint.with_respect_to(split.whole), layers))
    for name in names:
        indices = [i for i, layer in enumerate(layers) if layer == name]
        block = _dense(MeanLossHessian(objective, at).with_respect_to(indices))
        part = across.with_respect_to(indices)
        lifted = split.lift(torch.eye(part.size, dtype=torch.float64), indices)
        torch.testing.assert_close(_dense(part), block @ lifted.T)


def test_a_chain_that_uses_a_module_twice_keeps_it_twice() -> None:
    network, x, y = _problem()
    bend = nn.Tanh()
    again = nn.Sequential(network[0], bend, network[2], bend, network[4])
    at = [p.detach() for p in network.parameters()]
    split = LeadingInputs.of(x, 6).split(MeanLoss(again, x, y), at)
    whole = MeanLossHessian(split.objective, split.parameters).with_respect_to(split.whole)
    torch.testing.assert_close(_dense(whole), _dense(MeanLossHessian(MeanLoss(network, x, y), at)))


def test_the_complement_is_what_the_restriction_leaves_out() -> None:
    network, x, y = _problem()
    split = LeadingInputs.of(x, 6).split(MeanLoss(network, x, y), [p.detach() for p in network.parameters()])
    joint = MeanLossHessian(split.objective, split.parameters)
    weights = joint.with_respect_to(split.whole).with_respect_to([0])
    outside = torch.eye(FEATURES, dtype=torch.float64) - split.directions.T @ split.directions
    project = torch.kron(torch.eye(UNITS, dtype=torch.float64), outside)
    torch.testing.assert_close(
        _dense(Complement(weights, split.directions)), project @ _dense(weights) @ project, atol=1e-12, rtol=1e-7
    )


@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 3),
    inner=st.integers(4, 12),
    coupling=st.floats(1e-4, 0.1),
    outside=st.floats(-2, 0.45),
)
def test_errors_from_inside_bound_the_errors_of_a_restrictions_pairs(
    seed: int, k: int, inner: int, coupling: float, outside: float
) -> None:
    """H = [[A, E], [Eᵀ, C]] with λ_k(A) ≥ 1, C ≤ `outside`, and the leading pairs of A: Weyl's and Schur's bounds."""
    rng, m = np.random.default_rng(seed), 20
    values = np.sort(np.concatenate([rng.uniform(1, 3, k), rng.uniform(-1, 0.9, inner - k)]))[::-1]
    axes = np.linalg.qr(rng.normal(size=(inner, inner)))[0]
    block = np.linalg.qr(rng.normal(size=(m, m)))[0]
    c = block @ np.diag(np.concatenate([[outside], outside - rng.uniform(0, 2, m - 1)])) @ block.T
    e = rng.normal(size=(inner, m))
    e *= coupling / np.linalg.norm(e, 2)
    h = np.block([[axes @ np.diag(values) @ axes.T, e], [e.T, c]])
    top = axes[:, :k]
    norms = torch.from_numpy(np.linalg.norm(e.T @ top, axis=0))
    inside = Inside(torch.zeros(k, dtype=torch.float64), torch.zeros(k, dtype=torch.float64), outside)
    estimate = errors_from_inside(norms, torch.from_numpy(values[:k].copy()), inside).numpy()
    errors = np.linalg.eigvalsh(h)[::-1][:k] / values[:k] - 1
    # To first order in ‖E‖²: what couples a pair to the others inside through C is of second order, ‖E‖⁴ over gaps.
    gap = values[k - 1] - outside
    second = (coupling**2 / gap) ** 2 / max(values[k - 1] - values[k], 1e-9)
    assert (errors >= -1e-12).all()
    assert (errors <= estimate + second / values[:k] + 1e-12).all()


def test_the_estimate_is_near_the_error_and_infinite_where_the_outside_is_on_top() -> None:
    h = np.diag([2.0, 1.0, 0.1])
    h[0, 2] = h[2, 0] = 0.05
    inside = Inside(torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), 0.1)
    norms, values = torch.tensor([0.05], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    error = np.linalg.eigvalsh(h)[-1] / 2 - 1
    assert error <= float(errors_from_inside(norms, values, inside)) <= 1.01 * error
    on_top = Inside(inside.errors, inside.norms, 2.5)
    assert float(errors_from_inside(norms, values, on_top)) == np.inf


class _Axes:
    """Stands for a `SplitLoss`: the first coordinates are the restriction's."""

    def __init__(self, inner: int, size: int) -> None:
        self.embedding = torch.eye(inner, size, dtype=torch.float64)

    def lift(self, rows: Tensor, indices: Any = None) -> Tensor:
        return rows @ self.embedding


class _Across:
    def __init__(self, matrix: Tensor, inner: int) -> None:
        self.matrix, self.size, self.calls = matrix, inner, 0

    def matvec(self, vector: Tensor) -> Tensor:
        self.calls += 1
        return self.matrix[:, : self.size] @ vector


def _scout(matrix: Tensor, inner: int) -> Scout:
    top = torch.linalg.eigh(matrix[inner:, inner:])
    # The complement's vector is meant to come first, as first weights do: it is padded with zeros behind it.
    vector = torch.cat([torch.zeros(inner, dtype=torch.float64), top.eigenvectors[:, -1]])
    beyond = Beyond(float(top.eigenvalues[-1]), vector)
    restricted = Restricted(_Axes(inner, len(matrix)), _Across(matrix, inner), beyond)  # type: ignore[arg-type]
    return Scout(MatrixOperator(matrix[:inner, :inner].contiguous()), 1e-2, restricted)


def _moving(seed: int, outside: float, coupling: float = 0.01) -> list[Tensor]:
    """Matrices of 120 with the large eigenvalues in the first 40 coordinates; the rest is at most `outside`."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    base = np.diag(np.concatenate([np.zeros(40), [outside], rng.uniform(-0.1, 0.1, 79)]))
    base[:40, :40] = q @ np.diag(np.concatenate([[10, 8.5, 7.5, 6.5, 5], np.linspace(4, -1, 35)])) @ q.T
    base[:40, 40:] = rng.normal(size=(40, 80)) * coupling
    base[40:, :40] = base[:40, 40:].T
    drift = np.zeros((120, 120))
    drift[:40, :40] = rng.normal(size=(40, 40)) * 0.03
    return [torch.from_numpy(base + i * (drift + drift.T)) for i in range(12)]


@pytest.mark.parametrize("seed", range(3))
def test_a_restriction_leaves_one_exact_product_a_refresh(seed: int) -> None:
    led, alone = EigenpairTracker(_generator()), EigenpairTracker(_generator())
    for i, matrix in enumerate(_moving(seed, 0.2)):
        scout = _scout(matrix, 40)
        pairs = led.refresh(MatrixOperator(matrix), scout)
        alone.refresh(MatrixOperator(matrix))
        value, vector = float(pairs.values[0]), pairs.vectors[0]
        assert pairs.converged
        assert pairs.verified == (i == 0)
        assert pairs.products == scout.restricted.across.calls == 1  # type: ignore[union-attr]
        assert value == pytest.approx(float(vector @ matrix @ vector), rel=1e-12)
        assert float((matrix @ vector - value * vector).norm()) / value == pytest.approx(float(pairs.residuals[0]))
        error = float(torch.linalg.eigvalsh(matrix)[-1]) / value - 1
        assert 0 <= error <= 1.5 * float(pairs.errors[0]) <= 1.5e-3
    assert alone.products > 1.5 * led.products


@pytest.mark.parametrize("coupling", [0.1, 0.4])
def test_where_the_coupling_is_strong_exact_products_go_on_until_the_tolerance_is_met(coupling: float) -> None:
    led = EigenpairTracker(_generator())
    for matrix in _moving(0, 0.2, coupling=coupling):
        pairs = led.refresh(MatrixOperator(matrix), _scout(matrix, 40))
        assert pairs.converged
        assert pairs.products > 1
        assert float(pairs.values[0]) == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=2e-3)


@pytest.mark.parametrize("outside", [7.0, 20.0])
def test_an_eigenvalue_beyond_the_restriction_is_not_missed(outside: float) -> None:
    """Just below the top one, and above it; as the control, a scout that does not look beyond misses the latter."""
    led, blind = EigenpairTracker(_generator()), EigenpairTracker(_generator())
    for matrix in _moving(1, outside):
        top = float(torch.linalg.eigvalsh(matrix)[-1])
        scout = _scout(matrix, 40)
        pairs = led.refresh(MatrixOperator(matrix), scout)
        assert pairs.converged
        assert float(pairs.values[0]) == pytest.approx(top, rel=2e-3)
        assert scout.restricted is not None
        unseen = Beyond(0.0, scout.restricted.beyond.vector)
        rest = Restricted(scout.restricted.split, scout.restricted.across, unseen)
        missed = float(blind.refresh(MatrixOperator(matrix), Scout(scout.operator, 1e-2, rest)).values[0])
        assert (missed == pytest.approx(top, rel=2e-3)) == (outside < 10)


def test_what_lies_beyond_is_watched_where_it_may_have_risen_to_the_top() -> None:
    """Its value as last found is below the top one within, which it has overtaken since."""
    led = EigenpairTracker(_generator())
    for matrix in _moving(1, 10.6)[:3]:
        scout = _scout(matrix, 40)
        assert scout.restricted is not None
        stale = Beyond(9.5, scout.restricted.beyond.vector)
        rest = Restricted(scout.restricted.split, scout.restricted.across, stale)
        value = float(led.refresh(MatrixOperator(matrix), Scout(scout.operator, 1e-2, rest)).values[0])
        assert value == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=2e-3)


def test_an_eigenvalue_that_overtakes_within_the_restriction_is_seen_at_once() -> None:
    """The second vector is multiplied in every refresh; by exact products alone, the control, it is not."""
    led, alone, found = EigenpairTracker(_generator()), EigenpairTracker(_generator()), []
    for i, matrix in enumerate(_moving(3, 0.2, coupling=0)[:1] * 6):
        vectors = torch.linalg.eigh(matrix).eigenvectors
        risen = matrix + (i >= 2) * 3.0 * torch.outer(vectors[:, -2], vectors[:, -2])
        pairs = led.refresh(MatrixOperator(risen), _scout(risen, 40)), alone.refresh(MatrixOperator(risen))
        found.append([round(float(p.values[0] / torch.linalg.eigvalsh(risen)[-1]), 2) for p in pairs])
    assert [row[0] for row in found] == [1.0] * 6
    assert [row[1] for row in found[:3]] == [1.0, 1.0, 0.87]


def test_a_restriction_that_is_not_finite_leaves_a_search_from_nothing() -> None:
    matrix = _moving(2, 0.2)[0]
    scout = _scout(matrix, 40)
    broken = Scout(MatrixOperator(matrix[:40, :40] * torch.nan), 1e-2, scout.restricted)
    pairs = EigenpairTracker(_generator()).refresh(MatrixOperator(matrix), broken)
    assert pairs.converged
    assert float(pairs.values[0]) == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=2e-3)


def test_the_lookout_searches_every_so_often() -> None:
    network, x, y = _problem()
    split = LeadingInputs.of(x, 6).split(MeanLoss(network, x, y), [p.detach() for p in network.parameters()])
    whole = MeanLossHessian(split.objective, split.parameters).with_respect_to(split.whole)
    expected = float(torch.linalg.eigvalsh(_dense(Complement(whole.with_respect_to([0]), split.directions)))[-1])
    lookout = Lookout(_generator(), every=3)
    spent = []
    for _ in range(5):
        before = lookout.products
        assert lookout.look(whole, split).value == pytest.approx(expected, rel=0.1)
        spent.append(lookout.products > before)
    assert spent == [True, False, False, True, False]


def _many_features() -> tuple[nn.Sequential, Tensor, Tensor]:
    network, x, y = _problem(features=520, examples=300)
    return network.float(), x.float(), y


@pytest.mark.parametrize("criterion", ["value", "residual"])
def test_a_probe_that_scouts_in_the_leading_inputs_reports_the_eigenvalues(criterion: Any) -> None:
    network, x, y = _many_features()
    tolerance = 1e-3 if criterion == "value" else 1e-2
    options = {"criterion": criterion, "tolerance": tolerance}
    led = SharpnessProbe(network, x, y, 0.3, **options)
    fine = SharpnessProbe(network, x, y, 0.3, tolerance=1e-6, criterion="residual", precision="float64")
    before = [p.detach().clone() for p in network.parameters()]
    for step in range(0, 60, 10):
        point = [p.detach() * (1 + step / 500) for p in network.parameters()]
        for probe in (led, fine):
            probe(step, point, point)
    found, expected = led.dataset(), fine.dataset()
    for name in ("sharpness_iterate", "sharpness_midpoint", "block_sharpness"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3)
    np.testing.assert_allclose(found["layer_share_iterate"], expected["layer_share_iterate"], atol=0.02)
    assert found["converged_iterate"].all()
    assert found["block_converged"].all()
    assert found["verified_iterate"][0]
    assert float(found["residual_iterate" if criterion == "residual" else "value_error_iterate"].max()) <= tolerance
    tracker = led._trackers["iterate"]
    assert tracker.scouted > tracker.products
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_such_a_probe_goes_on_from_its_state_to_the_same_bits() -> None:
    network, x, y = _many_features()

    def probe() -> SharpnessProbe:
        return SharpnessProbe(network, x, y, 0.3, blocks_every=20)

    def measure(one: SharpnessProbe, steps: range) -> None:
        for step in steps:
            point = [p.detach() * (1 + step / 500) for p in network.parameters()]
            one(step, point, point)

    whole, first, second = probe(), probe(), probe()
    measure(whole, range(0, 60, 10))
    measure(first, range(0, 30, 10))
    second.load_state_dict(first.state_dict())
    assert second._lookout.calls == first._lookout.calls == 6
    assert torch.equal(second._lookout.vector, first._lookout.vector)  # type: ignore[arg-type]
    measure(second, range(30, 60, 10))
    assert whole.dataset().identical(second.dataset())


def test_hooks_on_the_first_layer_are_part_of_the_network() -> None:
    network, x, y = _problem()
    network[0].register_forward_hook(lambda module, inputs, output: 1.5 * output)
    probes = [SharpnessProbe(network, x, y, 0.3, scouting=scouting) for scouting in (True, False)]
    point = [p.detach() for p in network.parameters()]
    for probe in probes:
        probe(0, point, point)
    a, b = (float(probe.dataset()["sharpness_iterate"][0]) for probe in probes)
    assert a == pytest.approx(b, rel=2e-3)


def test_scouting_is_a_matter_of_yes_or_no() -> None:
    network, x, y = _problem()
    with pytest.raises(InputError, match="scouting is 'never': give True or False"):
        SharpnessProbe(network, x, y, 0.3, scouting="never")  # type: ignore[arg-type]


def test_what_begins_linearly() -> None:
    x = torch.zeros(3, 600)
    chain = mlp([600, 4, 2], "relu", seed=0)
    assert begins_linearly(chain, x)
    assert not begins_linearly(mlp([500, 4, 2], "relu", seed=0), torch.zeros(3, 500))  # too few inputs to save anything
    assert not begins_linearly(nn.Sequential(nn.Flatten(), *chain), x)
    assert not begins_linearly(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), torch.zeros(3, 3, 8, 8))
    square = nn.Linear(600, 600)
    assert not begins_linearly(nn.Sequential(square, nn.ReLU(), square), x)
    assert not begins_linearly(nn.Linear(600, 2), x)
    hooked, hooked_first = (mlp([600, 4, 2], "relu", seed=0) for _ in range(2))
    hooked.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
    hooked_first[0].register_forward_hook(lambda module, inputs, output: 3 * output)
    normed = nn.Sequential(nn.utils.spectral_norm(nn.Linear(600, 4)), nn.Linear(4, 2))
    scaled = mlp([600, 4, 2], "relu", seed=0)
    scaled[0].register_parameter("scale", nn.Parameter(torch.ones(())))
    assert not any(begins_linearly(network, x) for network in (hooked, hooked_first, normed, scaled))
