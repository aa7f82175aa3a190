"""Loss rules, weights of examples, optimisers by name, snapshots: each against a formula written out here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sim import (
    Batches,
    LossRule,
    OptimizerChoice,
    SharpnessProbe,
    SnapshotProbe,
    build,
    descend,
    flow,
    mlp,
    update_rules,
)
from sim.batched_networks import descend_networks
from sim.curvature.mean_loss import ExampleLoss, cross_entropy
from sim.networks import Architecture, load_parameters, parameter_vector
from theory.command_line import InputError


def problem(count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 48, generator=generator), torch.randint(0, 3, (count,), generator=generator)


def perceptron() -> torch.nn.Module:
    return build(Architecture(hidden=(9,), activation="tanh"), (3, 4, 4), 3, seed=2)


@given(st.floats(0, 0.99), st.integers(2, 12), st.integers(0, 10**6))
def test_losses_are_their_formulas(smoothing: float, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(5, classes, generator=generator, dtype=torch.float64)
    y = torch.randint(0, classes, (5,), generator=generator)
    targets = np.full((5, classes), smoothing / classes)
    targets[np.arange(5), y.numpy()] += 1 - smoothing
    log_softmax = z.numpy() - np.log(np.exp(z.numpy()).sum(1, keepdims=True))
    entropy = LossRule(label_smoothing=smoothing)(z, y).numpy()
    np.testing.assert_allclose(entropy, -(targets * log_softmax).sum(1), rtol=1e-12)
    squared = LossRule("squared", smoothing)(z, y).numpy()
    np.testing.assert_allclose(squared, ((z.numpy() - targets) ** 2).sum(1) / 2, rtol=1e-12)


def test_an_example_of_weight_zero_is_recorded_and_not_learnt_from() -> None:
    x, y = problem()
    kept = torch.arange(40) % 4 != 0
    weighted, without = perceptron(), perceptron()
    weights = kept.float() * 3.0  # a common factor changes nothing
    probes = [
        SharpnessProbe(network, inputs, labels, 0.3, every=10, tolerance=1e-5, example_weights=given)
        for network, inputs, labels, given in ((weighted, x, y, weights), (without, x[kept], y[kept], None))
    ]
    a = descend(weighted, x, y, lr=0.3, steps=30, example_weights=weights, probes=[probes[0]], progress=False).losses
    b = descend(without, x[kept], y[kept], lr=0.3, steps=30, probes=[probes[1]], progress=False).losses
    assert np.isfinite(a).all()
    np.testing.assert_allclose(a[:, kept.numpy()], b, rtol=1e-4)
    assert a[-1, ~kept.numpy()].mean() > b[-1].mean()
    for name in ("sharpness_iterate", "sharpness_midpoint", "block_sharpness"):
        np.testing.assert_allclose(*(p.dataset()[name].values for p in probes), rtol=1e-3)
    bare = SharpnessProbe(weighted, x, y, 0.3, every=10)  # the control: without weights it is another loss
    bare(0, list(perceptron().parameters()), list(perceptron().parameters()))
    assert abs(bare.dataset()["sharpness_iterate"].values[0] / probes[0].dataset()["sharpness_iterate"][0] - 1) > 1e-3


class Gradients:
    """Keeps the gradients it is shown."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, step: int, parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        """Keeps them."""
        self.seen.append(torch.cat([g.flatten() for g in gradients]).clone())


@pytest.mark.parametrize("rule", [LossRule(), LossRule("squared"), LossRule(label_smoothing=0.2)])
@pytest.mark.parametrize("batches", [Batches(), Batches(chunk=11), Batches(size=15, chunk=4)])
def test_the_gradient_is_that_of_the_weighted_mean_in_any_chunks(rule: LossRule, batches: Batches) -> None:
    x, y = problem()
    weights = torch.rand(40, generator=torch.Generator().manual_seed(1))
    probe = Gradients()
    losses = descend(
        perceptron(), x, y, lr=0.0, steps=1, loss=rule, example_weights=weights, batches=batches, probes=[probe],
        progress=False,
    ).losses  # fmt: skip
    part = torch.from_numpy(np.isfinite(losses[0]))
    network = perceptron()
    each = rule(network(x[part]), y[part])
    expected = torch.autograd.grad((each * weights[part]).sum() / weights[part].sum(), list(network.parameters()))
    torch.testing.assert_close(probe.seen[0], torch.cat([g.flatten() for g in expected]), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(losses[0][part], each.detach(), rtol=1e-5)


def test_a_minibatch_without_weight_takes_no_step() -> None:
    x, y = problem()
    batches = Batches(size=1)
    first = descend(perceptron(), x, y, lr=0.0, steps=1, batches=batches, progress=False).losses
    weights = torch.from_numpy((~np.isfinite(first[0])).astype(np.float32))
    network = perceptron()
    descend(network, x, y, lr=1.0, steps=1, example_weights=weights, batches=batches, progress=False)
    assert torch.equal(parameter_vector(network), parameter_vector(perceptron()))


@pytest.mark.parametrize("weights", [torch.ones(3), torch.zeros(40), -torch.ones(40), torch.full((40,), torch.nan)])
def test_weights_that_make_no_mean_are_refused(weights: torch.Tensor) -> None:
    x, y = problem()
    with pytest.raises(InputError, match="example weights"):
        descend(perceptron(), x, y, lr=0.1, steps=1, example_weights=weights, progress=False)


H = torch.diag(torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64))
START = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)


def steps_on_a_quadratic(choice: OptimizerChoice, lr: float, steps: int) -> list[torch.Tensor]:
    weights = torch.nn.Parameter(START.clone())

    def gradient() -> None:
        weights.grad = H @ weights.detach()

    optimizer, path = choice.factory()([weights], lr=lr), []
    for _ in range(steps):
        gradient()
        if choice.kind == "sam":
            optimizer.step(gradient)  # type: ignore[arg-type]
        else:
            optimizer.step()
        path.append(weights.detach().clone())
    return path


@pytest.mark.parametrize(
    "choice",
    [
        OptimizerChoice(),
        OptimizerChoice("momentum", momentum=0.8),
        OptimizerChoice("momentum", momentum=0.8, dampening=0.7),
        OptimizerChoice("adam", momentum=0.8, second_momentum=0.95),
        OptimizerChoice("split_sgd", momentum=0.8, dampening=0.7, sign_lr=0.01, threshold=1.5),
        OptimizerChoice("sam", radius=0.3),
    ],
    ids=lambda choice: f"{choice.kind}-{choice.dampening}",
)
def test_optimisers_by_name_take_the_steps_of_their_rules(choice: OptimizerChoice) -> None:
    theta, v, square, lr = START.clone(), torch.zeros(3).double(), torch.zeros(3).double(), 0.1
    for t, found in enumerate(steps_on_a_quadratic(choice, lr, steps=6), start=1):
        g = H @ theta
        if choice.kind == "gd":
            theta = theta - lr * g
        elif choice.kind == "momentum":
            v = g if t == 1 else 0.8 * v + (1 - choice.dampening) * g
            theta = theta - lr * v
        elif choice.kind == "adam":
            v, square = 0.8 * v + 0.2 * g, 0.95 * square + 0.05 * g**2
            theta = theta - lr * (v / (1 - 0.8**t)) / ((square / (1 - 0.95**t)).sqrt() + 1e-8)
        elif choice.kind == "split_sgd":
            large = g.abs() > 1.5
            v = torch.where(large, 0.0, g) if t == 1 else 0.8 * v + 0.3 * torch.where(large, 0.0, g)
            theta = theta - torch.where(large, 0.01 * g.sign(), lr * v)
        else:
            theta = theta - lr * H @ (theta + 0.3 * g / g.norm())
        torch.testing.assert_close(found, theta, rtol=1e-12, atol=1e-12)


def test_sam_in_descent_takes_both_gradients_from_the_same_batch() -> None:
    x, y = problem()
    network, by_hand = perceptron(), perceptron()
    batches, radius = Batches(size=16, chunk=5, seed=3), 0.2
    choice = OptimizerChoice("sam", radius=radius)
    losses = descend(network, x, y, lr=0.1, steps=7, optimizer=choice.factory(), batches=batches, progress=False).losses
    parameters = list(by_hand.parameters())
    for row in losses:
        part = torch.from_numpy(np.isfinite(row))
        start = parameter_vector(by_hand)
        each = torch.nn.functional.cross_entropy(by_hand(x[part]), y[part], reduction="none")
        np.testing.assert_allclose(row[part], each.detach(), rtol=2e-4)
        g = torch.cat([p.flatten() for p in torch.autograd.grad(each.mean(), parameters)])
        load_parameters(by_hand, start + radius * g / g.norm())
        moved = torch.nn.functional.cross_entropy(by_hand(x[part]), y[part])
        g = torch.cat([p.flatten() for p in torch.autograd.grad(moved, parameters)])
        load_parameters(by_hand, start - 0.1 * g)
    torch.testing.assert_close(parameter_vector(network), parameter_vector(by_hand), rtol=1e-4, atol=1e-6)


def test_sam_updates_batch_norms_statistics_once_a_step() -> None:
    architecture = Architecture("vgg11_bn", width=1 / 64)
    x, y = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    buffers = []
    for choice in (OptimizerChoice("sam", radius=5.0), OptimizerChoice()):
        network = build(architecture, (3, 32, 32), 10, seed=0)
        descend(network, x, y, lr=0.0, steps=2, optimizer=choice.factory(), progress=False)
        buffers.append(torch.cat([b.flatten().float() for b in network.buffers()]))
    assert torch.equal(*buffers)


def test_sam_at_a_stationary_point_stays() -> None:
    weights = torch.nn.Parameter(torch.zeros(3))

    def half_square() -> None:
        weights.grad = weights.detach().clone()

    half_square()
    OptimizerChoice("sam").factory()([weights], lr=0.1).step(half_square)  # type: ignore[arg-type, call-overload]
    assert torch.equal(weights, torch.zeros(3))


def test_a_run_begun_from_a_snapshot_repeats_the_rest() -> None:
    x, y = problem()
    network = perceptron()
    probe = SnapshotProbe(parameter_vector(network).numel(), every=4)
    losses = descend(network, x, y, lr=0.3, steps=11, probes=[probe], progress=False).losses
    data = probe.record.dataset()
    assert data["snapshot_step"].values.tolist() == [0, 4, 8]
    assert data["snapshot"].dims == ("snapshot_step", "parameter")
    assert data["snapshot"].dtype == np.float32
    again = perceptron()
    load_parameters(again, torch.from_numpy(data["snapshot"].sel(snapshot_step=8).values))
    rest = descend(again, x, y, lr=0.3, steps=3, progress=False).losses
    assert np.array_equal(rest, losses[8:])
    assert torch.equal(parameter_vector(again), parameter_vector(network))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "lion"}, "optimizer is lion"),
        ({"kind": "momentum", "momentum": 1.0}, "momentum is 1.0"),
        ({"kind": "adam", "second_momentum": -0.1}, "second_momentum is -0.1"),
        ({"kind": "momentum", "dampening": 2.0}, "dampening is 2.0"),
        ({"kind": "split_sgd"}, "split_sgd has no threshold"),
        ({"kind": "sam", "radius": -1.0}, "radius is -1.0"),
        ({"kind": "adam", "epsilon": -1.0}, "epsilon is -1.0"),
        ({"kind": "adam", "epsilon": float("inf")}, "epsilon is inf"),  # it would stand still
        ({"kind": "momentum", "momentum": 0.0, "dampening": 0.5}, "dampening is 0.5 without momentum"),
        (
            {"kind": "split_sgd", "threshold": 1.0, "momentum": 0.0, "dampening": 0.5},
            "dampening is 0.5 without momentum",
        ),
        ({"kind": "split_sgd", "threshold": float("nan")}, "threshold is nan"),
        ({"kind": "split_sgd", "threshold": 1.0, "sign_lr": -0.1}, "sign_lr is -0.1"),
    ],
)
def test_bad_optimisers_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OptimizerChoice(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [{"kind": "hinge"}, {"label_smoothing": 1.0}, {"label_smoothing": -0.1}])
def test_bad_losses_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"loss is hinge|label smoothing is"):
        LossRule(**values)  # type: ignore[arg-type]


def _descend(network: nn.Module, x: Tensor, y: Tensor, loss: ExampleLoss) -> object:
    return descend(network, x, y, lr=0.1, steps=1, loss=loss, progress=False)


def _flow(network: nn.Module, x: Tensor, y: Tensor, loss: ExampleLoss) -> object:
    return flow(network, x, y, times=[0.1], loss=loss, progress=False)


def _stack(network: nn.Module, x: Tensor, y: Tensor, loss: ExampleLoss) -> object:
    assert isinstance(network, nn.Sequential)
    return descend_networks([network] * 2, x, y, update_rules.GradientDescent(0.1), 1, loss=loss)


def _stack_of_own_labels(network: nn.Module, x: Tensor, y: Tensor, loss: ExampleLoss) -> object:
    assert isinstance(network, nn.Sequential)
    own = torch.stack([y * 0, y])
    return descend_networks([network] * 2, x.expand(2, *x.shape), own, update_rules.GradientDescent(0.1), 1, loss=loss)


@pytest.mark.parametrize("loss", [LossRule(), LossRule("squared"), cross_entropy])
@pytest.mark.parametrize("run", [_descend, _flow, _stack, _stack_of_own_labels])
def test_labels_and_outputs_that_the_loss_does_not_take_are_one_line_in_every_kind_of_run(
    run: Callable[..., object], loss: ExampleLoss
) -> None:
    x, y = problem()
    start = mlp([48, 9, 3], "tanh", 2)
    for change in (-98, 1000):
        wrong = y.index_fill(0, torch.tensor([3]), change)
        with pytest.raises(InputError, match=f"labels go from .*{change}.*: give class indices from 0 to 2"):
            run(start, x, wrong, loss)
    with pytest.raises(InputError, match=r"labels are of type float32 and shape \[\d+\]: give \(n,\) class indices"):
        run(start, x, y.float(), loss)
    with pytest.raises(InputError, match=r"labels are of type int64 and shape \[\d+, 1\]"):
        run(start, x, y[:, None], loss)
    if run in (_descend, _flow):
        with pytest.raises(InputError, match=r"outputs have shape \[40\]: the loss takes \(n, classes\)"):
            run(nn.Sequential(nn.Linear(48, 1), nn.Flatten(0)), x, y, loss)
    run(start, x, y, loss)
    if loss != LossRule("squared"):
        run(start, x, F.one_hot(y, 3).float(), loss)


def test_a_network_frozen_as_a_whole_and_an_optimizer_without_a_fixed_number_of_gradients_are_refused() -> None:
    x, y = problem()
    with pytest.raises(InputError, match="no parameter of the network requires a gradient: unfreeze"):
        descend(mlp([48, 9, 3], "tanh", 2).requires_grad_(False), x, y, lr=0.1, steps=1, progress=False)
    with pytest.raises(InputError, match="optimizer LBFGS takes as many gradients a step as it likes"):
        descend(mlp([48, 9, 3], "tanh", 2), x, y, lr=0.1, steps=1, optimizer=torch.optim.LBFGS, progress=False)
