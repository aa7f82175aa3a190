"""Configurations of runs and their names; runs of every kind of network, from the seed or from a snapshot."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from sim import Architecture, Arithmetic, Batches, LossRule, OptimizerChoice
from sim.networks import parameter_vector
from theory import InputError
from validate.cifar10 import load_embedded
from validate.cpu_forms import CPU_FORMS
from validate.network_run import (
    NetworkConfig,
    network_inputs,
    run_network,
    stored_network,
    trained_network,
    training_images,
)

CPU = torch.device("cpu")

configurations = st.builds(
    NetworkConfig,
    architecture=st.one_of(
        st.builds(Architecture, hidden=st.lists(st.integers(1, 30), max_size=3).map(tuple)),
        st.builds(Architecture, kind=st.sampled_from(["vgg11", "vgg11_bn"]), width=st.floats(0.01, 2)),
        st.builds(Architecture, kind=st.just("resnet18"), stride=st.sampled_from([1, 2])),
        st.builds(Architecture, kind=st.just("vit"), depth=st.none() | st.integers(1, 3)),
    ),
    optimizer=st.builds(
        OptimizerChoice,
        kind=st.sampled_from(["gd", "momentum", "adam", "sam"]),
        momentum=st.floats(0.01, 0.99),
        dampening=st.floats(0, 1),
        radius=st.floats(0, 1),
    ),
    loss=st.builds(LossRule, kind=st.sampled_from(["cross_entropy", "squared"]), label_smoothing=st.floats(0, 0.9)),
    images_per_class=st.integers(1, 300),
    lr=st.floats(1e-6, 10),
    steps=st.integers(1, 500),
    seed=st.integers(0, 30),
    measure_every=st.integers(1, 30),
    blocks_every=st.integers(0, 30),
    midpoint=st.booleans(),
    snapshot_every=st.integers(0, 30),
    probe_every=st.integers(0, 30),
    start_step=st.integers(0, 30),
    batches=st.builds(Batches, size=st.none() | st.integers(1, 50), chunk=st.none() | st.integers(1, 50)),
    arithmetic=st.builds(Arithmetic, channels_last=st.booleans()),
    loss_dtype=st.sampled_from(["float32", "float16"]),
)


@given(configurations)
def test_a_stored_configuration_is_read_back(config: NetworkConfig) -> None:
    stored = json.loads(json.dumps(asdict(config))) | {"device": "cpu"}
    assert stored_network(stored) == config


@pytest.mark.parametrize("change", [{"lrs": 0.1}, {"architecture": 3}, {"intervention": {"kind": "remove"}}])
def test_a_configuration_of_something_else_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="without an intervention"):
        stored_network(asdict(NetworkConfig()) | change)


def test_the_default_runs_keep_their_names() -> None:
    assert NetworkConfig(seed=7).name == "mlp-lr0.05-seed7"
    assert NetworkConfig(seed=7, lr=0.05 / 10).name == "mlp-lr0.005-seed7"
    assert len({form.name for form in CPU_FORMS.values()}) == len(CPU_FORMS)


@given(configurations, configurations)
@example(NetworkConfig(lr=0.1), NetworkConfig(lr=0.1000000001))
def test_no_two_configurations_share_a_name(one: NetworkConfig, other: NetworkConfig) -> None:
    mixed = [replace(one, **{f.name: getattr(other, f.name)}) for f in fields(NetworkConfig)]  # one field at most
    for another in (other, *mixed):
        assert (one.name == another.name) == (one == another)
    assert "/" not in one.name
    assert not one.name.startswith(".")


@pytest.mark.parametrize("kind", [kind for kind in CPU_FORMS if kind != "mlp"])
def test_a_run_begun_from_a_snapshot_repeats_the_rest_and_its_end_can_be_rebuilt(kind: str) -> None:
    form = CPU_FORMS[kind]
    config = replace(
        form,
        architecture=replace(form.architecture, width=1 / 48),
        images_per_class=1,
        steps=4,
        measure_every=2,
        blocks_every=0,
        midpoint=False,
        snapshot_every=2,
    )
    data = run_network(config, load_embedded(), CPU, progress=False)
    assert data["loss"].shape == (4, 10)
    assert data.attrs["seed"] == config.seed
    assert data["snapshot_step"].values.tolist() == [0, 2]
    rest = replace(config, start_step=2, steps=2)
    again = run_network(rest, load_embedded(), CPU, progress=False, start=data["snapshot"].sel(snapshot_step=2).values)
    assert np.array_equal(again["loss"].values, data["loss"].values[2:])
    np.testing.assert_allclose(again["sharpness_iterate"][0], data["sharpness_iterate"][1], rtol=1e-2)
    ended = trained_network(config, data, CPU)
    assert not ended.training
    assert np.array_equal(parameter_vector(ended).numpy(), data["final_parameters"].values)
    # Batch norm's running statistics are those of four steps, not those of a new network.
    fresh = trained_network(config, data, CPU, at_step=0).eval()
    assert all(not torch.equal(a, b) for a, b in zip(ended.buffers(), fresh.buffers(), strict=True))
    inputs = network_inputs(config.architecture, training_images(config, load_embedded()))
    middle = trained_network(config, data, CPU, at_step=2)
    labels = torch.from_numpy(data["label"].values.astype(np.int64))
    loss = torch.nn.functional.cross_entropy(middle(inputs), labels, reduction="none")
    np.testing.assert_allclose(loss.detach(), data["loss"].values[2], rtol=1e-5)


@dataclass(frozen=True)
class Without:
    """Leaves out the first examples, and gives all the others one label."""

    name: str = "without"

    def images(self, images):  # type: ignore[no-untyped-def]
        """Other labels."""
        return replace(images, labels=np.full_like(images.labels, 3))

    def weights(self, images):  # type: ignore[no-untyped-def]
        """None for the first five."""
        return (np.arange(len(images.labels)) >= 5).astype(np.float32)

    def loss(self, rule):  # type: ignore[no-untyped-def]
        """The run's."""
        return rule

    def targets(self, labels):  # type: ignore[no-untyped-def]
        """The labels."""
        return labels


def test_an_intervention_acts_on_the_chosen_images() -> None:
    config = NetworkConfig(
        Architecture(hidden=(6,)), images_per_class=2, steps=60, blocks_every=0, intervention=Without()
    )
    assert config.name.endswith("-without")
    data = run_network(config, load_embedded(), CPU, progress=False)
    assert data["loss"].shape == (60, 20)
    assert (data["label"] == 3).all()
    assert float(data["loss"][-1, 5:].mean()) < 1  # with their own labels, and unlearnt, about 2.3
    assert np.isfinite(data["loss"].values).all()


def test_what_does_not_fit_is_refused() -> None:
    for values, message in (
        ({"snapshot_every": -1}, "--snapshot-every is -1"),
        ({"images_per_class": 0}, "--images-per-class"),
        ({"lr": 0.0}, "--lr"),
    ):
        with pytest.raises(InputError, match=message):
            NetworkConfig(**values)  # type: ignore[arg-type]
    config = NetworkConfig(Architecture(hidden=(4,)), images_per_class=1, steps=1, snapshot_every=1)
    with pytest.raises(InputError, match="start_step is 3"):
        run_network(replace(config, start_step=3), load_embedded(), CPU, progress=False)
    data = run_network(config, load_embedded(), CPU, progress=False)
    with pytest.raises(InputError, match="no snapshot of step 5"):
        trained_network(config, data, CPU, at_step=5)
