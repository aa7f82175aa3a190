"""Deep linear networks on second moments: autograd on the raw examples, dense Hessians, theory's deep network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import finite, models, states
from torch import Tensor

import sim.optimizers
import theory
from sim import update_rules
from sim.batched_descent import descend_batch
from sim.deep_network import balancedness_matrices, join_layers, split_layers
from sim.opposing_data import OpposingLaw, draw_examples
from sim.second_moments import Moments, population_batch, population_moments, sample_moments, stack
from theory import InputError, Model
from theory.configuration import DescentConfig
from theory.deep_network import DeepState, deep_descent, layer_balancedness

CPU = torch.device("cpu")
MODEL = Model([8.0, 5.0], [1.0, -1.0, 0.5], [1.0, 0.5, 0.25])


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _layers(seed: int, widths: Sequence[int], *batch: int, size: float = 1.0) -> list[Tensor]:
    return [size * _normal(seed + 7 * i, *batch, m, n) for i, (n, m) in enumerate(pairwise(widths))]


def _forward(weights: Tensor, widths: Sequence[int], z: Tensor) -> Tensor:
    """The network layer by layer on examples (n, d): nothing of second moments, rows or columns."""
    begin = 0
    for n, m in pairwise(widths):
        z = z @ weights[begin : begin + m * n].reshape(m, n).T
        begin += m * n
    return z[:, 0]


def _examples(seed: int, n: int, d: int) -> tuple[Tensor, Tensor, Moments]:
    z, y = _normal(seed, n, d), _normal(seed + 1, n)
    return z, y, Moments(z.T @ z / n, z.T @ y / n, y @ y / n)


@given(
    seed=st.integers(0, 10_000),
    widths=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    dead=st.integers(-1, 3),
    diagonal=st.booleans(),
)
def test_all_that_is_recorded_is_autograds_on_the_examples(
    seed: int, widths: list[int], dead: int, diagonal: bool
) -> None:
    widths = [*widths, 1]
    z, y, moments = _examples(seed, 7, widths[0])
    layers = _layers(seed + 2, widths, 2)
    if 0 <= dead < len(layers):
        layers[dead][0] = 0  # rows above or columns below vanish
    data = descend_batch(
        moments.diagonal if diagonal else moments,
        layers,
        update_rules.GradientDescent(0.01),
        1,
        groups={"all again": moments},
        pairs=1,
        keep_weights=True,
    )

    def loss(weights: Tensor) -> Tensor:
        return ((_forward(weights, widths, z) - y) ** 2).mean() / 2

    for run in range(2):
        weights = torch.cat([layer[run].flatten() for layer in layers])
        got = {name: data[name].values[0, run] for name in data.data_vars if "step" in data[name].dims}
        moved = weights - 0.01 * torch.func.grad(loss)(weights)
        np.testing.assert_allclose(got["weights"], weights, rtol=0, atol=1e-12 * float(weights.abs().max() + 1))
        np.testing.assert_allclose(
            data["weights"][1, run], moved, rtol=1e-10, atol=1e-10 * float(moved.abs().max() + 1)
        )
        np.testing.assert_allclose([got["loss"], got["loss_all again"]], loss(weights), rtol=1e-10)
        hessian = torch.func.hessian(loss)(weights)
        size = float(hessian.abs().max())
        top = torch.linalg.eigvalsh(hessian)[-1]
        np.testing.assert_allclose(got["sharpness"], max(float(top), 0.0), rtol=1e-10, atol=1e-12 * size)
        begin = 0
        for layer, (n, m) in enumerate(pairwise(widths)):
            block = hessian[begin : begin + m * n, begin : begin + m * n]
            expected = torch.linalg.eigvalsh(block)[-1]
            np.testing.assert_allclose(got["layer_sharpness"][layer], expected, rtol=1e-10, atol=1e-12 * size)
            begin += m * n
        function = _forward(weights, widths, torch.eye(widths[0], dtype=torch.float64))
        np.testing.assert_allclose(got["opposing"], function[-1:], rtol=1e-10, atol=1e-12)


def test_the_hessian_of_a_network_too_large_for_a_dense_one_is_found_by_lanczos() -> None:
    widths = (12, 9, 7, 5, 1)
    z, y, moments = _examples(0, 30, 12)
    layers = _layers(1, widths, 3, size=0.5)
    data = descend_batch(moments, layers, update_rules.GradientDescent(0.0), 1)
    assert sum(m + n for m, n in pairwise(widths)) > 40

    def loss(weights: Tensor) -> Tensor:
        return ((_forward(weights, widths, z) - y) ** 2).mean() / 2

    for run in range(3):
        weights = torch.cat([layer[run].flatten() for layer in layers])
        expected = torch.linalg.eigvalsh(torch.func.hessian(loss)(weights))[-1]
        np.testing.assert_allclose(data["sharpness"][0, run], expected, rtol=1e-12)
    assert float(data["sharpness_residual"].max()) <= 2e-8
    # Control: dense problems are solved to rounding and say so; here a residual is left.
    assert float(data["sharpness_residual"].min()) > 0


def _sign_descent(theta: Tensor) -> Callable[[], None]:
    def step() -> None:
        with torch.no_grad():
            assert theta.grad is not None
            theta.sub_(theta.grad.sign(), alpha=0.004)

    return step


def _torch_step(make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> Callable[[Tensor], Callable[[], object]]:
    return lambda theta: make([theta]).step


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        (update_rules.GradientDescent(0.02), _torch_step(functools.partial(torch.optim.SGD, lr=0.02))),
        (
            update_rules.Momentum(0.01, 0.9, 0.5),
            _torch_step(functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9, dampening=0.5)),
        ),
        (
            update_rules.Momentum(0.004, 0.9, nesterov=True),
            _torch_step(functools.partial(torch.optim.SGD, lr=0.004, momentum=0.9, nesterov=True)),
        ),
        (
            update_rules.Adam(0.01, 0.8, 0.99, 1e-6),
            _torch_step(functools.partial(torch.optim.Adam, lr=0.01, betas=(0.8, 0.99), eps=1e-6)),
        ),
        (update_rules.SignDescent(0.004), _sign_descent),
        (
            update_rules.SplitSGD(0.01, 0.004, 0.3, 0.9, 0.9),
            _torch_step(
                functools.partial(
                    sim.optimizers.SplitSGD, lr=0.01, sign_lr=0.004, threshold=0.3, momentum=0.9, dampening=0.9
                )
            ),
        ),
    ],
    ids=lambda x: type(x).__name__,
)
def test_every_rule_descends_as_autograd_on_the_examples(
    rule: update_rules.Rule, theirs: Callable[[Tensor], Callable[[], object]], device: torch.device
) -> None:
    widths = (5, 4, 3, 1)
    z, y, moments = _examples(3, 40, 5)
    layers = _layers(4, widths, 2, size=0.6)
    data = descend_batch(moments, [w.to(device) for w in layers], rule, 60, record_every=60, keep_weights=True)
    for run in range(2):
        theta = torch.nn.Parameter(torch.cat([layer[run].flatten() for layer in layers]))
        step = theirs(theta)
        for _ in range(60):
            theta.grad = None
            (((_forward(theta, widths, z) - y) ** 2).mean() / 2).backward()
            step()
        np.testing.assert_allclose(data["weights"][-1, run], theta.detach(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_widths_of_one_are_the_theorys_deep_network(depth: int) -> None:
    scalars = 1 + 0.2 * _normal(depth, depth - 1)
    first = 0.4 * _normal(depth + 1, 5)
    layers = [first.reshape(1, 1, 5), *(scalars[i].reshape(1, 1, 1) for i in range(depth - 1))]
    data = descend_batch(
        population_batch([MODEL], CPU), layers, update_rules.GradientDescent(0.03), 80, pairs=2, keep_weights=True
    )
    expected = deep_descent(MODEL, DeepState(scalars, first[:3], first[3:]), 0.03, 80)
    np.testing.assert_allclose(data["weights"][:, 0, :5], np.hstack([expected.b, expected.s]), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(data["weights"][:, 0, 5:], expected.layers, rtol=1e-10)
    np.testing.assert_allclose(data["loss"][:, 0], theory.loss(MODEL, expected.effective), rtol=1e-10)
    c = expected.layers.prod(-1)
    np.testing.assert_allclose(data["opposing"][:, 0], c[:, None] * expected.s, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(data["layer_sharpness"][:, 0, 0], c**2 * 8.0, rtol=1e-10)
    # c_i² − ‖w‖² is the sum of the differences up to layer i.
    sums = np.cumsum(data["balancedness"].values[:, 0], axis=-1)
    np.testing.assert_allclose(sums, layer_balancedness(expected), atol=1e-11)


@given(data=st.data(), depth=st.integers(2, 5), lr=st.floats(1e-4, 1e-1), dense=st.booleans())
def test_a_step_of_any_depth_is_the_theorys(data: st.DataObject, depth: int, lr: float, dense: bool) -> None:
    model = data.draw(models(max_alpha=20, max_beta=20))
    state = data.draw(states(model, max_weight=3))
    scalars = np.array(data.draw(st.lists(finite(-2, 2), min_size=depth - 1, max_size=depth - 1)))
    layers = [torch.from_numpy(state.first_layer).reshape(1, 1, -1), *torch.from_numpy(scalars).reshape(-1, 1, 1, 1)]
    moments = population_moments(model, CPU) if dense else population_batch([model], CPU)
    ours = descend_batch(moments, layers, update_rules.GradientDescent(lr), 1, sharpness=False, keep_weights=True)
    theirs = deep_descent(model, DeepState(scalars, state.b, state.s), lr, 1)
    expected = np.concatenate([theirs.b[1], theirs.s[1], theirs.layers[1]])
    # Relative to the largest weight: entries that cancel have no digits of their own.
    assert np.abs(ours["weights"].values[1, 0] - expected).max() <= 1e-10 * np.abs(expected).max()


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("diagonal", [False, True])
def test_depth_two_is_the_two_layer_network(m: int, diagonal: bool) -> None:
    moments = _examples(5, 20, 4)[2]
    moments = moments.diagonal if diagonal else moments
    start = 0.5 * _normal(6, 2, m, 5)
    rule = update_rules.Momentum(0.02, 0.5)
    flat = descend_batch(moments, start, rule, 50, keep_weights=True)
    deep = descend_batch(moments, [start[..., 1:], start[..., :1].mT], rule, 50, keep_weights=True)
    for name in ("loss", "sharpness", "opposing"):
        np.testing.assert_allclose(deep[name], flat[name], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(deep["balancedness"][..., 0], flat["balancedness"], atol=1e-12)
    np.testing.assert_allclose(deep["layer_sharpness"][..., 0], flat["first_layer"], rtol=1e-10)
    np.testing.assert_allclose(deep["layer_sharpness"][..., 1], flat["last_layer"], rtol=1e-10)
    np.testing.assert_allclose(deep["layer_norm"][..., 1], flat["last_layer_norm"], rtol=1e-10)
    first = flat["weights"].values[..., 1:].reshape(51, 2, 4 * m)
    np.testing.assert_allclose(deep["weights"][..., : 4 * m], first, rtol=1e-10, atol=1e-12)


def test_runs_that_share_samples_are_those_of_each_alone_with_their_groups() -> None:
    law = OpposingLaw(plus_share=0.7, noise=0.3)
    sets = [sample_moments(draw_examples(MODEL, 300, 0.2, seed, CPU, law)) for seed in (0, 1)]
    widths = (5, 3, 2, 1)
    layers = _layers(7, widths, 2, 3, size=0.6)
    groups = {name: stack(s[name] for s in sets).shared() for name in ("plus", "minus 2")}
    lrs = torch.tensor([[0.01, 0.02, 0.03], [0.03, 0.02, 0.01]], dtype=torch.float64)
    everyone = stack(s["all"] for s in sets).shared()
    together = [
        descend_batch(moments, layers, update_rules.GradientDescent(lrs), 40, groups=groups, pairs=2)
        for moments in (everyone, everyone.diagonal)
    ]
    for i, of_set in enumerate(sets):
        for j in range(3):
            alone = descend_batch(
                of_set["all"],
                [layer[i, j][None] for layer in layers],
                update_rules.GradientDescent(float(lrs[i, j])),
                40,
                groups={name: of_set[name] for name in groups},
                pairs=2,
            )
            for name in set(alone.data_vars) - {"diverged_at", "sharpness_residual"}:
                for data in together:
                    np.testing.assert_allclose(data[name][:, i, j], alone[name][:, 0], rtol=1e-9, atol=1e-10)


def test_descent_breaks_balancedness_by_the_squared_step_a_step() -> None:
    # W₊ᵀW₊ − WWᵀ changes by η² (∂₊ᵀ∂₊ − ∂∂ᵀ): the terms of order η cancel exactly.
    widths = (4, 3, 3, 1)
    moments = _examples(8, 30, 4)[2]
    layers = _layers(9, widths, 1, size=0.7)
    lrs = np.array([0.04, 0.02, 0.01])
    drifts = []
    for lr in lrs:
        data = descend_batch(moments, layers, update_rules.GradientDescent(lr), 1, keep_weights=True)
        after = split_layers(torch.from_numpy(data["weights"].values[1])[:, None], widths)
        pairs = zip(balancedness_matrices(after), balancedness_matrices(layers), strict=True)
        drifts.append([float((new - old).norm()) for new, old in pairs])
    slopes = np.polyfit(np.log(lrs), np.log(drifts), 1)[0]
    np.testing.assert_allclose(slopes, 2.0, atol=1e-6)


def test_a_run_that_diverges_says_when_and_leaves_the_others_alone() -> None:
    widths = (5, 3, 3, 1)
    layers = [layer.expand(2, -1, -1) for layer in _layers(10, widths, 1)]
    lrs = torch.tensor([3.0, 0.001], dtype=torch.float64)
    data = descend_batch(population_moments(MODEL, CPU), layers, update_rules.GradientDescent(lrs), 30, pairs=2)
    gone = int(data["diverged_at"][0])
    assert 0 < gone < 30
    assert int(data["diverged_at"][1]) == -1
    for name in set(data.data_vars) - {"diverged_at"}:
        assert np.isnan(data[name][gone:, 0]).all(), name
        assert np.isfinite(data[name][:, 1]).all(), name


def test_joining_undoes_splitting() -> None:
    theta = _normal(11, 2, 3, 1, 5 * 4 + 4 * 2 + 2)
    assert torch.equal(join_layers(split_layers(theta, (5, 4, 2, 1))), theta)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([(2, 3, 5)], "give two or more"),
        ([(2, 3, 5), (2, 2, 3)], "the last of m_L = 1"),
        ([(2, 3, 5), (2, 1, 4)], "layers have shapes"),
        ([(2, 3, 5), (3, 1, 3)], "layers have shapes"),
        ([(3, 5), (1, 3)], "start has shape"),
        ([(2, 3, 4), (2, 1, 3)], "5 features"),
    ],
)
def test_layers_that_do_not_fit_are_refused(shapes: list[tuple[int, ...]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        descend_batch(
            population_moments(MODEL, CPU),
            [torch.ones(shape) for shape in shapes],
            update_rules.GradientDescent(0.1),
            1,
        )


def test_float32_keeps_its_type_and_drifts_by_rounding_alone() -> None:
    model = DescentConfig(d1=10).model
    layers = _layers(12, (11, 4, 4, 1), 2, size=0.4)
    single, double = (
        descend_batch(
            population_batch([model] * 2, CPU),
            [layer.to(dtype) for layer in layers],
            update_rules.GradientDescent(0.005),
            200,
            record_every=200,
        )
        for dtype in (torch.float32, torch.float64)
    )
    assert single["sharpness"].dtype == np.float32
    for name in ("loss", "sharpness", "layer_sharpness"):
        np.testing.assert_allclose(single[name], double[name], rtol=1e-4)
