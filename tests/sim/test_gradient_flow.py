"""Gradient flow of a network: closed form, order of the rule, limit of descent, invariant, bound on the step, resuming.

The oracles are independent of the integration: the closed form of `theory.exact_flow` shares no code with it, descent
is `sim.descend`, and the stability interval is compared with steps that SciPy takes on y' = −y.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Batches, Checkpoints, LossRule, Record, SharpnessProbe, descend, mlp
from sim.curvature import HessianOperator
from sim.gradient_flow import RULES, Flow, Rule, StepControl, flow, stability_interval
from sim.networks import parameter_vector
from theory import InputError, Model, State
from theory.exact_flow import exact_flow
from validate.cifar10 import load_embedded, standardise

FIXED = {"relative_tolerance": 1e4, "stability_fraction": np.inf}  # steps of length `longest`, whatever their error


def _half_squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.squeeze(1) - targets).square() / 2


def _two_layer(start: State) -> torch.nn.Sequential:
    """The network c wᵀx, in float64."""
    network = torch.nn.Sequential(
        torch.nn.Linear(start.b.size, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    ).double()
    with torch.no_grad():
        network[0].weight.copy_(torch.from_numpy(start.b)[None])
        network[1].weight.fill_(float(start.c))
    return network


def _follow_two_layer(model: Model, start: State, device: torch.device, **options: Any) -> tuple[Flow, np.ndarray]:
    """The flow on d examples √d e_i, whose second moment is the identity; the weights (c, w) where it ends."""
    d = start.b.size
    x = np.sqrt(d) * torch.eye(d, dtype=torch.float64, device=device)
    network = _two_layer(start).to(device)
    y = x @ torch.tensor(model.beta, device=device)
    result = flow(network, x, y, loss=_half_squared, progress=False, **options)
    return result, np.roll(parameter_vector(network).cpu().numpy(), 1)


MODEL = Model(alpha=[], beta=[3.0, -1.0, 0.5], covariance=[1.0, 1.0, 1.0])
START = State(0.3, [0.2, 0.4, -0.1], [])


@pytest.mark.parametrize("rule", RULES)
def test_the_stability_interval_is_where_a_step_begins_to_grow(rule: Rule) -> None:
    x = stability_interval(rule)
    for h, grows in ((0.999 * x, False), (1.001 * x, True), (0.5 * x, False)):
        solver = RULES[rule](lambda _, y: -y, 0.0, [1.0], 10.0, first_step=h, max_step=h, rtol=1e9, atol=1e9)
        solver.step()
        assert (abs(solver.y[0]) > 1) == grows


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(0.05, 4))
def test_the_flow_of_a_linear_network_is_its_closed_form(seed: int, d: int, end: float) -> None:
    rng = np.random.default_rng(seed)
    model = Model([], rng.normal(size=d) * 3, np.ones(d))
    start = State(float(rng.normal()), rng.normal(size=d), [])
    control = StepControl(relative_tolerance=1e-8, absolute_tolerance=1e-10)
    times, seen = np.array([0.0, 0.1, 0.3, 0.35, 0.8, 1.0]) * end, _Weights()
    _, found = _follow_two_layer(model, start, torch.device("cpu"), times=times, control=control, probes=[seen])
    expected = exact_flow(model, start, times).state.vector
    np.testing.assert_allclose(found, expected[-1], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.roll(seen.rows, 1, axis=1), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "within", "order"), [("RK23", 0.0, 3), ("RK45", 0.0, 5), ("RK23", 0.5, 3), ("RK45", 0.5, 5)]
)
def test_the_error_falls_at_the_rate_of_the_rules_order(rule: Rule, within: float, order: int) -> None:
    """At a step's end, and interpolated in its middle; the orders are each other's control."""
    lengths = 1 / np.array([8, 16, 32, 64])
    errors = []
    for h in lengths:
        control = StepControl(rule, longest=h, **FIXED)
        times = [1 - within * h, 1.0] if within else [1.0]
        exact = exact_flow(MODEL, START, times[:1]).state.vector[0]
        seen = _Weights()
        result, _ = _follow_two_layer(MODEL, START, torch.device("cpu"), times=times, control=control, probes=[seen])
        sizes = result.data["step_size"].values
        np.testing.assert_allclose(sizes[-2:], h)
        errors.append(np.abs(np.roll(seen.rows[0], 1) - exact).max())
    slope = np.polyfit(np.log(lengths), np.log(errors), 1)[0]
    assert order - 0.4 < slope < order + 0.6, (slope, errors)


class _Weights:
    """Keeps the weights and the gradients it is shown."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []
        self.gradients: list[np.ndarray] = []
        self.steps: list[int] = []

    def __call__(self, step: int, parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        """Keeps them."""
        self.rows.append(torch.cat([p.detach().reshape(-1) for p in parameters]).cpu().numpy())
        self.gradients.append(torch.cat([g.reshape(-1) for g in gradients]).cpu().numpy())
        self.steps.append(step)


def _problem(device: torch.device, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=generator, dtype=dtype)
    return x.to(device), torch.randint(0, 3, (40,), generator=generator).to(device)


def _images() -> tuple[torch.Tensor, torch.Tensor]:
    """Sixty real images at 8 × 8 pixels."""
    images = load_embedded()
    few = np.linspace(0, len(images.labels) - 1, 60).astype(int)
    x = torch.from_numpy(standardise(images))[few].double()
    return torch.nn.functional.avg_pool2d(x, 4).flatten(1), torch.from_numpy(images.labels[few].astype(np.int64))


@pytest.mark.parametrize("data", ["drawn", "images"])
def test_descent_approaches_the_flow_in_proportion_to_its_step(data: str) -> None:
    """Euler's rule is of first order: the largest distance of the weights up to time T halves with η."""
    x, y = _problem(torch.device("cpu")) if data == "drawn" else _images()
    network = mlp([x.shape[1], 8, 10], "tanh", seed=1).double()
    end, lrs = 4.0, (0.4 if data == "drawn" else 0.1) / 2.0 ** np.arange(3)
    at = np.linspace(0, end, 11)
    tight = StepControl(relative_tolerance=1e-8, absolute_tolerance=1e-10)
    followed, of_flow = copy.deepcopy(network), _Weights()
    flow(followed, x, y, times=at, control=tight, probes=[of_flow], progress=False)
    distances = []
    for lr in lrs:
        seen, copied = _Weights(), copy.deepcopy(network)
        descend(copied, x, y, lr=lr, steps=round(end / lr) + 1, probes=[seen], progress=False)
        every = round(at[1] / lr)
        distances.append(max(np.linalg.norm(a - b) for a, b in zip(seen.rows[::every], of_flow.rows, strict=True)))
    slope = np.polyfit(np.log(lrs), np.log(distances), 1)[0]
    assert 0.9 < slope < 1.1, (slope, distances)
    assert distances[0] < 0.2 * np.linalg.norm(of_flow.rows[-1] - of_flow.rows[0])


def test_the_flow_conserves_the_layers_balance_and_descent_does_not() -> None:
    """W₁W₁ᵀ − W₂ᵀW₂ of a linear network is constant under the flow."""
    x, y = _problem(torch.device("cpu"))

    def network() -> torch.nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return torch.nn.Sequential(*(torch.nn.Linear(a, b, bias=False) for a, b in ((6, 8), (8, 3)))).double()

    def drift(moved: torch.nn.Sequential) -> float:
        before, after = (n[0].weight @ n[0].weight.T - n[1].weight.T @ n[1].weight for n in (network(), moved))
        return float((after - before).detach().abs().max())

    drifts = {}
    for tolerance in (1e-4, 1e-7):
        followed = network()
        control = StepControl(relative_tolerance=tolerance, absolute_tolerance=tolerance / 100)
        flow(followed, x, y, times=[0.0, 10.0], control=control, progress=False)
        drifts[tolerance] = drift(followed)
    descended = network()
    descend(descended, x, y, lr=0.1, steps=100, progress=False)
    assert drifts[1e-7] < 1e-6
    assert drifts[1e-7] < drifts[1e-4] < 1e-3 < drift(descended)


@pytest.mark.parametrize("rule", RULES)
def test_steps_stay_within_the_stability_interval_and_without_the_bound_do_not(rule: Rule) -> None:
    """Late in training a loose tolerance would allow steps beyond it; the controller alone tries them, and rejects."""
    x, y = _stretched_problem()
    results, ends = {}, {}
    for name, control in (
        ("bounded", StepControl(rule, 1e-2, 1e-3)),
        ("free", StepControl(rule, 1e-2, 1e-3, stability_fraction=np.inf)),
        ("exact", StepControl(relative_tolerance=1e-7, absolute_tolerance=1e-9)),
    ):
        network = mlp([6, 8, 3], "tanh", seed=1).double()
        results[name] = flow(network, x, y, times=np.linspace(0, 60, 61), control=control, progress=False)
        ends[name] = parameter_vector(network)
    data, interval = results["bounded"].data, stability_interval(rule)
    taken = data["step_size"] * data["tracked_sharpness"]
    assert (taken <= 0.8 * interval * (1 + 1e-9)).all()
    assert float(taken[-20:].mean()) > 0.7 * interval  # and it is used
    assert data["tracked_converged"].all()
    assert results["bounded"].rejected == 0
    assert results["free"].rejected >= 4
    assert np.isnan(results["free"].data["tracked_sharpness"]).all()
    assert (ends["bounded"] - ends["exact"]).norm() < (ends["free"] - ends["exact"]).norm()


@pytest.mark.parametrize("rule", RULES)
def test_the_bound_alone_keeps_the_flow_stable(rule: Rule) -> None:
    """With no word from the error control: well within the interval the loss never rises, beyond it it does.

    At 0.8 of RK45's interval it rises now and then: in a curved valley the inner stages of so long a step go astray.
    """
    x, y = _stretched_problem()
    rises = {}
    for fraction in (0.5, 1.2):
        control = StepControl(rule, relative_tolerance=1e4, stability_fraction=fraction)
        network = mlp([6, 8, 3], "tanh", seed=1).double()
        result = flow(network, x, y, times=np.linspace(0, 60, 61), control=control, progress=False)
        assert result.rejected == 0
        rises[fraction] = int((np.diff(result.losses.mean(1)) > 0).sum())
    assert rises[0.5] == 0
    assert rises[1.2] > 5


def _stretched_problem() -> tuple[torch.Tensor, torch.Tensor]:
    """One feature four times as large as the others."""
    x, y = _problem(torch.device("cpu"))
    return x * torch.tensor([4.0, 1, 1, 1, 1, 1], dtype=torch.float64), y


def test_the_bound_is_of_the_sharpness_that_dense_algebra_finds(device: torch.device) -> None:
    x, y = _problem(device)
    network = mlp([6, 8, 3], "tanh", seed=1).double().to(device)
    parameters = list(network.parameters())
    operator = HessianOperator(torch.nn.functional.cross_entropy(network(x), y), parameters)
    matrix = torch.stack([operator.matvec(row) for row in torch.eye(operator.size, dtype=x.dtype, device=device)])
    largest = float(torch.linalg.eigvalsh(matrix)[-1])
    data = flow(network, x, y, times=[5.0], progress=False).data
    assert float(data["tracked_sharpness"][0]) == pytest.approx(largest, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probes_see_stated_times_and_leave_no_trace(dtype: torch.dtype, device: torch.device) -> None:
    x, y = _problem(device, dtype)
    bare, watched = (mlp([6, 8, 3], "tanh", seed=1).to(device, dtype) for _ in range(2))
    times = [0.0, 0.3, 0.31, 4.0, 9.0]
    a = flow(bare, x, y, times=times, progress=False)
    weights, probe = _Weights(), SharpnessProbe(watched, x, y, 0.1, every=1, blocks_every=2, midpoint=False)
    random = torch.get_rng_state()
    b = flow(watched, x, y, times=times, probes=[weights, probe, _Draws()], progress=False)
    assert torch.equal(random, torch.get_rng_state())
    np.testing.assert_array_equal(a.losses, b.losses)
    assert weights.steps == [0, 1, 2, 3, 4]
    for p, q in zip(bare.parameters(), watched.parameters(), strict=True):
        assert torch.equal(p, q)
        assert q.grad is None
    np.testing.assert_array_equal(b.data["time"], times)
    for row, gradient, losses in zip(weights.rows, weights.gradients, b.losses, strict=True):
        torch.nn.utils.vector_to_parameters(torch.from_numpy(row).to(device), bare.parameters())
        each = torch.nn.functional.cross_entropy(bare(x), y, reduction="none")
        expected = torch.autograd.grad(each.mean(), list(bare.parameters()))
        np.testing.assert_allclose(losses, each.detach().cpu(), rtol=1e-5)
        np.testing.assert_allclose(gradient, torch.cat([g.reshape(-1) for g in expected]).cpu(), rtol=1e-3, atol=1e-6)
    assert len(probe.dataset()["sharpness_iterate"]) == 5


class _Draws:
    def __call__(self, step: int, parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        torch.rand(3)


def test_chunks_and_weights_make_the_flow_of_the_weighted_mean(device: torch.device) -> None:
    x, y = _problem(device)
    weights = torch.ones(len(x), dtype=torch.float64, device=device)
    weights[:10] = 0
    control = StepControl(relative_tolerance=1e-8, absolute_tolerance=1e-10)
    ends = []
    for inputs, labels, options in (
        (x, y, {"example_weights": weights, "batches": Batches(chunk=7)}),
        (x[10:], y[10:], {}),
        (x, y, {}),
    ):
        network = mlp([6, 8, 3], "tanh", seed=1).double().to(device)
        result = flow(network, inputs, labels, times=[0.0, 3.0], control=control, progress=False, **options)
        assert result.losses.shape == (2, len(inputs))
        ends.append(parameter_vector(network))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-6, atol=1e-7)
    assert (ends[0] - ends[2]).norm() > 0.01


class _Stop(Exception):
    pass


class _Dies(_Draws):
    """Ends the process, as it were, at the index of a stated time."""

    def __init__(self, at: int | None) -> None:
        self.at = at

    def __call__(self, step: int, parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        if step == self.at:
            raise _Stop


@settings(max_examples=4)
@given(st.lists(st.integers(1, 19), min_size=1, max_size=3, unique=True))
def test_a_flow_that_ends_anywhere_and_goes_on_has_the_bits_of_one(tmp_path_factory: Any, deaths: list[int]) -> None:
    x, y = _problem(torch.device("cpu"), torch.float32)

    def run(folder: Path, dies: int | None) -> tuple[Flow, torch.Tensor, Any]:
        network = mlp([6, 8, 3], "tanh", seed=1)
        record = Record(folder / "trajectory.zarr", chunk_bytes=600)
        checkpoints = Checkpoints(folder, folder / "checkpoints", {}, every_seconds=0)
        probe = SharpnessProbe(network, x, y, 0.1, every=3, blocks_every=6, midpoint=False, record=record)
        result = flow(
            network,
            x,
            y,
            times=np.linspace(0, 15, 20),
            probes=[probe, _Dies(dies)],
            record=record,
            checkpoints=checkpoints,
            progress=False,
        )
        return result, parameter_vector(network), result.data.load()

    folders = [tmp_path_factory.mktemp("flow") for _ in range(2)]
    whole, weights, data = run(folders[0], None)
    for dies in sorted(deaths):
        with pytest.raises(_Stop):
            run(folders[1], dies)
    resumed, again, same = run(folders[1], None)
    assert torch.equal(weights, again)
    assert data.identical(same)
    assert (whole.steps, whole.rejected, whole.evaluations) == (resumed.steps, resumed.rejected, resumed.evaluations)


def test_a_checkpoint_of_other_times_or_another_control_is_refused(tmp_path: Path) -> None:
    x, y = _problem(torch.device("cpu"), torch.float32)

    def run(times: Any, control: StepControl = StepControl(), dies: int | None = None) -> int:  # noqa: B008
        checkpoints = Checkpoints(tmp_path, tmp_path / "checkpoints", {}, every_seconds=0)
        record = Record(tmp_path / "trajectory.zarr")
        network = mlp([6, 8, 3], "tanh", seed=1)
        result = flow(
            network,
            x,
            y,
            times=times,
            control=control,
            probes=[_Dies(dies)],
            record=record,
            checkpoints=checkpoints,
            progress=False,
        )
        return len(result.data["time"])

    times = np.linspace(0, 15, 20)
    with pytest.raises(_Stop):
        run(times, dies=12)
    for other in (times[:-1], 1.01 * times, np.append(times, 16.0)):
        with pytest.raises(InputError, match=r"another run \(times: float64 \[20\] .* there, float64 \["):
            run(other)
    with pytest.raises(InputError, match=r"relative_tolerance=0\.01"):
        run(times, StepControl(relative_tolerance=0.01))
    assert run(times) == 20


def test_no_label_is_left_out_unasked(device: torch.device) -> None:
    """Torch's cross-entropy leaves out −100, and the mean would count it all the same."""
    x, y = _problem(device)
    y[3] = -100
    network = mlp([6, 8, 3], "tanh", seed=1).double().to(device)
    with pytest.raises(InputError, match="labels go from -100"):
        flow(network, x, y, times=[0.0, 1.0], progress=False)
    with pytest.raises(IndexError, match="-100"):  # nor is it by the rule itself, where nothing looks at labels before
        flow(network, x, y, times=[0.0, 1.0], loss=lambda z, y: LossRule()(z, y), progress=False)


def test_batch_norms_statistics_stay(device: torch.device) -> None:
    x, y = _problem(device)
    plain = mlp([6, 8, 3], "tanh", seed=1).double()
    network = torch.nn.Sequential(plain[0], torch.nn.BatchNorm1d(8).double(), plain[1], plain[2]).to(device)
    before = [b.clone() for b in network.buffers()]
    result = flow(network, x, y, times=[0.0, 3.0], progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))
    assert result.losses[1].mean() < result.losses[0].mean()
    assert network.training


@pytest.mark.filterwarnings("error")
def test_a_flow_without_a_finite_gradient_ends_before_the_time_it_does_not_reach(device: torch.device) -> None:
    x, y = _problem(device, torch.float32)
    for scale, reached in ((float("nan"), 0), (1e38, 0)):
        result = flow(mlp([6, 8, 3], "relu", seed=1).to(device), scale * x, y, times=[0.0, 1.0], progress=False)
        assert result.diverged_at == reached
        assert len(result.losses) == reached
    result = flow(mlp([6, 8, 3], "relu", seed=1).to(device), x, y, loss=_steep, times=[0.0, 1.0], progress=False)
    assert result.diverged_at == 1


def test_a_flow_that_blows_up_after_a_resumption_leaves_the_weights_of_its_last_time(tmp_path: Path) -> None:
    """L = −w⁴ blows up at t = 1/8: killed on the way there, it never gets to another stated time."""

    def follow(folder: Path, dies_at: int | None = None) -> tuple[Flow, float]:
        network = torch.nn.Linear(1, 1, bias=False).double()
        torch.nn.init.ones_(network.weight)
        evaluations = [0]

        def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            evaluations[0] += 1
            if evaluations[0] == dies_at:
                raise KeyboardInterrupt
            return -(outputs.squeeze(1) ** 4)

        checkpoints = Checkpoints(Path("run"), folder, {}, every_seconds=0)
        one = torch.ones(1, 1, dtype=torch.float64)
        times = [0.0, 0.05, 0.1, 0.12, 0.2]
        result = flow(network, one, one[:, 0], loss=loss, times=times, checkpoints=checkpoints, progress=False)
        return result, network.weight.item()

    whole, weight = follow(tmp_path / "whole")
    assert whole.diverged_at == 4
    with pytest.raises(KeyboardInterrupt):
        follow(tmp_path / "killed", whole.evaluations - 20)
    resumed, again = follow(tmp_path / "killed")
    assert (resumed.diverged_at, again) == (4, weight)


def _steep(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Finite, and its gradient is not."""
    return (0 * outputs).abs().sqrt().sum(1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"times": [0.0, 1.0, 1.0]}, "time of the flow is 1.0: give increasing times"),
        ({"times": [-1.0]}, "time of the flow is -1.0"),
        ({"times": [0.0, np.nan]}, "time of the flow is nan"),
        ({"times": []}, "the flow has no times"),
        ({"times": [1.0], "example_weights": torch.zeros(30)}, "example weights have shape"),
        ({"times": [1.0], "example_weights": -torch.ones(30)}, "example weights have shape"),
        ({"times": [1.0], "batches": Batches(size=10)}, "minibatches have 10 examples"),
    ],
)
def test_bad_input_of_a_flow_is_one_line(options: dict[str, Any], words: str) -> None:
    x, y = _problem(torch.device("cpu"))
    with pytest.raises(InputError, match=words):
        flow(mlp([6, 8, 3], "tanh", seed=1).double(), x, y, progress=False, **options)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rule", "euler"),
        ("relative_tolerance", 0.0),
        ("absolute_tolerance", -1.0),
        ("stability_fraction", np.nan),
        ("longest", 0.0),
        ("refresh_every", 0),
    ],
)
def test_bad_step_control_is_one_line(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{field.replace('_', ' ')}.* is {value}: give"):
        StepControl(**{field: value})
