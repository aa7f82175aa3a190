"""Stacked runs against `sim.descend` run by run, linear networks against second moments, and runs that diverge."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from sim import Batches, descend, mlp, update_rules
from sim.batched_descent import descend_batch
from sim.batched_networks import LARGEST_WORK, descend_networks
from sim.batched_sharpness import Sharpness
from sim.curvature import MeanLoss, MeanLossHessian
from sim.losses import LossRule
from sim.opposing_data import draw_examples
from sim.optimizers import SplitSGD
from sim.second_moments import sample_moments
from sim.training import OptimizerFactory
from theory import InputError, Model


def _data(seed: int, n: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width, generator=generator, dtype=torch.float64)
    return x.to(device), torch.randint(0, 3, (n,), generator=generator).to(device)


def _networks(count: int, sizes: list[int], activation: str, device: torch.device) -> list[nn.Sequential]:
    return [mlp(sizes, activation, seed).double().to(device) for seed in range(count)]


class Undivided(LossRule):
    """Says that it needs all examples at once."""

    divides = False


RULES: dict[str, tuple[Callable[[Tensor], update_rules.Rule], OptimizerFactory]] = {
    "descent": (update_rules.GradientDescent, torch.optim.SGD),
    "momentum": (
        partial(update_rules.Momentum, mu=0.8, dampening=0.3),
        partial(torch.optim.SGD, momentum=0.8, dampening=0.3),
    ),
    "Adam": (update_rules.Adam, torch.optim.Adam),
    "sign": (update_rules.SignDescent, partial(SplitSGD, sign_lr=0.0, threshold=0.0, momentum=0.0, dampening=0.0)),
    "SplitSGD": (
        partial(update_rules.SplitSGD, sign_lr=0.01, threshold=0.05),
        partial(SplitSGD, sign_lr=0.01, threshold=0.05),
    ),
}


@given(
    rule=st.sampled_from(sorted(RULES)),
    hidden=st.lists(st.integers(1, 7), max_size=3),
    activation=st.sampled_from(["relu", "tanh", "gelu"]),
    loss=st.sampled_from([LossRule(), LossRule("squared"), LossRule(label_smoothing=0.1)]),
    size=st.one_of(st.none(), st.integers(1, 25)),
    chunk=st.one_of(st.none(), st.integers(1, 25)),
    own_data=st.booleans(),
    own_order=st.booleans(),
    together=st.integers(1, 4),
)
@example(
    rule="descent",
    hidden=[5],
    activation="tanh",
    loss=LossRule(),
    size=7,
    chunk=3,
    own_data=True,
    own_order=True,
    together=2,
)
def test_every_run_is_that_of_sim_descend_alone(
    rule: str,
    hidden: list[int],
    activation: str,
    loss: LossRule,
    size: int | None,
    chunk: int | None,
    own_data: bool,
    own_order: bool,
    together: int,
    device: torch.device,
) -> None:
    """`sim.descend` calls one `nn.Sequential` and `torch.optim`; here all runs pass through `bmm` and batched rules."""
    runs, steps, n = 3, 8, 23
    networks = _networks(runs, [4, *hidden, 3], activation, device)
    data = [_data(seed if own_data else 0, n, 4, device) for seed in range(runs)]
    inputs, labels = (torch.stack(t) for t in zip(*data, strict=True)) if own_data else data[0]
    lrs = torch.tensor([0.01, 0.03, 0.1], dtype=torch.float64, device=device)
    batches = [Batches(size, chunk, seed=seed if own_order else 0) for seed in range(runs)]
    batched, single = RULES[rule]
    got = descend_networks(
        networks,
        inputs,
        labels,
        batched(lrs),
        steps,
        loss=loss,
        batches=batches if own_order else batches[0],
        groups={"even": torch.arange(n, device=device) % 2 == 0},
        example_losses=True,
        runs_together=together,
    )
    for run in range(runs):
        options = {"sign_lr": float(lrs[run])} if rule == "sign" else {}
        expected = descend(
            networks[run],
            *data[run],
            lr=float(lrs[run]),
            steps=steps,
            optimizer=partial(single, **options),
            loss=loss,
            batches=batches[run],
            progress=False,
        )
        # `sim.descend` keeps losses in float32; the weights are compared in float64.
        np.testing.assert_allclose(got["example_loss"][:, run], expected.losses, rtol=1e-6, atol=1e-7)
        with np.errstate(all="ignore"):
            means = [
                np.nansum(each, 1) / np.isfinite(each).sum(1) for each in (expected.losses, expected.losses[:, ::2])
            ]
        np.testing.assert_allclose(got["loss"][:, run], means[0], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(got["loss_even"][:, run], means[1], rtol=1e-5, atol=1e-7)
        weights = torch.cat([p.detach().flatten() for p in networks[run].parameters()])
        if rule != "sign":  # a gradient of rounding size has either sign
            np.testing.assert_allclose(got["final_parameters"][run], weights.cpu(), rtol=1e-6, atol=1e-9)


def _squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs[:, 0] - targets) ** 2 / 2


@pytest.mark.parametrize("rule", ["descent", "Adam"])
def test_linear_networks_are_those_of_the_second_moment_engine(rule: str) -> None:
    """One engine differentiates the losses of raw examples by autograd, the other has gradients from moments."""
    model = Model([8.0], np.linspace(-1, 1.5, 5), np.linspace(0.3, 1, 5))
    (chunk,) = draw_examples(model, 300, 0.2, 0, torch.device("cpu"))
    starts = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 2
    networks = []
    for start in starts:
        first, last = nn.Linear(6, 3, bias=False), nn.Linear(3, 1, bias=False)
        first.weight.data, last.weight.data = start[:, 1:].clone(), start[:, 0][None].clone()
        networks.append(nn.Sequential(first, last))
    lrs = torch.tensor([0.003, 0.01, 0.02, 0.03], dtype=torch.float64)
    by_rule, _ = RULES[rule]
    sharpness = Sharpness(20, tolerance=1e-9)
    groups = {name: chunk.group == sign for name, sign in (("plus", 1), ("minus", -1))}
    got = descend_networks(
        networks, chunk.features, chunk.target, by_rule(lrs), 100, loss=_squared, groups=groups, sharpness=sharpness
    )
    moments = sample_moments([chunk])
    outliers = {name: moments[name] for name in groups}
    expected = descend_batch(moments["all"], starts, by_rule(lrs), 100, groups=outliers, keep_weights=True)
    for name in ("loss", "loss_plus", "loss_minus"):
        np.testing.assert_allclose(got[name], expected[name][:100], rtol=1e-6)
    np.testing.assert_allclose(got["sharpness"], expected["sharpness"][:100:20], rtol=1e-6)
    ends = torch.from_numpy(expected["weights"].values[100])
    flat = torch.cat([ends[..., 1:].flatten(1), ends[..., 0]], 1)
    np.testing.assert_allclose(got["final_parameters"], flat, rtol=1e-6, atol=1e-12)


def test_a_run_that_diverges_stops_where_sim_descend_does_and_leaves_the_others_alone(device: torch.device) -> None:
    x, y = _data(0, 20, 4, device)
    networks = _networks(3, [4, 6, 3], "gelu", device)
    lrs = torch.tensor([0.1, 1e4, 0.1], dtype=torch.float64, device=device)
    options: dict[str, Any] = {"example_losses": True, "sharpness": Sharpness(5)}
    got = descend_networks(networks, x, y, update_rules.Momentum(lrs), 40, **options)
    only = [networks[0], networks[2]]
    others = descend_networks(only, x, y, update_rules.Momentum(lrs[[0, 2]]), 40, **options)
    optimizer = partial(torch.optim.SGD, momentum=0.9)
    expected = descend(networks[1], x, y, lr=1e4, steps=40, optimizer=optimizer, progress=False)
    assert expected.diverged_at is not None
    assert got["diverged_at"].values.tolist() == [-1, expected.diverged_at, -1]
    losses = got["example_loss"].values[:, 1]
    np.testing.assert_allclose(losses[: expected.diverged_at], expected.losses, rtol=1e-5)
    assert np.isnan(losses[expected.diverged_at :]).all()
    assert np.isnan(got["loss"].values[expected.diverged_at :, 1]).all()
    late = got["measured"].values >= expected.diverged_at
    assert late.any()
    assert np.isnan(got["sharpness"].values[late, 1]).all()
    weights = torch.cat([p.detach().flatten() for p in networks[1].parameters()])
    np.testing.assert_allclose(got["final_parameters"][1], weights.cpu(), rtol=1e-6)
    for name in others:
        np.testing.assert_allclose(got[name].isel(run=[0, 2]), others[name], rtol=1e-9, err_msg=name)


def test_the_sharpness_of_every_run_is_the_dense_hessians(device: torch.device) -> None:
    x, y = _data(0, 20, 4, device)
    networks = _networks(3, [4, 5, 3], "tanh", device)
    rule = update_rules.GradientDescent(0.1)
    got = descend_networks(networks, x, y, rule, 11, sharpness=Sharpness(10, tolerance=1e-8), runs_together=2)
    assert got["converged"].all()
    assert got["measured"].values.tolist() == [0, 10]
    assert got["verified"][0].all()
    for run, network in enumerate(networks):
        for i in range(2):
            operator = MeanLossHessian(MeanLoss(network, x, y))
            dense = operator.matmat(torch.eye(operator.size, dtype=torch.float64, device=device))
            assert float(got["sharpness"][i, run]) == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-7)
            descend(network, x, y, lr=0.1, steps=10, progress=False)


def _decoupled(seed: int) -> nn.Sequential:
    """Two diagonal layers from tiny weights: every direction is learned by itself, at a time of its own."""
    generator = torch.Generator().manual_seed(seed)
    scale = 10 ** (-6 * torch.rand(6, generator=generator)) * torch.linspace(1, 0.01, 6)
    network = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
    with torch.no_grad():
        for i, part in enumerate((1.0, 1.2)):
            network[i].weight.copy_(torch.diag(part * scale))
    return network


def test_an_eigenvalue_that_rises_out_of_a_stacks_sight_is_found_by_verification() -> None:
    x, y = torch.diag(torch.tensor([1.0, 1.3, 1.6, 2.0, 2.5, 3.0])), torch.arange(6)
    last, verified = {}, {}
    for every in (5, 0):
        settings = Sharpness(20, verify_every=every)
        networks, rule = [_decoupled(seed) for seed in (5, 6)], update_rules.GradientDescent(0.6)
        got = descend_networks(networks, x, y, rule, 600, loss=LossRule("squared"), sharpness=settings)
        assert got["converged"].all()
        last[every], verified[every] = got["sharpness"].values[-1], got["verified"].values
    # λ of Σ (σab − 1)²/m at its minimum, σab = 1 and a = b: 4σ/m, of the largest input σ = 3.
    assert last[5] == pytest.approx([2.0, 2.0], rel=1e-3)
    assert verified[5][::5].all()
    assert (last[0] < 1.8).all()  # the control
    assert not verified[0][1:].any()


def test_measuring_recording_and_grouping_change_no_bit_of_the_weights() -> None:
    x, y = _data(0, 20, 4, torch.device("cpu"))
    networks = _networks(4, [4, 6, 3], "relu", torch.device("cpu"))
    before = [p.clone() for network in networks for p in network.parameters()]
    rule = update_rules.Adam(0.01)
    plain = descend_networks(networks, x, y, rule, 20, record_every=20)
    measured = descend_networks(networks, x, y, rule, 20, example_losses=True, sharpness=Sharpness(3))
    np.testing.assert_array_equal(plain["final_parameters"], measured["final_parameters"])
    assert plain["step"].values.tolist() == [0]
    for a, b in zip(before, (p for network in networks for p in network.parameters()), strict=True):
        assert torch.equal(a, b)


def test_stacks_hold_as_many_runs_as_the_bound_on_work_lets(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _data(0, 100, 4, torch.device("cpu"))
    seen: list[int] = []

    def record(outputs: Tensor, labels: Tensor) -> Tensor:
        seen.append(len(outputs) // 100)
        return LossRule()(outputs, labels)

    networks = _networks(5, [4, 50, 3], "relu", torch.device("cpu"))
    work = 6 * 100 * (4 * 50 + 50 * 3)
    assert 5 * work < LARGEST_WORK
    for bound, stacks in ((LARGEST_WORK, [5]), (2 * work, [2, 2, 1]), (work - 1, [1] * 5)):
        monkeypatch.setattr("sim.batched_networks.LARGEST_WORK", bound)
        seen.clear()
        descend_networks(networks, x, y, update_rules.GradientDescent(0.1), 1, loss=record)
        assert seen == stacks
    # A look at the sharpness passes all examples of a stack's runs at once, however few a step takes.
    rows: list[int] = []

    def count(outputs: Tensor, labels: Tensor) -> Tensor:
        rows.append(len(outputs))
        return LossRule()(outputs, labels)

    monkeypatch.setattr("sim.batched_networks.LARGEST_WORK", 2 * work)
    for looks, most in ((None, 5 * 10), (Sharpness(1), 2 * 100)):
        rows.clear()
        rule, batches = update_rules.GradientDescent(0.1), Batches(10)
        descend_networks(networks, x, y, rule, 1, loss=count, batches=batches, sharpness=looks)
        assert max(rows) == most


class Skipping(nn.Sequential):
    """A chain with a way around it."""

    def forward(self, input: Tensor) -> Tensor:
        """The chain's outputs, and some of its inputs added."""
        outputs: Tensor = super().forward(input)
        return outputs + input[:, :3]


class Doubled(nn.Linear):
    """A linear map with a forward pass of its own."""

    def forward(self, input: Tensor) -> Tensor:
        """Twice the map."""
        return 2 * super().forward(input)


def _tied() -> nn.Sequential:
    network = mlp([4, 4, 4, 3], "tanh", 0)
    first, second = network[0], network[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    second.weight = first.weight
    return network


def _prepared(prepare: Callable[[nn.Sequential], object]) -> nn.Sequential:
    network = mlp([4, 5, 3], "tanh", 0)
    prepare(network)
    return network


SQUARE = nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (_prepared(lambda n: n[0].weight.requires_grad_(False)), "parameter 0.weight is frozen"),
        (_prepared(lambda n: n[0].register_forward_hook(lambda module, i, outputs: 3 * outputs)), r"hooks \(on Linear"),
        (_prepared(lambda n: n[1].register_forward_pre_hook(lambda module, i: (3 * i[0],))), r"hooks \(on Tanh"),
        (
            _prepared(lambda n: n.register_forward_hook(lambda module, i, outputs: 3 * outputs)),
            r"hooks \(on Sequential",
        ),
        (_prepared(lambda n: n[2].weight.register_hook(torch.zeros_like)), r"hooks \(on Parameter"),
        (Skipping(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), "is of class Skipping"),
        (nn.Sequential(Doubled(4, 3)), "has Doubled"),
        (nn.Sequential(SQUARE, nn.Tanh(), SQUARE), "one parameter in two places"),
        (_tied(), "one parameter in two places"),
    ],
)
def test_networks_of_which_a_stack_would_make_others_are_refused(network: nn.Sequential, words: str) -> None:
    x, y = _data(0, 20, 4, torch.device("cpu"))
    descend(network, x.float(), y, lr=0.1, steps=1, progress=False)  # which takes them as they are
    with pytest.raises(InputError, match=words):
        descend_networks([network], x.float(), y, update_rules.GradientDescent(0.1), 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"networks": []}, "there is no network"),
        ({"networks": [nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))] * 2}, "network has BatchNorm1d"),
        ({"networks": [mlp([4, 3], "relu", 0), mlp([4, 2, 3], "relu", 0)]}, "different layers"),
        ({"inputs": torch.ones(6, 5)}, r"inputs have shape \[6, 5\]"),
        ({"labels": torch.ones(5)}, r"labels \[5\]"),
        ({"inputs": torch.ones(3, 6, 4)}, r"inputs have shape \[3, 6, 4\]"),
        ({"rule": update_rules.GradientDescent(torch.ones(3))}, r"lr has shape \(3,\)"),
        ({"rule": update_rules.GradientDescent(-1.0)}, "lr is -1.0"),
        ({"steps": 0}, "steps is 0"),
        ({"record_every": 0}, "record_every is 0"),
        ({"runs_together": 0}, "runs_together is 0"),
        ({"batches": [Batches(2)]}, "1 batches for 2 runs"),
        ({"batches": [Batches(2), Batches(3)]}, "2 batches for 2 runs"),
        ({"groups": {"all": torch.ones(6)}}, "group all has shape"),
        ({"loss": lambda outputs, labels: outputs.mean()}, "losses have shape"),
        ({"loss": Undivided()}, "needs all examples of a network at once"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {
        "networks": [mlp([4, 3], "relu", seed) for seed in range(2)],
        "inputs": torch.ones(6, 4),
        "labels": torch.zeros(6, dtype=torch.int64),
        "rule": update_rules.GradientDescent(0.1),
        "steps": 1,
    } | change
    with pytest.raises(InputError, match=words):
        descend_networks(**arguments)
    with pytest.raises(InputError, match="measurements of the sharpness is 0"):
        Sharpness(0)
