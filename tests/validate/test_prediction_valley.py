"""The valley of a small network and its line against its edge study, and against the network's own steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from sim import Architecture, Batches
from sim.curvature.mean_loss import flatten, leaves_at, unflatten
from theory.command_line import InputError
from theory.valley_map import first_peak
from validate.cifar10 import load_embedded
from validate.edge_probe import EdgeMeasurements
from validate.edge_study import EdgeConfig, study_edge
from validate.network_run import NetworkConfig, network_tensors, run_network, trained_network, training_images
from validate.prediction.valley import (
    LINE_STEPS,
    MEMORY,
    ValleyConfig,
    find_bounce,
    follow_valley,
    line_map,
    measure_valley,
    told_spike,
)

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
    valley = measure_valley(find_bounce(RUN, base, int(edge["edge_measured"][index]), load_embedded(), CPU))
    at = edge.isel(edge_measured=index)
    assert valley.drive[0] == pytest.approx(float(at["bounce_a"]), rel=1e-2)
    assert valley.back_action[0] == pytest.approx(float(at["bounce_b"]), rel=1e-2)
    curvature = (valley.slope(1e-4) - valley.slope(-1e-4)) / 2e-4
    assert curvature == pytest.approx(float(at["bounce_curvature"]), rel=1e-2)
    assert len(valley.drive) == len(valley.back_action) == MEMORY
    assert np.all(np.abs(valley.back_action[1:4]) < valley.back_action[0])  # stiff directions spring back


def test_their_orbits_are_the_networks_displacement_along_the_bounce(base: xr.Dataset) -> None:
    step = 120

    def weights(at: int) -> torch.Tensor:
        return flatten([p.detach() for p in trained_network(RUN, base, CPU, at_step=at).parameters()]).double()

    bounce = find_bounce(RUN, base, step, load_embedded(), CPU)
    beta = -(weights(step + 1) - 2 * weights(step) + weights(step - 1)) / 4
    u, middle = beta / beta.norm(), (weights(step) + weights(step + 1)) / 2
    seen = [float(u @ (weights(step + t) - middle)) for t in range(6)]
    valley, line = measure_valley(bounce).iterate(bounce.x)[0], line_map(bounce).iterate(bounce.x, 5).x
    sign = np.sign(bounce.x * seen[0])
    for xs, allowed in ((valley[:6], 0.05), (line, 0.005)):
        np.testing.assert_allclose(sign * xs[:2], seen[:2], rtol=1e-3)
        np.testing.assert_allclose(sign * xs[2:], seen[2:], atol=allowed * abs(seen[0]))


def test_the_line_is_exact_along_the_bounce_and_of_first_order_across(base: xr.Dataset) -> None:
    """Errors of the gradient and of the loss against those of the network, beside a line, fall as ‖z‖² and ‖z‖³.

    The control expands with the floor's Hessian: its gradient's error falls as ‖z‖ alone where x is large.
    """
    bounce = find_bounce(RUN, base, 120, load_embedded(), CPU)
    line, like = line_map(bounce), list(bounce.loss.network.parameters())
    generator = torch.Generator().manual_seed(0)
    across = bounce.across(torch.randn(len(bounce.floor), generator=generator, dtype=torch.float64))
    across /= across.norm()
    x = 0.5
    errors: list[tuple[float, float, float]] = []
    for size in (1e-2, 1e-3):
        z = size * across
        told, of_floor = line.expansion(x, z.numpy()), line.expansion(0.0, z.numpy())
        point = unflatten(bounce.floor + x * bounce.direction + z, like)
        slope = bounce.loss.gradient(point).numpy()
        leaves = leaves_at(point)
        loss = float(bounce.loss.of_chunk(leaves, slice(0, len(bounce.loss))).detach())
        second_order = told.loss + told.gradient @ z.numpy() + z.numpy() @ told.product / 2
        errors.append(
            (
                float(np.linalg.norm(told.gradient + told.product - slope)),
                abs(second_order - loss),
                float(np.linalg.norm(told.gradient + of_floor.product - slope)),
            )
        )
    rates = np.log10(np.array(errors[0]) / np.array(errors[1]))
    np.testing.assert_allclose(rates, [2.0, 3.0, 1.0], atol=0.1)


def test_a_told_spike_is_the_orbits_peak(base: xr.Dataset) -> None:
    """At a step size above 2/λ, so that the bounce grows until the line stops it."""
    bounce = replace(find_bounce(RUN, base, 120, load_embedded(), CPU), lr=0.18, x=1e-3)
    orbit = line_map(bounce).iterate(bounce.x, LINE_STEPS)
    valley = measure_valley(bounce).iterate(bounce.x)[0]
    told = told_spike(
        xr.Dataset(
            {"valley_x": ("a", valley), "line_x": ("b", orbit.x), "line_loss": ("b", orbit.loss)},
        )
    )
    sizes = np.abs(np.diff(orbit.x, 2)) / 4
    assert told.square == sizes[int(told.steps) - 1] ** 2
    assert sizes[int(told.steps) - 1] > max(sizes[int(told.steps) - 2], sizes[int(told.steps)])
    np.testing.assert_array_equal(told.losses, orbit.loss[: int(told.steps) + 2])
    peak = first_peak(valley)
    assert peak is not None
    assert told.valley_square == peak.square


def test_orbits_are_those_from_the_iterate(base: xr.Dataset) -> None:
    config = ValleyConfig(RUN, 120)
    orbits, bounce = (
        follow_valley(config, base, load_embedded(), CPU),
        find_bounce(RUN, base, 120, load_embedded(), CPU),
    )
    np.testing.assert_array_equal(orbits["line_x"], line_map(bounce).iterate(bounce.x, LINE_STEPS).x)
    np.testing.assert_array_equal(orbits["valley_x"], measure_valley(bounce).iterate(bounce.x)[0])
    assert np.isnan(told_spike(orbits).square)  # it has stood for long: no orbit from here peaks
    assert config.name == f"valley-{RUN.name}-step120"


def test_its_kernels_start_below_the_iterate(base: xr.Dataset) -> None:
    """Against autograd on the loss written out, at the iterate less its displacement along the bounce."""
    step = 120
    bounce = find_bounce(RUN, base, step, load_embedded(), CPU)
    valley, x = measure_valley(bounce), bounce.x
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


def test_other_images_and_another_loss_than_the_runs_are_refused(base: xr.Dataset) -> None:
    with pytest.raises(InputError, match="was trained on 59 images, and 60 are at hand"):
        find_bounce(RUN, base.isel(example=slice(59)), 120, load_embedded(), CPU)
    pieces = replace(
        RUN,
        architecture=Architecture("resnet18", width=1 / 64, stride=4),
        steps=2,
        batches=Batches(chunk=15, ghost=True),
    )
    run = run_network(pieces, load_embedded(), CPU, progress=False)
    with pytest.raises(InputError, match=r"its steps taken again .* as with batch norm in pieces"):
        find_bounce(pieces, run, 1, load_embedded(), CPU)


def test_a_step_without_a_snapshot_before_it_is_refused(base: xr.Dataset) -> None:
    for run, words in ((base, "no snapshot before step 0"), (base.drop_vars("snapshot"), "no snapshot before step 9")):
        with pytest.raises(InputError, match=words):
            find_bounce(RUN, run, int(words[-1]), load_embedded(), CPU)
