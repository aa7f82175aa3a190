"""Second moments against autograd on the raw examples, and against the theory's population dynamics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import theory
from sim import TwoLayerConfig, run_two_layer
from sim.opposing_data import CHUNK, draw_examples
from sim.second_moments import population_moments, sample_moments, stack
from theory import InputError, Model

CPU = torch.device("cpu")


def _model(d1: int = 4) -> Model:
    return Model([7.0], np.linspace(-1, 2, d1), np.linspace(0.3, 1, d1))


@given(seed=st.integers(0, 2**31), count=st.integers(1, 300))
def test_loss_gradient_and_hessian_equal_autograd_on_the_examples(seed: int, count: int) -> None:
    chunks = list(draw_examples(_model(), count, 0.3, seed, CPU))
    z, y = torch.cat([c.features for c in chunks]), torch.cat([c.target for c in chunks])
    weights = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def loss(v: torch.Tensor) -> torch.Tensor:
        return ((v[0] * (z @ v[1:]) - y) ** 2).mean() / 2

    moments = sample_moments(chunks)["all"]
    c, w = weights[0], weights[1:]
    torch.testing.assert_close(moments.loss(c, w), loss(weights), rtol=1e-9, atol=1e-9)
    slope = torch.cat([moments.gradient(c, w)[0][None], moments.gradient(c, w)[1]])
    torch.testing.assert_close(slope, torch.func.grad(loss)(weights), rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(moments.hessian(c, w), torch.func.hessian(loss)(weights), rtol=1e-9, atol=1e-8)


def test_moments_of_chunks_are_those_of_the_whole_and_groups_partition_the_outliers() -> None:
    chunks = list(draw_examples(_model(), CHUNK + 1000, 0.01, 3, CPU))
    assert [len(c.target) for c in chunks] == [CHUNK, 1000]
    z = torch.cat([c.features for c in chunks])
    group = torch.cat([c.group for c in chunks])
    moments = sample_moments(chunks)
    torch.testing.assert_close(moments["all"].gram, z.T @ z / len(z))
    plus = z[group == 1]
    torch.testing.assert_close(moments["plus"].gram, plus.T @ plus / len(plus))


def test_the_same_seed_gives_the_same_examples_on_every_device(device: torch.device) -> None:
    here = next(draw_examples(_model(), 100, 0.5, 1, CPU))
    there = next(draw_examples(_model(), 100, 0.5, 1, device))
    assert torch.equal(here.features, there.features.cpu())
    other = next(draw_examples(_model(), 100, 0.5, 2, CPU))
    assert not torch.equal(here.features, other.features)


def test_population_descent_is_the_theorys(device: torch.device) -> None:
    config = TwoLayerConfig(steps=200, sample_seeds=())
    data = run_two_layer(config, device, progress=False)
    expected = theory.gradient_descent(config.model, config.initial_state, config.lr, config.steps)
    np.testing.assert_allclose(data["c"][:, 0], expected.state.c, rtol=1e-10)
    np.testing.assert_allclose(data["s"][:, 0], expected.state.s[:, 0], rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(data["loss"][:, 0], theory.loss(config.model, expected.state), rtol=1e-10)
    vector = torch.from_numpy(expected.state.vector[[0, 10, 100]])
    hessians = population_moments(config.model, CPU).hessian(vector[:, 0], vector[:, 1:])
    top = torch.linalg.eigvalsh(hessians)[:, -1]
    np.testing.assert_allclose(data["sharpness"][[0, 10, 100], 0], top, rtol=1e-10)


def test_flow_and_descent_approach_each_other_in_proportion_to_the_step() -> None:
    distances = []
    for lr in (0.004, 0.002, 0.001):
        data = run_two_layer(
            TwoLayerConfig(lr=lr, steps=round(0.4 / lr), sample_seeds=()), torch.device("cpu"), progress=False
        )
        distances.append(float(data["distance_flow"][-1, 0]))
    slope = np.polyfit(np.log([0.004, 0.002, 0.001]), np.log(distances), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.1)


def test_a_run_starts_together_and_is_the_same_again(device: torch.device) -> None:
    config = TwoLayerConfig(steps=30, examples=500, sample_seeds=(0, 1))
    first, second = (run_two_layer(config, device, progress=False) for _ in range(2))
    assert first.identical(second)
    assert float(abs(first["distance_flow"][0]).max()) == 0
    assert float(abs(first["distance_population"][0]).max()) == 0
    assert float(first["distance_population"][-1, 1:].min()) > 0


def test_a_diverging_run_stops_with_its_step() -> None:
    data = run_two_layer(TwoLayerConfig(lr=2.0, steps=300, sample_seeds=()), CPU, progress=False)
    assert 0 < data.attrs["diverged_at"] == data.sizes["step"] < 300
    assert np.isfinite(data["c"].values).all()


def test_stacking_keeps_each_set() -> None:
    sets = [sample_moments(draw_examples(_model(), 50, 0.5, seed, CPU))["all"] for seed in (0, 1)]
    both = stack(sets)
    w = torch.ones(2, 5, dtype=torch.float64)
    c = torch.tensor([1.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(both.loss(c, w)[1], sets[1].loss(c[1], w[1]))


@pytest.mark.parametrize(
    "bad", [{"lr": -1.0}, {"fraction": 0.0}, {"fraction": 1.5}, {"examples": 0}, {"alpha": float("inf")}]
)
def test_bad_configurations_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(bad))} is"):
        TwoLayerConfig(**bad)
