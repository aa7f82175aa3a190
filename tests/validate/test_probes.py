"""Colour images are what their names say; the probe's numbers are those of the network, which it never touches."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from sim import Architecture, Batches, build, descend
from sim.networks import last_linear
from sim.networks.architecture import KINDS
from validate import network_run
from validate.cifar10 import load_embedded, standardise
from validate.network_run import NetworkConfig, run_network
from validate.probes import COLOURS, FLAT, FeatureProbe, colour_images


def test_flat_colours_are_flat_and_gradients_pass_from_the_first_to_the_second() -> None:
    images = dict(zip(COLOURS, colour_images().pixels, strict=True))
    for name, colour in FLAT.items():
        assert (images[name] == np.array(colour)[:, None, None]).all()
    graded = images["sky over grass"].astype(int)
    assert graded[:, 0, 0].tolist() == list(FLAT["sky"])
    assert graded[:, -1, -1].tolist() == list(FLAT["grass"])
    assert (np.diff(graded[2, :, 0]) < 0).all()  # blue falls from the sky to the grass
    assert (graded == graded[:, :, :1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_the_networks_own(kind: str) -> None:
    architecture = Architecture(kind, hidden=(16,)) if kind == "mlp" else Architecture(kind, width=0.125)
    network = build(architecture, (3, 32, 32), 10, seed=0)
    images = torch.from_numpy(standardise(load_embedded()))[:6]
    inputs = images.flatten(1) if kind == "mlp" else images
    probe = FeatureProbe(network, inputs, last_linear(network), every=2, chunk=4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    probe(1, list(network.parameters()), [])
    probe(2, list(network.parameters()), [])
    data = probe.record.dataset().assign_coords(probe.coordinates)
    assert data["probed"].values.tolist() == [2]
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    network.eval()
    features: list[torch.Tensor] = []
    last_linear(network).register_forward_hook(lambda module, arguments, output: features.append(arguments[0]))
    with torch.no_grad():
        network(inputs)
        white = torch.from_numpy(standardise(colour_images()))[[COLOURS.index("white")]].reshape(1, *inputs.shape[1:])
        expected = nn.functional.softmax(network(white), 1)[0].numpy()
    np.testing.assert_allclose(data["feature_norm"][0], features[0].flatten(1).norm(dim=1).numpy(), rtol=1e-4)
    np.testing.assert_allclose(data["colour_probability"].sel(colour="white")[0], expected, rtol=1e-3, atol=1e-6)


def test_a_run_with_probes_takes_the_steps_of_the_run_without() -> None:
    config = dict(architecture=Architecture(hidden=(8,)), images_per_class=3, steps=7, measure_every=10, blocks_every=0)
    plain, probed = (
        run_network(NetworkConfig(**config, probe_every=every), load_embedded(), torch.device("cpu"), progress=False)  # type: ignore[arg-type]
        for every in (0, 3)
    )
    assert (plain["loss"].values == probed["loss"].values).all()
    assert probed["probed"].values.tolist() == [0, 3, 6]
    np.testing.assert_allclose(probed["colour_probability"].sum("class"), 1, rtol=1e-5)
    assert probed["feature_norm"].shape == (3, 30)


def test_the_probe_of_a_run_takes_the_runs_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all images would pass at once, whatever bound on memory the run keeps."""
    taken: list[int | None] = []

    class Watched(FeatureProbe):
        def __post_init__(self) -> None:
            taken.append(self.chunk)
            super().__post_init__()

    monkeypatch.setattr(network_run, "FeatureProbe", Watched)
    architecture = Architecture(hidden=(8,))
    config = NetworkConfig(architecture, images_per_class=3, steps=1, blocks_every=0, probe_every=1)
    for chunk in (None, 7):
        chunked = dataclasses.replace(config, batches=Batches(chunk=chunk))
        run_network(chunked, load_embedded(), torch.device("cpu"), progress=False)
    assert taken == [None, 7]


def test_the_probe_reads_the_parameters_it_is_handed() -> None:
    network = build(Architecture(hidden=(4,)), (3, 32, 32), 10, seed=0)
    inputs = torch.from_numpy(standardise(load_embedded())).flatten(1)[:20]
    probe = FeatureProbe(network, inputs, last_linear(network), every=1)
    descend(network, inputs, torch.arange(20) % 10, lr=0.5, steps=3, probes=[probe], progress=False)
    norms = probe.record.dataset()["feature_norm"].values
    assert not np.allclose(norms[0], norms[2])
