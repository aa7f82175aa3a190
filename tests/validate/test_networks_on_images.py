"""Runs of small networks on real images: the same bits each time, and what is left of one that diverges."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from sim import Architecture
from validate.cifar10 import Images, load_embedded
from validate.network_run import NetworkConfig, run_network
from validate.prediction.networks import PREDICTION_NETWORKS
from validate.presets import PRESETS


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


def _base_runs() -> list[Any]:
    """Every base run that a command makes by itself, by preset or prediction."""
    presets = {f"{name} {kind}": of for name, preset in PRESETS.items() for kind, of in preset.settings.items()}
    predicted = {
        f"predict {kind} {lr:g}": of
        for kind, network in PREDICTION_NETWORKS.items()
        for lr, of in list(network.settings((0,)).items())[:1]
    }
    runs = {name: of.base(0) for name, of in {**presets, **predicted}.items() if "paper" not in name}
    return [pytest.param(run, id=name) for name, run in runs.items()]


@pytest.mark.parametrize("run", _base_runs())
def test_every_base_run_of_a_command_begins(run: NetworkConfig) -> None:
    """As configured, on two images a class for a step: what a probe refuses would end the command at its start."""
    data = run_network(
        dataclasses.replace(run, images_per_class=2, steps=1), load_embedded(), torch.device("cpu"), progress=False
    )
    assert data.sizes["step"] == 1
    assert np.isfinite(data["sharpness_iterate"]).all()
    assert ("block_sharpness" in data) == (run.blocks_every > 0)
