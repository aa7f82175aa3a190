"""Runs of small networks on real images: the same bits each time, and what is left of one that diverges."""

from __future__ import annotations

import numpy as np
import torch

from sim import Architecture
from validate.cifar10 import Images, load_embedded
from validate.network_run import NetworkConfig, run_network


def _some_images(count: int) -> Images:
    images = load_embedded()
    return Images(images.pixels[:count], images.labels[:count])


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
