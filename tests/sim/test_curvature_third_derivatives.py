"""Gradient of the sharpness and examples' curvatures against closed forms and central differences of eigenvalues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from curvature_cases import two_layer_objective
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import models_with_states
from torch import Tensor, nn

from sim import Architecture, build, mlp
from sim.curvature import (
    MeanLoss,
    MeanLossHessian,
    curvature_derivatives,
    example_curvatures,
    rayleigh_quotient,
    sharpness_gradient,
)
from theory import InputError, Model, State, hessian
from theory.curvature import sharpness

METHODS = ("exact", "difference")


class WrittenOut(nn.Module):
    """Layer norm from its definition, which autograd differentiates as often as asked."""

    def forward(self, x: Tensor) -> Tensor:
        """X − mean over its standard deviation."""
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def _objective(*middle: nn.Module, activation: str = "tanh", examples: int = 20) -> MeanLoss:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(examples, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (examples,), generator=generator)
    first, act, last = mlp([4, 5, 3], activation, seed=1).double()
    return MeanLoss(nn.Sequential(first, *middle, act, last).double(), x, y)


def _point(objective: MeanLoss) -> list[Tensor]:
    return [p.detach() for p in objective.network.parameters()]


def _moved(point: list[Tensor], direction: Tensor, by: float) -> list[Tensor]:
    parts = direction.split([p.numel() for p in point])
    return [p + by * d.view_as(p) for p, d in zip(point, parts, strict=True)]


def _top(objective: MeanLoss, point: list[Tensor]) -> tuple[float, Tensor]:
    operator = MeanLossHessian(objective, point)
    dense = torch.stack([operator.matvec(e) for e in torch.eye(operator.size, dtype=torch.float64)])
    values, vectors = torch.linalg.eigh((dense + dense.T) / 2)
    return float(values[-1]), vectors[:, -1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chunk", [None, 6])
@pytest.mark.parametrize("kind", ["tanh", "gelu", "relu", "layer norm written out", "group norm", "batch norm frozen"])
def test_the_gradient_is_the_eigenvalues_central_difference(kind: str, chunk: int | None, method: str) -> None:
    middle = {
        "layer norm written out": [WrittenOut()],
        "group norm": [nn.GroupNorm(1, 5)],
        "batch norm frozen": [nn.BatchNorm1d(5).eval()],
    }.get(kind, [])
    objective = _objective(*middle, activation=kind if not middle else "tanh")
    point = _point(objective)
    _, vector = _top(objective, point)
    if (kind, method) == ("relu", "difference"):
        for of in (sharpness_gradient, example_curvatures):
            with pytest.raises(InputError, match=r"kinks \(Relu.*take method \"exact\""):
                of(objective, vector, chunk=chunk, method=method)
        return
    found = sharpness_gradient(objective, 3 * vector, chunk=chunk, method=method)
    for seed in range(3):
        direction = torch.randn(found.numel(), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        h = 1e-5
        ahead, behind = (_top(objective, _moved(point, direction, by))[0] for by in (h, -h))
        expected = (ahead - behind) / (2 * h)
        assert float(found @ direction) == pytest.approx(expected, rel=1e-5, abs=1e-6), kind


@pytest.mark.parametrize("norm", [nn.LayerNorm(5), nn.BatchNorm1d(5)])
def test_fused_normalisations_are_refused_and_differences_get_them_right(norm: nn.Module) -> None:
    objective = _objective(norm)
    point = _point(objective)
    _, vector = _top(objective, point)
    with pytest.raises(InputError, match="third derivatives"):
        sharpness_gradient(objective, vector)
    with pytest.raises(InputError, match="third derivatives"):
        example_curvatures(objective, vector)
    found = sharpness_gradient(objective, vector, method="difference")
    direction = torch.randn(found.numel(), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ahead, behind = (_top(objective, _moved(point, direction, by))[0] for by in (1e-5, -1e-5))
    assert float(found @ direction) == pytest.approx((ahead - behind) / 2e-5, rel=1e-5)
    both = curvature_derivatives(objective, 2 * vector, chunk=None, method="difference")
    np.testing.assert_array_equal(both[0], found)
    if isinstance(norm, nn.LayerNorm):  # batch norm's examples are not apart
        own = [rayleigh_quotient(MeanLossHessian(objective.group(torch.tensor([i]))), vector) for i in range(20)]
        np.testing.assert_allclose(both[1], own, rtol=1e-6, atol=1e-8)
    assert float(both[1].mean()) == pytest.approx(rayleigh_quotient(MeanLossHessian(objective), vector), rel=1e-6)


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["mlp", "resnet18", "vit"])
def test_differences_give_what_graphs_give_in_the_networks_own_precision(
    kind: str, dtype: torch.dtype, chunk: int | None
) -> None:
    """Networks of some thousand weights: differences in float32, with its h of 0.1, were off by up to their size."""
    form = {"hidden": (30, 30)} if kind == "mlp" else {"width": 0.0625}
    network = build(Architecture(kind, activation="gelu", **form), (3, 32, 32), 10, seed=0).to(dtype).eval()
    generator = torch.Generator().manual_seed(0)
    shape = (8, 3072) if kind == "mlp" else (8, 3, 32, 32)
    objective = MeanLoss(network, torch.randn(shape, generator=generator).to(dtype), torch.arange(8))
    vector = objective.gradient(list(network.parameters()))
    exact = sharpness_gradient(objective, vector), example_curvatures(objective, vector)
    found = curvature_derivatives(objective, vector, chunk=chunk, method="difference")
    for of_graph, of_difference in zip(exact, found, strict=True):
        assert of_difference.dtype == dtype
        error = float((of_graph - of_difference).norm() / of_graph.norm())
        assert error < (1e-3 if dtype is torch.float32 else 1e-4)


@pytest.mark.parametrize("chunk", [None, 7])
def test_differences_of_small_networks_are_exact_to_rounding(chunk: int | None) -> None:
    objective = _objective()
    vector = torch.randn(43, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    exact, found = (
        example_curvatures(objective, vector, chunk=chunk, method=method) for method in ("exact", "difference")
    )
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-8 * float(exact.abs().max()))


class HiddenUnits(nn.Module):
    """A function of the hidden units."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """As given."""
        return self.function(x)


@pytest.mark.parametrize(
    "kinked",
    [
        nn.PReLU(),
        nn.SELU(),
        nn.ELU(),
        nn.Softsign(),
        HiddenUnits(lambda x: x.where(x > 0, 0.0)),
        HiddenUnits(lambda x: x - x.amax(1)[:, None]),
    ],
)
def test_differences_across_kinks_without_a_known_name_are_refused(kinked: nn.Module) -> None:
    """The slopes of ELU and softsign are continuous; their second derivatives jump, and so does the Hessian."""
    objective = _objective(kinked, examples=100_000)
    vector = objective.gradient(list(objective.network.parameters()))
    with pytest.raises(InputError, match=r"% apart, as where the loss has kinks: take method \"exact\""):
        sharpness_gradient(objective, vector, method="difference")


@pytest.mark.parametrize("smooth", [nn.Mish(), HiddenUnits(F.normalize)])
def test_differences_that_cross_no_kink_are_right(smooth: nn.Module) -> None:
    objective = _objective(smooth, examples=100_000)
    vector = torch.randn(43, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    exact, found = (curvature_derivatives(objective, vector, method=method) for method in METHODS)
    for of_graph, of_difference in zip(exact, found, strict=True):
        assert float((of_graph - of_difference).norm()) < 1e-7 * float(of_graph.norm())


def test_a_fused_layer_norm_would_have_been_wrong() -> None:
    """The reason for the refusal; once this fails, the refusal can go."""
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()

    def third(norm: nn.Module) -> Tensor:
        gradient = torch.autograd.grad(norm(x).pow(3).sum(), x, create_graph=True)[0]
        curvature = torch.autograd.grad(gradient[0, 0], x, create_graph=True)[0][0, 1]
        return torch.autograd.grad(curvature, x)[0]

    right, fused = third(WrittenOut()), third(nn.LayerNorm(5, elementwise_affine=False).double())
    assert float((right - fused).abs().max()) > 0.1 * float(right.abs().max())


def test_the_product_of_two_weights_has_the_closed_form() -> None:
    """L = ½(ab − 1)²: H = [[b², 2ab − 1], [2ab − 1, a²]], λ = m + √(((b² − a²)/2)² + (2ab − 1)²), m = (a² + b²)/2."""
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    one = torch.ones(1, 1, dtype=torch.float64)
    objective = MeanLoss(network, one, one, loss=lambda z, y: 0.5 * (z - y)[:, 0] ** 2)
    a, b = 0.7, 1.9
    point = [torch.tensor([[w]], dtype=torch.float64) for w in (a, b)]
    value, vector = _top(objective, point)
    half, off = (b * b - a * a) / 2, 2 * a * b - 1
    root = np.hypot(half, off)
    assert value == pytest.approx((a * a + b * b) / 2 + root)
    expected = [a + (-half * a + 2 * b * off) / root, b + (half * b + 2 * a * off) / root]
    for method in METHODS:
        found = sharpness_gradient(objective, vector, point, method=method)
        np.testing.assert_allclose(found, expected, rtol=1e-7)


@given(models_with_states(max_alpha=50.0, max_beta=10.0, max_features=4), st.integers(0, 99))
def test_the_two_layer_networks_gradient_is_that_of_the_exact_sharpness(drawn: tuple[Model, State], seed: int) -> None:
    """Against differences of the secular equation's root, which knows no autograd; simple eigenvalues only."""
    model, state = drawn
    scale = np.abs(state.vector).max()
    assume(scale > 1e-3)
    state = State.from_vector(state.vector / scale, model.beta.size)
    values, vectors = np.linalg.eigh(hessian(model, state))
    assume(values[-1] - values[-2] > 0.05 * abs(values[-1]) and values[-1] > 1e-2)
    direction = np.random.default_rng(seed).normal(size=len(values))
    h = 1e-5
    ahead, behind = (
        float(sharpness(model, State.from_vector(state.vector + by * direction, model.beta.size))) for by in (h, -h)
    )
    objective = two_layer_objective(model, state)
    vector, along = (torch.from_numpy(np.roll(v, -1)) for v in (vectors[:, -1], direction))
    found = float(sharpness_gradient(objective, vector, chunk=2) @ along)
    assert found == pytest.approx((ahead - behind) / (2 * h), rel=1e-4, abs=1e-4 * abs(values[-1]))


def test_at_the_minimum_the_sharpness_is_the_opposing_features_and_grows_with_the_last_layer() -> None:
    """At cb = β and s = 0 with αc² on top, S = αc² is exact and moves with c alone: ∇S = (0, …, 0, 2αc)."""
    model, c = Model([20.0], [3.0], [1.0]), 2.0
    objective = two_layer_objective(model, State(np.array(c), np.array([3.0 / c]), np.array([0.0])))
    value, vector = _top(objective, _point(objective))
    assert value == pytest.approx(20 * c**2)
    np.testing.assert_allclose(sharpness_gradient(objective, vector), [0, 0, 40 * c], atol=1e-9)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("chunk", [None, 7])
def test_examples_curvatures_are_those_of_their_own_hessians(activation: str, chunk: int | None) -> None:
    objective = _objective(activation=activation)
    vector = torch.randn(43, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = example_curvatures(objective, vector, chunk=chunk)
    own = [rayleigh_quotient(MeanLossHessian(objective.group(torch.tensor([i]))), vector) for i in range(20)]
    np.testing.assert_allclose(found, own, rtol=1e-8, atol=1e-10)
    assert float(found.mean()) == pytest.approx(rayleigh_quotient(MeanLossHessian(objective), vector), rel=1e-9)


@pytest.mark.parametrize("chunk", [None, 7])
def test_one_graph_gives_the_gradient_and_the_examples_curvatures(chunk: int | None) -> None:
    weights = torch.linspace(0, 0.1, 20, dtype=torch.float64)  # one example is left out
    objective = replace(_objective(), weights=weights)
    vector = torch.randn(43, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    rise, each = curvature_derivatives(objective, 3 * vector, chunk=chunk)
    np.testing.assert_allclose(rise, sharpness_gradient(objective, vector, chunk=chunk), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(each, example_curvatures(objective, vector, chunk=chunk), rtol=1e-12, atol=1e-14)
    assert float(weights @ each) == pytest.approx(rayleigh_quotient(MeanLossHessian(objective), vector), rel=1e-9)
    assert not weights.requires_grad
    alike, even = _objective(), vector / vector.norm()
    products = MeanLossHessian(alike).matvec(even) @ even
    each = example_curvatures(alike, vector)
    assert float(alike.chunk_weights(slice(None)) @ each) == pytest.approx(float(products), rel=1e-13)  # 1/n in float64
    by_difference = sharpness_gradient(objective, vector, method="difference")
    np.testing.assert_allclose(rise, by_difference, rtol=1e-5, atol=1e-7)


def test_a_linear_network_has_no_third_derivative() -> None:
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    objective = MeanLoss(nn.Linear(3, 1).double(), x, x[:, 0], loss=lambda z, y: (z[:, 0] - y) ** 2)
    vector = torch.ones(4, dtype=torch.float64)
    for method in METHODS:
        assert not sharpness_gradient(objective, vector, method=method).any()
    linear = MeanLoss(objective.network, x, x[:, 0], loss=lambda z, y: z[:, 0] - y)
    assert not example_curvatures(linear, vector).any()
    assert not MeanLossHessian(linear).matvec(vector).any()
