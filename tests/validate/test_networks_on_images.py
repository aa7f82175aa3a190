"""Relations that theory predicts, on small networks and real images, conditional on their hypotheses."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Architecture
from validate.cifar10 import Images, load_embedded
from validate.network_run import NetworkConfig, run_network

FEW = settings(max_examples=8)


def _some_images(count: int) -> Images:
    images = load_embedded()
    return Images(images.pixels[:count], images.labels[:count])


configurations = st.builds(
    NetworkConfig,
    architecture=st.builds(
        Architecture,
        hidden=st.sampled_from([(12,), (16, 12), (20, 12, 8)]),
        activation=st.sampled_from(["tanh", "gelu"]),
    ),
    lr=st.sampled_from([0.01, 0.03, 0.1]),
    steps=st.just(60),
    seed=st.integers(0, 10**6),
    measure_every=st.just(5),
    blocks_every=st.just(10),
)


@FEW
@given(configurations)
def test_while_the_sharpness_is_below_two_over_the_step_size_every_step_lowers_the_loss(config: NetworkConfig) -> None:
    """For smooth activations; the descent lemma along the step, with a margin for what happens between measurements."""
    data = run_network(config, _some_images(150), torch.device("cpu"), progress=False)
    below = data["sharpness_iterate"].values * config.lr / 2 < 0.8
    mean = data["loss"].values.astype(np.float64).mean(1)
    for i, step in enumerate(data["measured"].values[:-1]):
        if below[i] and below[i + 1]:
            assert (np.diff(mean[step : step + 6]) < 1e-6).all()


@FEW
@given(configurations)
def test_no_layers_block_is_sharper_than_the_whole(config: NetworkConfig) -> None:
    data = run_network(config, _some_images(100), torch.device("cpu"), progress=False)
    whole = data["sharpness_iterate"].sel(measured=data["block_measured"].values).values
    blocks = data["block_sharpness"].max("layer").values
    # Each value is a Rayleigh quotient, at most 1e-2 of its residual's square below the eigenvalue.
    assert (blocks <= whole * (1 + 1e-3) + 1e-6).all()
    assert data["converged_iterate"].all()


def test_the_same_run_gives_the_same_bits() -> None:
    config = NetworkConfig(Architecture(hidden=(12,)), steps=20, seed=3)
    first, second = (run_network(config, _some_images(80), torch.device("cpu"), progress=False) for _ in range(2))
    assert first.identical(second)
    assert first["loss"].dims == ("step", "example")


def test_a_diverging_run_says_so_and_keeps_its_last_finite_state() -> None:
    config = NetworkConfig(Architecture(hidden=(12,)), lr=1e25, steps=40, measure_every=100, blocks_every=0)
    data = run_network(config, _some_images(50), torch.device("cpu"), progress=False)
    assert 0 < data.attrs["diverged_at"] == data.sizes["step"]
    assert np.isfinite(data["final_parameters"].values).all()
