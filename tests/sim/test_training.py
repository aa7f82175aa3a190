"""Descent against PyTorch's own optimiser; probes that leave no trace; divergence."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sim import SharpnessProbe, descend, mlp
from theory import InputError


def _problem(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 8, generator=generator)
    return x.to(device), torch.randint(0, 3, (60,), generator=generator).to(device)


def _network(device: torch.device) -> torch.nn.Sequential:
    return mlp([8, 10, 3], "relu", seed=5).to(device)


def test_descent_takes_the_steps_of_sgd_and_keeps_every_loss(device: torch.device) -> None:
    x, y = _problem(device)
    ours, theirs = _network(device), _network(device)
    result = descend(ours, x, y, lr=0.3, steps=25, progress=False)
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.3)
    expected = []
    for _ in range(25):
        each = F.cross_entropy(theirs(x), y, reduction="none")
        expected.append(each.detach().cpu().numpy())
        optimiser.zero_grad()
        each.mean().backward()
        optimiser.step()
    np.testing.assert_allclose(result.losses, expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_probes_leave_the_run_bit_for_bit_as_it_was(device: torch.device) -> None:
    x, y = _problem(device)
    bare, watched = _network(device), _network(device)
    watched.train(False)
    state = torch.random.get_rng_state()
    probe = SharpnessProbe(watched, x, y, lr=0.3, every=2, blocks_every=4)
    a = descend(bare, x, y, lr=0.3, steps=20, progress=False)
    b = descend(watched, x, y, lr=0.3, steps=20, probes=[probe], progress=False)
    assert np.array_equal(a.losses, b.losses)
    for p, q in zip(bare.parameters(), watched.parameters(), strict=True):
        assert torch.equal(p, q)
        assert q.grad is None
        assert q.requires_grad
    assert not watched.training
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_probe_measures_iterates_midpoints_and_blocks(device: torch.device) -> None:
    x, y = _problem(device)
    network = _network(device)
    probe = SharpnessProbe(network, x, y, lr=0.3, every=5, blocks_every=10, tolerance=1e-4)
    descend(network, x, y, lr=0.3, steps=21, probes=[probe], progress=False)
    data = probe.dataset()
    assert data["measured"].values.tolist() == [0, 5, 10, 15, 20]
    assert data["block_measured"].values.tolist() == [0, 10, 20]
    assert data["converged_iterate"].all()
    assert (data["residual_midpoint"] <= 1e-4).all()
    np.testing.assert_allclose(data["layer_share_iterate"].sum("layer"), 1)
    whole = data["sharpness_iterate"].sel(measured=data["block_measured"].values)
    assert (data["block_sharpness"].max("layer").values <= whole.values * (1 + 1e-6)).all()
    start = _network(device)
    assert float(data["sharpness_iterate"][0]) == pytest.approx(_dense_sharpness(start, x, y), rel=1e-4)
    # Half of one step of descent leads to the midpoint.
    descend(start, x, y, lr=0.15, steps=1, progress=False)
    assert float(data["sharpness_midpoint"][0]) == pytest.approx(_dense_sharpness(start, x, y), rel=1e-4)


def _dense_sharpness(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    network, x = copy.deepcopy(network).double(), x.double()
    names = [name for name, _ in network.named_parameters()]
    shapes = [p.shape for p in network.parameters()]
    flat = torch.cat([p.detach().reshape(-1) for p in network.parameters()])

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = vector.split([s.numel() for s in shapes])
        weights = {n: v.view(s) for n, v, s in zip(names, parts, shapes, strict=True)}
        return F.cross_entropy(torch.func.functional_call(network, weights, (x,)), y)

    return float(torch.linalg.eigvalsh(torch.func.hessian(loss)(flat))[-1])


def test_a_diverging_run_keeps_its_last_finite_weights(device: torch.device) -> None:
    x, y = _problem(device)
    network = _network(device)
    result = descend(network, 1e15 * x, y, lr=1e30, steps=50, progress=False)
    assert result.diverged_at is not None
    assert len(result.losses) == result.diverged_at
    assert np.isfinite(result.losses).all()
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = mlp([4, 3, 2], "tanh", seed=7)
    torch.manual_seed(2)
    second = mlp([4, 3, 2], "tanh", seed=7)
    other = mlp([4, 3, 2], "tanh", seed=8)
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


@pytest.mark.parametrize(("sizes", "activation"), [([4], "relu"), ([4, 0, 2], "relu"), ([4, 2], "sine")])
def test_bad_networks_are_refused(sizes: list[int], activation: str) -> None:
    with pytest.raises(InputError):
        mlp(sizes, activation, seed=0)
