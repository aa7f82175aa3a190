"""Interventions: what they do to images, weights and losses, and that the training feels exactly that."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from cases import planted
from hypothesis import given
from hypothesis import strategies as st

from sim import Architecture, LossRule
from theory import InputError
from validate.cifar10 import Images, first_of_each_class, load_embedded
from validate.images_at_hand import held_out
from validate.interventions import Intervention, choose_examples
from validate.network_run import NetworkConfig, run_network
from validate.outcome import outcome
from validate.windows import Windows

CPU = torch.device("cpu")
TINY = NetworkConfig(
    architecture=Architecture(hidden=(8,)),
    images_per_class=5,
    steps=12,
    measure_every=4,
    blocks_every=0,
    midpoint=False,
)


@pytest.fixture(scope="module")
def images() -> Images:
    return load_embedded()


def trained(images: Images, **changes: object) -> xr.Dataset:
    return run_network(dataclasses.replace(TINY, **changes), images, CPU, progress=False)  # type: ignore[arg-type]


def test_removing_examples_is_training_without_them(images: Images) -> None:
    """Independent: the same network on the images that are left, in one class fewer each."""
    few = first_of_each_class(images, 5)
    gone = tuple(int(np.flatnonzero(few.labels == label)[-1]) for label in range(10))
    removed = trained(few, intervention=Intervention("remove", gone))
    left = np.setdiff1d(np.arange(50), gone)
    alone = trained(Images(few.pixels[left], few.labels[left]), images_per_class=4)
    assert np.allclose(removed["final_parameters"], alone["final_parameters"], atol=1e-6)
    assert np.allclose(removed["sharpness_iterate"], alone["sharpness_iterate"], rtol=1e-2)
    assert np.isfinite(removed["loss"].values).all()
    assert np.array_equal(np.flatnonzero(removed["example_weight"].values == 0), sorted(gone))
    everything = trained(few)
    assert not np.allclose(removed["final_parameters"], everything["final_parameters"], atol=1e-4)


def test_a_weight_of_one_changes_nothing_and_a_weight_of_nought_removes(images: Images) -> None:
    few, gone = first_of_each_class(images, 5), (3, 17)
    plain = trained(few)["final_parameters"]
    assert np.allclose(trained(few, intervention=Intervention("down_weight", gone, 1.0))["final_parameters"], plain)
    removed = trained(few, intervention=Intervention("remove", gone))["final_parameters"]
    assert np.allclose(trained(few, intervention=Intervention("down_weight", gone, 0.0))["final_parameters"], removed)


def test_a_clipped_example_has_no_gradient_above_the_cap_and_its_own_below() -> None:
    outputs, labels = torch.zeros(3, 4, requires_grad=True), torch.tensor([0, 1, 2])
    rule = Intervention("clip", (1,), 1.0).loss(LossRule(), 3)
    losses = rule(outputs, labels)  # ln 4 each
    assert losses.tolist() == pytest.approx([np.log(4), 1.0, np.log(4)])
    losses.sum().backward()
    assert outputs.grad is not None
    assert outputs.grad[1].abs().max() == 0
    assert outputs.grad[0].abs().max() > 0
    with pytest.raises(InputError, match="full batches"):
        rule(outputs[:2], labels[:2])
    high = Intervention("clip", (1,), 5.0).loss(LossRule(label_smoothing=0.1), 3)
    assert torch.equal(high(outputs, labels), F.cross_entropy(outputs, labels, reduction="none", label_smoothing=0.1))


@given(st.lists(st.integers(0, 49), min_size=1, max_size=20, unique=True), st.floats(0, 1), st.integers(0, 99))
def test_relabelling_and_recolouring_touch_the_chosen_alone(chosen: list[int], share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 160, (50, 3, 32, 32)).astype(np.uint8)
    images = Images(pixels, rng.integers(0, 10, 50).astype(np.uint8))
    others = np.setdiff1d(np.arange(50), chosen)
    relabelled = Intervention("relabel", tuple(chosen)).images(images)
    assert np.array_equal(relabelled.labels[others], images.labels[others])
    assert len(set(relabelled.labels[chosen].tolist())) == 1
    assert relabelled.labels[chosen[0]] in images.labels[chosen]
    recoloured = Intervention("recolour", tuple(chosen), share).images(images)
    assert np.array_equal(recoloured.pixels[others], pixels[others])
    own, mean = pixels[chosen].mean((2, 3)), pixels.mean((0, 2, 3))
    assert np.allclose(recoloured.pixels[chosen].mean((2, 3)), own + share * (mean - own), atol=0.51)
    assert Intervention("remove", tuple(chosen)).images(images) is images


def test_opposing_examples_are_the_planted_ones_and_the_controls_are_as_many(images: Images) -> None:
    labels = np.repeat(np.arange(10), 20).astype(np.uint8)
    losses = planted(0, n=200, steps=400, size=10)
    losses[:200, 150:170] += 3.0  # the hardest before the edge
    base = xr.Dataset({"loss": (("step", "example"), losses), "label": ("example", labels)})
    windows = Windows(200, slice(70, 170), slice(200, 275), slice(275, 350), slice(200, 350), slice(0, 100))
    chosen = choose_examples(base, windows, 20, seed=0)
    assert set(chosen["opposing"]) == set(range(20))
    assert set(chosen["hardest"]) == set(range(150, 170))
    assert np.array_equal(np.bincount(labels[chosen["random"]]), np.bincount(labels[chosen["opposing"]]))
    assert all(len(set(c.tolist())) == 20 for c in chosen.values())
    with pytest.raises(InputError, match="give one from 1 to 200"):
        choose_examples(base, windows, 201, seed=0)


def test_names_tell_interventions_apart() -> None:
    made = [
        Intervention("remove", (1, 2)),
        Intervention("remove", (1, 3)),
        Intervention("remove", (1, 2), chosen="random"),
        Intervention("clip", (1, 2), 1.0),
        Intervention("clip", (1, 2), 1.5),
        Intervention("relabel", (1, 2)),
    ]
    names = {dataclasses.replace(TINY, intervention=what).name for what in made}
    assert len(names) == len(made)
    assert all("/" not in name and " " not in name for name in names)


@pytest.mark.parametrize(
    "wrong",
    [
        ("remove", ()),
        ("remove", (1, 1)),
        ("remove", (-1,)),
        ("shrink", (1,)),
        ("recolour", (1,), 2.0),
        ("clip", (1,), -1),
    ],
)
def test_a_wrong_intervention_is_refused(wrong: tuple[object, ...]) -> None:
    with pytest.raises(InputError, match="give"):
        Intervention(*wrong)  # type: ignore[arg-type]


def test_an_example_beyond_the_images_is_refused(images: Images) -> None:
    with pytest.raises(InputError, match="not among the run's 50 images"):
        trained(images, intervention=Intervention("remove", (50,)))


def test_outcomes_are_counted_on_images_never_trained_on(images: Images) -> None:
    left = held_out(images, 5)
    assert len(left.labels) == 1950
    data = trained(images)
    data["sharpness_iterate"].values[:] = [50, 30, 45]
    data["loss"].values[:] = 1.0
    data["loss"].values[[3, 4, 8]] = 2.0
    found = outcome(TINY, data, left, CPU)
    assert (found.crossing, found.spikes, found.least_loss) == (8, 2, 1.0)
    assert 0.05 < found.accuracy < 0.5
    assert np.isnan(outcome(TINY, data, held_out(images, 200), CPU).accuracy)
    data["loss"].values[:, 7] = 0.5
    alone = np.arange(50) == 7
    assert outcome(TINY, data, left, CPU, examples=alone).spikes == 0
    assert outcome(TINY, data, left, CPU, examples=~alone, begin=5).spikes == 1
    data["loss"].values[5:, 7] = 0.25
    assert outcome(TINY, data, left, CPU, examples=alone).least_loss == 0.25
