"""The edge study against closed forms of the two-layer network, independent gradients, and the run it replays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor, nn

from sim import Architecture, Batches, LossRule, OptimizerChoice, build, descend, mlp
from sim.curvature import HessianOperator, MeanLoss, rayleigh_quotient
from sim.curvature.mean_loss import flatten, leaves_at, unflatten
from sim.networks.architecture import KINDS
from sim.networks.normalisation import BatchNorm2d
from sim.two_layer import TwoLayerConfig
from theory import drive, gradient_descent
from theory.command_line import InputError
from validate.cifar10 import load_embedded, standardise
from validate.claims.bounce import stretches
from validate.edge_probe import EdgeMeasurements, EdgeProbe
from validate.edge_study import EdgeConfig, replay, study_edge
from validate.network_run import NetworkConfig, run_network
from validate.opposing_groups import OpposingPair, singular_pairs
from validate.windows import Windows

EDGE = TwoLayerConfig(beta=5.0, d1=100, exponent=1.0, lr=0.06, steps=3500, start="edge", sample_seeds=())
OUTLIERS, EXAMPLES = 10, 100


def windows_at(crossing: int) -> Windows:
    whole = slice(crossing, crossing + 150)
    return Windows(crossing, slice(0, 1), slice(crossing, crossing + 75), slice(crossing + 75, 150), whole, slice(0, 1))


class TwoLayer(nn.Module):
    """Losses of examples whose mean is the population loss of theory's model: w_i = ±1/√p on the outliers, else 0."""

    def __init__(self, c: float, b: np.ndarray, s: float) -> None:
        super().__init__()
        self.c, self.s = (nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in (c, s))
        self.b = nn.Parameter(torch.from_numpy(b.copy()))

    def forward(self, w: Tensor) -> Tensor:
        """(n, 1) losses."""
        model = EDGE.model
        miss = self.c * self.b - torch.from_numpy(model.beta.copy())
        main = 0.5 * (miss * torch.from_numpy(model.covariance.copy()) * miss).sum()
        # ℓ = main + (α/2)(|w| − w c s)²
        return (main + float(model.alpha[0]) / 2 * (w.abs() - w * self.c * self.s) ** 2)[:, None]


@pytest.fixture(scope="module")
def two_layer() -> tuple[xr.Dataset, np.ndarray, np.ndarray]:
    """A study of 40 steps of the settled two-layer network, with theory's c and drive D at the measured steps."""
    trajectory = gradient_descent(EDGE.model, EDGE.initial_state, EDGE.lr, EDGE.steps + 40).state
    state, measured = trajectory.at(EDGE.steps), slice(EDGE.steps, None, 5)
    network = TwoLayer(float(state.c), state.b, float(state.s[0]))
    size = (EXAMPLES / (2 * OUTLIERS)) ** 0.5
    w = torch.zeros(EXAMPLES, dtype=torch.float64)
    w[:OUTLIERS], w[OUTLIERS : 2 * OUTLIERS] = size, -size
    objective = MeanLoss(network, w, torch.zeros(EXAMPLES), lambda outputs, _: outputs[:, 0])
    pair = OpposingPair(np.arange(OUTLIERS), np.arange(OUTLIERS, 2 * OUTLIERS), 1.0, 1.0)
    bystanders = OpposingPair(np.arange(20, 30), np.arange(30, 40), 1.0, 1.0)
    what = EdgeMeasurements(every=5, directions=3, draws=1)
    probe = EdgeProbe(objective, EDGE.lr, pair, [[bystanders], [pair]], first_step=100, what=what)
    for step in range(41):
        gradients = list(torch.autograd.grad(network(w).mean(), list(network.parameters())))
        probe(step, list(network.parameters()), gradients)
        with torch.no_grad():
            for parameter, slope in zip(network.parameters(), gradients, strict=True):
                parameter -= EDGE.lr * slope
    data = probe.record.dataset().assign_coords(kind=["any", "same labels"])
    data["eigenvalue"] = "direction", probe.eigenvalues
    data.attrs["lr"] = EDGE.lr
    return data, trajectory.c[measured], drive(EDGE.model, trajectory)[measured]


def test_sharpness_a_and_b_are_the_two_layer_networks(two_layer: tuple[xr.Dataset, np.ndarray, np.ndarray]) -> None:
    """S = αc², so ∇S = 2αc along c: a = −2αc ∂_cL = 2αcD at the floor s = 0, and b = 4α²c² (T9)."""
    data, c, slow = two_layer
    alpha = float(EDGE.model.alpha[0])
    np.testing.assert_allclose(data["sharpness"], alpha * c**2, rtol=1e-3)
    np.testing.assert_allclose(data["b"], 4 * alpha**2 * c**2, rtol=1e-2)
    np.testing.assert_allclose(data["a_across"], 2 * alpha * c * slow, rtol=2e-2)
    np.testing.assert_allclose(data["alignment"], 1, atol=1e-3)
    assert data["edge_step"].values.tolist() == list(range(100, 141))
    assert data["edge_measured"].values.tolist() == list(range(100, 141, 5))


def test_the_bounce_has_the_predicted_variance_and_growth(two_layer: tuple[xr.Dataset, np.ndarray, np.ndarray]) -> None:
    """T9: s² = D/(αc); the oscillation neither grows nor shrinks."""
    data, c, slow = two_layer
    predicted = slow / (float(EDGE.model.alpha[0]) * c)
    later = data.isel(edge_measured=slice(1, None))
    np.testing.assert_allclose(later["bounce_square"], predicted[1:], rtol=1e-2)
    np.testing.assert_allclose(later["bounce_share"], 1, atol=1e-3)
    found = stretches(data, windows_at(100))
    # The last measurement has no steps after it, the first no step before.
    np.testing.assert_allclose(found.square, predicted[1:-1], rtol=1e-2)
    np.testing.assert_allclose(found.rest_square, predicted[1:-1], rtol=2e-2)
    np.testing.assert_allclose(found.growth, -1, atol=2e-2)
    np.testing.assert_allclose(found.growth, 1 - EDGE.lr * found.curvature, atol=2e-2)
    # The projection on the top eigenvector is s itself, from its start, up to the vector's sign.
    x = data["projection"].values[:, 0]
    assert np.abs(np.diff(x)).mean() == pytest.approx(2 * (predicted**0.5).mean(), rel=1e-2)
    slope = data["gradient_projection"].values[:-1, 0]
    np.testing.assert_allclose(np.diff(x), -EDGE.lr * slope, atol=1e-9)


def test_groups_oppose_as_in_closed_form(two_layer: tuple[xr.Dataset, np.ndarray, np.ndarray]) -> None:
    """∂_s ℓ± = ∓αc(1 ∓ cs)/p dominates; the whole Hessian's curvature along s is the groups' times their share p."""
    data, _, _ = two_layer
    share = 2 * OUTLIERS / EXAMPLES
    assert (data["group_cosine"] < -0.9).all()
    np.testing.assert_allclose(data["random_cosine"].sel(kind="any"), 1)  # bystanders share one gradient
    np.testing.assert_allclose(data["random_cosine"].sel(kind="same labels").isel(draw=0), data["group_cosine"])
    later = data.isel(edge_measured=slice(1, None))
    ratio = later["group_curvature"] / later["bounce_curvature"]
    np.testing.assert_allclose(ratio, 1 / share, rtol=1e-2)
    np.testing.assert_allclose(later["curvature"].mean("example"), later["bounce_curvature"], rtol=1e-5)
    assert (later["group_bounce_share"] > 0.9).all()
    assert (later["top_share"] > 0.9).all()
    assert (data["bulk_gradient_norm"] < data["group_gradient_norm"].min("side") / 2).all()


def _small() -> tuple[nn.Module, Tensor, Tensor]:
    images = load_embedded()
    inputs = torch.from_numpy(standardise(images)).flatten(1)[::13].contiguous()
    labels = torch.from_numpy(images.labels[::13].astype(np.int64))
    return mlp([3072, 12, 10], "gelu", seed=1), inputs, labels


class _Snapshots:
    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def __call__(self, step: int, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        self.weights.append(flatten([p.detach() for p in parameters]).clone())


PAIR = OpposingPair(np.arange(5), np.arange(40, 45), 1.0, 1.0)


def test_the_replay_takes_the_steps_of_the_run_bit_for_bit() -> None:
    network, inputs, labels = _small()
    snapshots = _Snapshots()
    base = descend(network, inputs, labels, lr=0.1, steps=24, probes=[snapshots], progress=False)
    again = mlp([3072, 12, 10], "gelu", seed=5)
    nn.utils.vector_to_parameters(snapshots.weights[10], again.parameters())
    what = EdgeMeasurements(every=5, directions=3, draws=2)
    data = replay(again, inputs, labels, lr=0.1, first_step=10, steps=14, pair=PAIR, what=what, progress=False)
    assert (data["loss"].values == base.losses[10:]).all()
    assert torch.equal(flatten(list(again.parameters())), flatten(list(network.parameters())))
    moved = snapshots.weights[17] - snapshots.weights[10]
    along = data["projection"].sel(edge_step=17).values
    assert 0 < np.linalg.norm(along) <= float(moved.norm())
    assert (data["projection"].sel(edge_step=10) == 0).all()
    assert data["edge_measured"].values.tolist() == [10, 15, 20]
    assert data.sizes["draw"] == 2
    assert data["random_member"].dims == ("kind", "draw", "side", "rank")


def test_group_numbers_are_those_of_plain_autograd() -> None:
    network, inputs, labels = _small()
    what = EdgeMeasurements(every=5, directions=3, draws=1)
    probe = EdgeProbe(MeanLoss(network, inputs, labels), 0.1, PAIR, [[PAIR], [PAIR]], first_step=0, what=what)
    parameters = list(network.parameters())

    def gradient(examples: np.ndarray | slice) -> Tensor:
        network.zero_grad()
        F.cross_entropy(network(inputs[examples]), labels[examples]).backward()  # type: ignore[no-untyped-call]
        return flatten([p.grad.clone() for p in parameters if p.grad is not None])

    whole = gradient(slice(None))
    probe(0, parameters, [p.grad.clone() for p in parameters if p.grad is not None])
    data = probe.record.dataset()
    first, second = gradient(PAIR.positive), gradient(PAIR.negative)
    assert float(data["group_cosine"][0]) == pytest.approx(float(F.cosine_similarity(first, second, dim=0)), abs=1e-5)
    norms = [float(first.norm()), float(second.norm())]
    np.testing.assert_allclose(data["group_gradient_norm"][0], norms, rtol=1e-5)
    rest = np.setdiff1d(np.arange(len(inputs)), np.concatenate([PAIR.positive, PAIR.negative]))
    assert float(data["bulk_gradient_norm"][0]) == pytest.approx(float(gradient(rest).norm()), rel=1e-4)
    # The midpoint's Rayleigh quotient of the group, by the group's own Hessian.
    top = probe._top
    assert top is not None
    halfway = [
        (p.detach() - 0.05 * g.view(p.shape)).requires_grad_()
        for p, g in zip(parameters, torch.split(whole, [p.numel() for p in parameters]), strict=True)
    ]
    group = MeanLoss(network, inputs, labels).group(torch.from_numpy(PAIR.positive))
    quotient = rayleigh_quotient(HessianOperator(group.of_chunk(halfway, slice(0, 5)), halfway), top)
    assert float(data["group_curvature"][0, 0]) == pytest.approx(quotient, rel=1e-3)
    share = float(torch.dot(first - second, top).abs() / (first - second).norm())
    assert float(data["top_share"][0]) == pytest.approx(share, rel=1e-4)


def test_a_groups_gradient_has_batch_norms_statistics_of_all_and_chunks_change_nothing_without() -> None:
    images = load_embedded()
    inputs = torch.from_numpy(standardise(images)[:60, :, ::4, ::4]).double()
    labels = torch.from_numpy(images.labels[:60].astype(np.int64))
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 3), BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(144, 10)]
    pair = OpposingPair(np.arange(5), np.arange(40, 45), 1.0, 1.0)
    other = OpposingPair(np.arange(20, 26), np.arange(54, 60), 1.0, 1.0)
    data = {}
    for name, network, chunk in (
        ("norm", nn.Sequential(*layers).double(), None),
        ("ghost", nn.Sequential(*layers).double(), 25),  # 5 of each group in pieces of 25, 25 and 10
        ("whole", nn.Sequential(*layers[:1], *layers[2:]).double(), None),
        ("chunks", nn.Sequential(*layers[:1], *layers[2:]).double(), 25),
    ):
        what = EdgeMeasurements(every=1, directions=2, draws=1, chunk=chunk)
        pieces = torch.split(inputs, 25 if name == "ghost" else 60)
        objective = MeanLoss(network, inputs, labels, ghost_batches=name == "ghost")
        probe = EdgeProbe(objective, 0.1, pair, [[other], [pair]], first_step=0, what=what)
        parameters = list(network.parameters())
        for scale in (1.0, 0.5):  # two made-up gradients, so that there is a bounce
            losses = F.cross_entropy(torch.cat([network(piece) for piece in pieces]), labels, reduction="none")
            slopes = torch.autograd.grad(losses.mean(), parameters)
            probe(0, parameters, [scale * slope for slope in slopes])
        losses = F.cross_entropy(torch.cat([network(piece) for piece in pieces]), labels, reduction="none")
        norms = [
            float(flatten(torch.autograd.grad(losses[side].mean(), parameters, retain_graph=True)).norm())
            for side in (pair.positive, pair.negative, other.positive, other.negative)
        ]
        data[name] = probe.record.dataset()
        np.testing.assert_allclose(data[name]["group_gradient_norm"][0], norms[:2], rtol=1e-9)
        np.testing.assert_allclose(
            data[name]["random_gradient_norm"][0].values.ravel(), norms[2:] + norms[:2], rtol=1e-9
        )
    for variable in ("sharpness", "a", "b", "bounce_a", "bounce_b", "curvature", "group_cosine", "bulk_gradient_norm"):
        np.testing.assert_allclose(data["chunks"][variable], data["whole"][variable], rtol=1e-3, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mlp"])
def test_every_network_can_be_studied(kind: str) -> None:
    """Third derivatives included: the curvature's slope along the bounce is that of a central difference."""
    network = build(Architecture(kind, width=0.125, activation="gelu"), (3, 32, 32), 10, seed=0).double()  # type: ignore[arg-type]
    images = load_embedded()
    inputs = torch.from_numpy(standardise(images)[:12]).double()
    labels = torch.from_numpy(images.labels[:12].astype(np.int64))
    objective = MeanLoss(network, inputs, labels)
    pair = OpposingPair(np.arange(3), np.arange(3, 6), 1.0, 1.0)
    what = EdgeMeasurements(every=1, directions=2, draws=1)
    probe = EdgeProbe(objective, 0.01, pair, [[pair], [pair]], first_step=0, what=what)
    for step in range(2):
        slopes = torch.autograd.grad(F.cross_entropy(network(inputs), labels), list(network.parameters()))
        probe(step, list(network.parameters()), list(slopes))
        with torch.no_grad():
            point = [p - 0.005 * g for p, g in zip(network.parameters(), slopes, strict=True)]
            for parameter, slope in zip(network.parameters(), slopes, strict=True):
                parameter -= 0.01 * slope
    data = probe.record.dataset().isel(edge_measured=1)
    bounce = probe._bounce
    assert bounce is not None

    def curvature(shift: Tensor) -> float:
        moved = [p + part for p, part in zip(point, unflatten(shift, point), strict=True)]
        leaves = leaves_at(moved)
        return rayleigh_quotient(HessianOperator(objective.of_chunk(leaves, slice(0, 12)), leaves), bounce)

    assert float(data["bounce_curvature"]) == pytest.approx(curvature(0 * bounce), rel=1e-6)
    assert float(data["curvature"].mean()) == pytest.approx(float(data["bounce_curvature"]), rel=1e-5)
    downhill = -objective.gradient(point)
    across = downhill - torch.dot(downhill, bounce) * bounce
    # So short a difference that no maximum of a pool changes its place.
    h = 1e-6 / float(across.norm())
    # −⟨∇⊥, ∇L⟩ is the derivative of uᵀHu downhill, across u.
    rise = (curvature(h * across) - curvature(-h * across)) / (2 * h)
    assert float(data["bounce_a"]) == pytest.approx(rise, rel=1e-2, abs=1e-4 * abs(float(data["bounce_curvature"])))


SMALL = NetworkConfig(
    architecture=Architecture(hidden=(8,), activation="gelu"),
    loss=LossRule(label_smoothing=0.1),
    lr=0.02,
    steps=212,
    seed=100,
    images_per_class=6,
    blocks_every=0,
    midpoint=False,
    snapshot_every=25,
)


@pytest.fixture(scope="module")
def base() -> xr.Dataset:
    """A run of a small network, with a sharpness that is made to cross 2/η at step 60."""
    data = run_network(SMALL, load_embedded(), torch.device("cpu"), progress=False)
    data["sharpness_iterate"].values[:] = np.where(data["measured"] >= 60, 110.0, 50.0)
    return data


def test_a_study_starts_from_the_last_snapshot_before_the_onset_and_repeats_the_base_run(base: xr.Dataset) -> None:
    config = EdgeConfig(SMALL, EdgeMeasurements(every=37, directions=3, draws=1))
    data, again = (study_edge(config, base, load_embedded(), torch.device("cpu"), progress=False) for _ in range(2))
    assert data["edge_step"].values.tolist() == list(range(25, 210))
    assert data.attrs["crossing"] == 60
    assert data.attrs["replay_difference"] == 0.0
    pair = singular_pairs(base["loss"][60:135], count=1)[0]
    assert data["member"].values.tolist() == [pair.positive.tolist(), pair.negative.tolist()]
    assert again.identical(data)
    assert config.name == f"edge-{SMALL.name}"
    late = base.isel(snapshot_step=slice(2, None))  # 50, 75, …: none 20 steps before the crossing
    nearer = study_edge(config, late, load_embedded(), torch.device("cpu"), progress=False)
    assert nearer["edge_step"].values[0] == 50


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": OptimizerChoice("adam")}, "full-batch"),
        ({"batches": Batches(size=10)}, "full-batch"),
        ({}, "snapshot"),
        ({}, "windows"),
    ],
)
def test_what_cannot_be_studied_is_refused(base: xr.Dataset, options: dict[str, object], words: str) -> None:
    run = base.drop_vars("snapshot") if words == "snapshot" else base.copy(deep=True)
    if words == "windows":
        run["sharpness_iterate"].values[:] = 50.0
    config = EdgeConfig(replace(SMALL, **options))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=words):
        study_edge(config, run, load_embedded(), torch.device("cpu"), progress=False)
