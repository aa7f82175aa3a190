"""Operators in chunks against curvlinops, dense Hessians, the two-layer network's closed forms and differences."""

from __future__ import annotations

import weakref
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from curvature_cases import two_layer_objective
from curvlinops import GGNLinearOperator, HessianLinearOperator
from hypothesis import given
from hypothesis import strategies as st
from strategies import models_with_states
from torch import Tensor, nn

from sim import SharpnessProbe, mlp
from sim.curvature import (
    DifferenceHessian,
    MeanLoss,
    MeanLossGaussNewton,
    MeanLossHessian,
    rayleigh_quotient,
)
from sim.curvature.mean_loss import ExampleLoss
from theory import InputError, Model, State, hessian

KINDS = {"hessian": MeanLossHessian, "gauss-newton": MeanLossGaussNewton}
ORACLES = {"hessian": HessianLinearOperator, "gauss-newton": GGNLinearOperator}


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _objective(activation: str = "tanh", n: int = 40, sizes: tuple[int, ...] = (5, 6, 4, 3)) -> MeanLoss:
    x = torch.randn(n, sizes[0], generator=_generator(2), dtype=torch.float64)
    y = torch.randint(0, sizes[-1], (n,), generator=_generator(3))
    return MeanLoss(mlp(sizes, activation, seed=1).double(), x, y)


def _dense(operator: MeanLossHessian | MeanLossGaussNewton | DifferenceHessian) -> Tensor:
    return torch.stack([operator.matvec(e) for e in torch.eye(operator.size, dtype=operator.dtype)])


def _dense_hessian(objective: MeanLoss, weights: Tensor) -> Tensor:
    """Hessian of Σ w_i ℓ_i by forward over reverse on one flat vector, in one piece, by torch.func."""
    named = dict(objective.network.named_parameters())
    flat = torch.cat([p.detach().reshape(-1) for p in named.values()])

    def total(vector: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in named.values()])
        state = {name: v.view_as(p) for (name, p), v in zip(named.items(), parts, strict=True)}
        outputs = torch.func.functional_call(objective.network, state, (objective.inputs,))
        return objective.loss(outputs, objective.targets) @ weights

    return torch.func.hessian(total)(flat)


# One graph kept; seven chunks kept, the last one ragged; two of four kept; all rebuilt.
BOUNDS = [{}, {"chunk": 6}, {"chunk": 10, "memory": "two kept"}, {"chunk": 12, "memory": "none kept"}]


def _bound(kind: str, objective: MeanLoss, bound: dict[str, object]) -> dict[str, int]:
    """Turns the words for a bound on the memory into bytes."""
    given = dict(bound)
    if given.get("memory") == "two kept":
        given["memory"] = int(6.9 * KINDS[kind](objective)._bytes(slice(0, 10)))
    elif given.get("memory") == "none kept":
        given["memory"] = int(4.9 * KINDS[kind](objective)._bytes(slice(0, 12)))
    return given  # type: ignore[return-value]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("bound", BOUNDS)
def test_products_equal_curvlinops_whatever_the_chunks(kind: str, activation: str, bound: dict[str, object]) -> None:
    objective = _objective(activation)
    parameters = list(objective.network.parameters())
    oracle = ORACLES[kind](
        objective.network, nn.CrossEntropyLoss(), parameters, [(objective.inputs, objective.targets)]
    )
    operator = KINDS[kind](objective, **_bound(kind, objective, bound))
    rows = torch.randn(3, operator.size, generator=_generator(4), dtype=torch.float64)
    expected = torch.stack([(oracle @ row).detach() for row in rows])
    torch.testing.assert_close(operator.matmat(rows), expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(operator.matvec(rows[1]), expected[1], rtol=1e-9, atol=1e-11)
    kept = {"two kept": 2, "none kept": 0}.get(bound.get("memory"), operator.kept)  # type: ignore[call-overload]
    assert operator.kept == kept
    assert operator.passes == (2 if operator.rebuilt else 0)
    assert operator.kept + operator.rebuilt == -(-len(objective) // operator.chunk)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bound", [BOUNDS[0], BOUNDS[3]])
def test_layers_share_a_pass_and_get_their_diagonal_blocks(kind: str, bound: dict[str, object]) -> None:
    objective = _objective()
    operator = KINDS[kind](objective, **_bound(kind, objective, bound))
    dense = _dense(operator)
    passes = operator.passes
    layers, begin = [[0, 1], [2, 3], [4, 5]], 0
    requests = [
        (block, torch.randn(2, block.size, generator=_generator(7), dtype=torch.float64))
        for block in map(operator.with_respect_to, layers)
    ]
    shared = operator.shared_products(requests)
    assert operator.passes - passes == (1 if operator.rebuilt else 0)
    for (block, rows), product in zip(requests, shared, strict=True):
        part = dense[begin : begin + block.size, begin : begin + block.size]
        torch.testing.assert_close(product, rows @ part, rtol=1e-10, atol=1e-12)
        begin += block.size
    bias = operator.with_respect_to(layers[1]).with_respect_to([1])
    torch.testing.assert_close(_dense(bias), dense[60:64, 60:64], rtol=1e-10, atol=1e-12)


@given(st.integers(0, 99), st.lists(st.floats(-3, 3, allow_subnormal=False), min_size=12, max_size=12))
def test_weights_are_those_of_the_examples_hessians(seed: int, weights: list[float]) -> None:
    objective = _objective(n=12, sizes=(3, 4, 3))
    w = torch.tensor(weights, dtype=torch.float64)
    weighted = MeanLoss(objective.network, objective.inputs, objective.targets, weights=w)
    vector = torch.randn(31, generator=_generator(seed), dtype=torch.float64)
    product = MeanLossHessian(weighted, chunk=5).matvec(vector)
    torch.testing.assert_close(product, _dense_hessian(objective, w) @ vector, rtol=1e-9, atol=1e-9)


def test_groups_hessians_make_up_the_whole() -> None:
    objective = _objective()
    vector = torch.randn(MeanLossHessian(objective).size, generator=_generator(1), dtype=torch.float64)
    mask = objective.inputs[:, 0] > 0.7
    quotients = [
        rayleigh_quotient(MeanLossHessian(objective.group(chosen)), vector)
        for chosen in (mask, (~mask).nonzero().flatten())
    ]
    share = float(mask.double().mean())
    whole = rayleigh_quotient(MeanLossHessian(objective), vector)
    assert share * quotients[0] + (1 - share) * quotients[1] == pytest.approx(whole, rel=1e-10)
    own = _dense_hessian(objective, mask.double() / mask.sum())
    assert quotients[0] == pytest.approx(float(vector @ own @ vector / (vector @ vector)), rel=1e-9)
    with pytest.raises(InputError, match="0 inputs"):
        objective.group(torch.zeros(40, dtype=torch.bool))


@given(models_with_states(max_alpha=100.0, max_beta=100.0))
def test_the_two_layer_networks_hessian_is_the_closed_form(drawn: tuple[Model, State]) -> None:
    model, state = drawn
    closed = np.roll(hessian(model, state), -1, axis=(0, 1))  # (c, w) → (w, c)
    dense = _dense(MeanLossHessian(two_layer_objective(model, state), chunk=2)).numpy()
    np.testing.assert_allclose(dense, closed, rtol=1e-9, atol=1e-9 * max(1, np.abs(closed).max()))
    # The Gauss–Newton matrix leaves out the residual's part, λ_i (c w_i − τ_i) between c and w_i.
    newton = closed.copy()
    residual = model.curvatures * (state.c * state.first_layer - model.target)
    newton[:-1, -1] -= residual
    newton[-1, :-1] -= residual
    dense = _dense(MeanLossGaussNewton(two_layer_objective(model, state), chunk=3)).numpy()
    np.testing.assert_allclose(dense, newton, rtol=1e-9, atol=1e-9 * max(1, np.abs(closed).max()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 2e-3)])
def test_differences_of_gradients_are_the_hessian_of_a_smooth_loss(dtype: torch.dtype, tolerance: float) -> None:
    exact = _dense(MeanLossHessian(_objective()))
    objective = _objective()
    objective = MeanLoss(objective.network.to(dtype), objective.inputs.to(dtype), objective.targets)
    operator = DifferenceHessian(objective, chunk=7)
    error = _dense(operator).double() - exact
    assert float(error.abs().max()) <= tolerance * float(exact.abs().max())
    block = operator.with_respect_to([2, 3]).with_respect_to([0])
    error = _dense(block).double() - exact[36:60, 36:60]
    assert float(error.abs().max()) <= tolerance * float(exact.abs().max())
    assert not operator.matvec(torch.zeros(operator.size, dtype=dtype)).any()


class _Attention(nn.Module):
    """Attention over four tokens, fused or written out."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.project, self.read = nn.Linear(4, 12).double(), nn.Linear(4, 3).double()
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part[:, None] for part in self.project(x).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v) if self.fused else (q @ k.mT / 2).softmax(-1) @ v
        return self.read(mixed[:, 0].mean(1))


def test_differences_stand_in_where_double_backward_is_missing() -> None:
    x = torch.randn(6, 4, 4, generator=_generator(), dtype=torch.float64)
    y = torch.randint(0, 3, (6,), generator=_generator())
    fused, written = (MeanLoss(_Attention(fused), x, y) for fused in (True, False))
    vector = torch.randn(MeanLossHessian(written).size, generator=_generator(), dtype=torch.float64)
    with pytest.raises(RuntimeError, match="not implemented"):
        MeanLossHessian(fused).matvec(vector)
    expected = MeanLossHessian(written).matvec(vector)
    torch.testing.assert_close(DifferenceHessian(fused).matvec(vector), expected, rtol=1e-6, atol=1e-8)


def test_operators_leave_the_network_alone_and_stay_at_their_point() -> None:
    network = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = _objective().inputs, _objective().targets
    before = {name: value.clone() for name, value in network.state_dict().items()}
    objective = MeanLoss(network, x, y)
    operator = MeanLossHessian(objective, memory=2**20)
    vector = torch.randn(operator.size, generator=_generator(), dtype=torch.float64)
    product = operator.matvec(vector)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    # Not torch.func.hessian: nested forward mode through a fused batch norm is wrong (pytorch 196699).
    torch.testing.assert_close(product, DifferenceHessian(objective).matvec(vector), rtol=1e-6, atol=1e-8)
    rebuilt = MeanLossHessian(MeanLoss(network.eval(), x, y), chunk=8, memory=_eight_examples(network, x, y))
    assert rebuilt.rebuilt
    product = rebuilt.matvec(vector)
    with torch.no_grad():
        network[0].weight.mul_(2)
    assert torch.equal(rebuilt.matvec(vector), product)


def _eight_examples(network: nn.Module, x: Tensor, y: Tensor) -> int:
    return 5 * MeanLossHessian(MeanLoss(network, x[:8], y[:8]))._bytes(slice(0, 8))


def test_batch_norm_is_cut_only_where_ghost_batches_are_declared() -> None:
    network = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = _objective().inputs, _objective().targets
    with pytest.raises(InputError, match="batch norm"):
        MeanLossHessian(MeanLoss(network, x, y), chunk=10)
    with pytest.raises(InputError, match="memory is 1000 bytes"):
        MeanLossHessian(MeanLoss(network, x, y), memory=1000)
    whole = MeanLossHessian(MeanLoss(network, x, y))
    with pytest.raises(InputError, match="graph of 40 examples"):  # though a part would fit
        MeanLossHessian(MeanLoss(network, x, y), memory=2 * whole._bytes(slice(0, 40)))
    ghost = MeanLossHessian(MeanLoss(network, x, y, ghost_batches=True), chunk=10)
    vector = torch.randn(ghost.size, generator=_generator(), dtype=torch.float64)
    parts = [MeanLossHessian(MeanLoss(network, x[i : i + 10], y[i : i + 10])).matvec(vector) for i in range(0, 40, 10)]
    torch.testing.assert_close(ghost.matvec(vector), torch.stack(parts).mean(0), rtol=1e-9, atol=1e-12)
    assert MeanLossHessian(MeanLoss(network.eval(), x, y), chunk=10).kept == 4


def _huber(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.huber_loss(outputs, targets, reduction="none").sum(1)


def test_a_loss_of_float32_targets_is_measured_in_float64() -> None:
    x, y = torch.randn(20, 4, generator=_generator()), torch.randn(20, 3, generator=_generator(1))
    network = mlp([4, 5, 3], "tanh", seed=1)
    point = [p.detach() for p in network.parameters()]
    probe = SharpnessProbe(network, x, y, 0.1, tolerance=1e-9, blocks_every=0, precision="float64", loss=_huber)
    probe(0, point, point)
    dense = _dense(MeanLossHessian(MeanLoss(network.double(), x.double(), y.double(), _huber)))
    assert float(probe.dataset()["sharpness_iterate"][0]) == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]))


@pytest.mark.parametrize(
    "loss",
    [
        partial(F.cross_entropy, weight=torch.ones(3), reduction="none"),
        lambda outputs, labels: (outputs @ torch.ones(3, 1)).squeeze(1),
    ],
)
def test_a_loss_that_holds_float32_tensors_says_so_in_float64(loss: ExampleLoss) -> None:
    network, x, y = mlp([4, 5, 3], "tanh", seed=1), torch.randn(20, 4, generator=_generator()), torch.arange(20) % 3
    point = [p.detach() for p in network.parameters()]
    probe = SharpnessProbe(network, x, y, 0.1, precision="float64", loss=loss)
    with pytest.raises(InputError, match=r"takes no float64 \(.*tensors of its own, such as class weights"):
        probe(0, point, point)


def test_a_loss_that_needs_all_examples_does_so_in_float64() -> None:
    class Whole:
        divides = False

        def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(outputs, labels, reduction="none")

    assert not MeanLoss(mlp([4, 3], "tanh", seed=1), torch.ones(2, 4), torch.arange(2), Whole()).in_float64().divisible


def test_a_loss_that_fails_for_another_reason_says_its_own_in_float64() -> None:
    def fail(outputs: Tensor, labels: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    fine = MeanLoss(mlp([4, 3], "tanh", seed=1), torch.ones(2, 4), torch.arange(2), loss=fail).in_float64()
    with pytest.raises(RuntimeError, match="out of memory"):
        fine.gradient(list(fine.network.parameters()))


def test_objectives_that_are_no_mean_loss_are_refused() -> None:
    x, y = _objective().inputs, _objective().targets
    network = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5)).double()
    with pytest.raises(InputError, match="eval"):
        MeanLoss(network, x, y)
    network.eval()
    MeanLoss(network, x, y)
    with pytest.raises(InputError, match="39 targets"):
        MeanLoss(network, x, y[1:])
    with pytest.raises(InputError, match="weights"):
        MeanLoss(network, x, y, weights=torch.ones(3))
    with pytest.raises(InputError, match="one for each"):
        MeanLossHessian(MeanLoss(network, x, y, loss=F.cross_entropy))
    with pytest.raises(InputError, match="chunk is 0"):
        MeanLossHessian(MeanLoss(network, x, y), chunk=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 1.0, 3.8, 4.2])
def test_graphs_stay_within_the_bound_on_memory(kind: str, share: float) -> None:
    """Live saved tensors are counted from outside, through their finalisers, over building and products."""
    objective = _objective("gelu", n=300, sizes=(20, 6, 4, 3))
    memory = int(share * KINDS[kind](objective)._bytes(slice(0, 300)))
    live: dict[int, list[int]] = {}
    peak = 0

    class Held:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    def pack(tensor: Tensor) -> Held:
        nonlocal peak
        held, address = Held(tensor.detach()), tensor.untyped_storage().data_ptr()
        entry = live.setdefault(address, [tensor.untyped_storage().nbytes(), 0])
        entry[1] += 1
        weakref.finalize(held, release, address)
        peak = max(peak, sum(size for at, (size, _) in live.items() if at not in free))
        return held

    def release(address: int) -> None:
        live[address][1] -= 1
        if not live[address][1]:
            del live[address]

    free = {t.untyped_storage().data_ptr() for t in (objective.inputs, objective.targets)}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        operator = KINDS[kind](objective, memory=memory)
        free |= {leaf.untyped_storage().data_ptr() for leaf in operator._leaves}
        peak = sum(size for at, (size, _) in live.items() if at not in free)
        operator.matmat(torch.randn(2, operator.size, generator=_generator(), dtype=torch.float64))
    ends = (operator.kept + bool(operator.rebuilt)) * operator.size * 8
    # Three graphs' worth of the bound is for temporaries, which hooks do not see (benchmarks/curvature.py does).
    graph = operator._bytes(slice(0, operator.chunk))
    assert 0 < peak + ends <= memory - 3 * graph
    # What is left is used. From 8/5 of all examples' graph on, the five places of an eighth hold all chunks.
    assert (operator.rebuilt == 0) == (share > 1.6)
    assert not operator.rebuilt or peak + ends > memory - 5 * graph
