"""The valley of a small network against its edge study, and against the network's own steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from sim import Architecture
from sim.curvature.mean_loss import flatten
from theory.command_line import InputError
from validate.cifar10 import load_embedded
from validate.edge_probe import EdgeMeasurements
from validate.edge_study import EdgeConfig, study_edge
from validate.network_run import NetworkConfig, network_tensors, run_network, trained_network, training_images
from validate.prediction.valley import MEMORY, measure_valley

CPU = torch.device("cpu")
RUN = NetworkConfig(
    architecture=Architecture(hidden=(8,), activation="gelu"),
    lr=0.15,
    steps=212,
    seed=100,
    images_per_class=6,
    blocks_every=0,
    midpoint=False,
    snapshot_every=1,
)


@pytest.fixture(scope="module")
def base() -> xr.Dataset:
    """A run whose steps overshoot, with a sharpness that is made to cross 2/η at step 60, so that it can be studied."""
    data = run_network(RUN, load_embedded(), CPU, progress=False)
    data["sharpness_iterate"].values[:] = np.where(data["measured"] >= 60, 15.0, 10.0)
    return data


def test_at_the_start_of_its_memory_it_is_what_the_study_measures(base: xr.Dataset) -> None:
    """The study's probe is other code, in float32, at the midpoint: half a step further down the valley."""
    edge = study_edge(EdgeConfig(RUN, EdgeMeasurements(every=9, draws=1)), base, load_embedded(), CPU, progress=False)
    index = 4
    valley, _ = measure_valley(RUN, base, int(edge["edge_measured"][index]), load_embedded(), CPU)
    at = edge.isel(edge_measured=index)
    assert valley.drive[0] == pytest.approx(float(at["bounce_a"]), rel=1e-2)
    assert valley.back_action[0] == pytest.approx(float(at["bounce_b"]), rel=1e-2)
    curvature = (valley.slope(1e-4) - valley.slope(-1e-4)) / 2e-4
    assert curvature == pytest.approx(float(at["bounce_curvature"]), rel=1e-2)
    assert len(valley.drive) == len(valley.back_action) == MEMORY
    assert np.all(np.abs(valley.back_action[1:4]) < valley.back_action[0])  # stiff directions spring back


def test_its_orbit_is_the_networks_displacement_along_the_bounce(base: xr.Dataset) -> None:
    step = 120

    def weights(at: int) -> torch.Tensor:
        return flatten([p.detach() for p in trained_network(RUN, base, CPU, at_step=at).parameters()]).double()

    valley, x = measure_valley(RUN, base, step, load_embedded(), CPU)
    beta = -(weights(step + 1) - 2 * weights(step) + weights(step - 1)) / 4
    u, middle = beta / beta.norm(), (weights(step) + weights(step + 1)) / 2
    seen = [float(u @ (weights(step + t) - middle)) for t in range(6)]
    xs, _ = valley.iterate(x)
    sign = np.sign(x * seen[0])
    np.testing.assert_allclose(sign * xs[:2], seen[:2], rtol=1e-3)
    np.testing.assert_allclose(sign * xs[2:6], seen[2:], atol=0.05 * abs(seen[0]))


def test_its_kernels_start_below_the_iterate(base: xr.Dataset) -> None:
    """Against autograd on the loss written out, at the iterate less its displacement along the bounce."""
    step = 120
    valley, x = measure_valley(RUN, base, step, load_embedded(), CPU)
    network = trained_network(RUN, base, CPU, at_step=step).double()
    pixels, labels = network_tensors(RUN.architecture, training_images(RUN, load_embedded()), CPU)

    def weights(at: int) -> torch.Tensor:
        return flatten([p.detach() for p in trained_network(RUN, base, CPU, at_step=at).parameters()]).double()

    beta = -(weights(step + 1) - 2 * weights(step) + weights(step - 1)) / 4
    u = beta / beta.norm()
    up = u @ (weights(step) - weights(step + 1)) / 2
    assert float(up.abs()) == pytest.approx(abs(x), rel=1e-4)
    parameters = list(network.parameters())
    torch.nn.utils.vector_to_parameters(weights(step) - up * u, parameters)
    loss = torch.nn.functional.cross_entropy(network(pixels.double()), labels)
    slope = flatten(torch.autograd.grad(loss, parameters, create_graph=True))
    curvature = u @ flatten(torch.autograd.grad(u @ slope, parameters, create_graph=True))
    rise = flatten(torch.autograd.grad(curvature, parameters))
    rise = rise - (rise @ u) * u
    assert valley.drive[0] == pytest.approx(-float(rise @ slope.detach()), rel=1e-4)
    assert valley.back_action[0] == pytest.approx(float(rise @ rise), rel=1e-4)


def test_a_step_without_a_snapshot_before_it_is_refused(base: xr.Dataset) -> None:
    for run, words in ((base, "no snapshot before step 0"), (base.drop_vars("snapshot"), "no snapshot before step 9")):
        with pytest.raises(InputError, match=words):
            measure_valley(RUN, run, int(words[-1]), load_embedded(), CPU)
