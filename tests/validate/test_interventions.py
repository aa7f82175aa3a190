"""Interventions: what they do to images, weights and losses, and that the training feels exactly that."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from cases import planted
from hypothesis import given
from hypothesis import strategies as st

from sim import Architecture, Batches, LossRule
from theory import InputError
from validate.cifar10 import Images, first_of_each_class, load_embedded
from validate.evidence import Store
from validate.images_at_hand import held_out
from validate.interventions import Intervention, Kind, choose_examples
from validate.network_run import NetworkConfig, run_network
from validate.outcome import outcome
from validate.roles import ROLES, Base, Setting
from validate.treatments import CHOICES, TREATMENTS, late_start, roles_of
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
    outputs, labels = torch.zeros(3, 10, requires_grad=True), torch.tensor([0, 1, 2])
    clip = Intervention("clip", (1,), 1.0)
    rule, targets = clip.loss(LossRule()), clip.targets(labels)
    assert labels.tolist() == [0, 1, 2]
    losses = rule(outputs, targets)  # ln 10 each
    assert losses.tolist() == pytest.approx([np.log(10), 1.0, np.log(10)])
    losses.sum().backward()
    assert outputs.grad is not None
    assert outputs.grad[1].abs().max() == 0
    assert outputs.grad[0].abs().max() > 0
    assert rule(outputs[1:], targets[1:]).tolist() == losses[1:].tolist()  # whatever else is in the chunk
    high = Intervention("clip", (1,), 5.0)
    smooth = high.loss(LossRule(label_smoothing=0.1))(outputs, high.targets(labels))
    assert torch.equal(smooth, F.cross_entropy(outputs, labels, reduction="none", label_smoothing=0.1))


def test_clipping_in_chunks_is_clipping(images: Images) -> None:
    """The paper preset cuts its batches."""
    few = first_of_each_class(images, 5)
    clip = Intervention("clip", (3, 17, 30), 1.0)
    whole, cut = (
        trained(few, intervention=clip, batches=Batches(chunk=chunk, ghost=chunk is not None)) for chunk in (None, 7)
    )
    np.testing.assert_allclose(cut["final_parameters"], whole["final_parameters"], atol=1e-5)
    np.testing.assert_allclose(cut["sharpness_iterate"], whole["sharpness_iterate"], rtol=1e-2)
    assert not np.allclose(whole["final_parameters"], trained(few)["final_parameters"], atol=1e-4)


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
    losses[275:, 60:80] += 50.0 * (-1.0) ** np.arange(125)[:, None]  # after the steps on which they are chosen
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
    assert outcome(TINY, data, left, CPU).crossing is None  # within 50 steps of the start it is no crossing
    found = outcome(TINY, data, left, CPU, taken=42)
    # Between the measurements of steps 4 and 8, 30 and 45, that of 2/η = 40.
    assert (found.crossing, found.spikes, found.least_loss) == (pytest.approx(4 + 4 * 10 / 15), 2, 1.0)
    assert 0.05 < found.accuracy < 0.5
    assert np.isnan(outcome(TINY, data, held_out(images, 200), CPU).accuracy)
    data["loss"].values[:, 7] = 0.5
    alone = np.arange(50) == 7
    assert outcome(TINY, data, left, CPU, examples=alone).spikes == 0
    assert outcome(TINY, data, left, CPU, examples=~alone, begin=5).spikes == 1
    data["loss"].values[5:, 7] = 0.25
    assert outcome(TINY, data, left, CPU, examples=alone).least_loss == 0.25


def base_run() -> Base:
    labels = np.repeat(np.arange(10), 20).astype(np.uint8)
    losses = planted(0, n=200, steps=400, size=10)
    data = xr.Dataset({"loss": (("step", "example"), losses), "label": ("example", labels)})
    windows = Windows(200, slice(70, 170), slice(200, 275), slice(275, 350), slice(200, 350), slice(0, 100))
    return Base(data, windows)


def test_a_control_has_the_same_done_to_it_as_the_opposing_examples() -> None:
    setting = Setting(dataclasses.replace(TINY, images_per_class=20, steps=400, snapshot_every=30), seeds=(4,))
    base, names = base_run(), set()
    for name, treatment in TREATMENTS.items():
        done = {}
        for choice in CHOICES:
            derive = ROLES[treatment.role_of(choice)].derive_from_run
            assert derive is not None
            done[choice] = derive(setting, setting.base(4), base)
        names |= {of.name for of in done.values()}
        what = {of.intervention for of in done.values()}  # type: ignore[union-attr]
        assert len(what) == len(CHOICES)
        assert {(of.kind, of.amount, len(of.examples)) for of in what} == {(treatment.kind, treatment.amount, 20)}
        assert {dataclasses.replace(of, intervention=None) for of in done.values()} == {  # type: ignore[type-var]
            dataclasses.replace(
                setting.base(4), snapshot_every=0, **({"start_step": 180, "steps": 220} if "late" in name else {})
            )
        }
    assert len(names) == len(TREATMENTS) * len(CHOICES)


def test_roles_and_their_runs_keep_their_names() -> None:
    """Runs made before the controls got every treatment are still found."""
    old = {"without_opposing", "without_random", "without_hardest"}
    old |= {f"{done}_opposing" for done in ("down_weighted", "clipped", "relabelled", "recoloured")}
    assert old <= set(roles_of(list(TREATMENTS))) <= set(ROLES)
    setting = Setting(NetworkConfig(snapshot_every=30, step_lengths=True), seeds=(10,), share=0.1)
    of = {role: ROLES[role].derive_from_run(setting, setting.base(10), base_run()) for role in old}  # type: ignore[misc]
    assert {run.name.rsplit("-", 1)[0] for run in of.values()} == {
        "mlp-lr0.05-seed10-blocks0-" + rest
        for rest in (
            *("remove-opposing20", "remove-random20", "remove-hardest20", "downweight-opposing20-0.2"),
            *("clip-opposing20-1.0", "relabel-opposing20", "recolour-opposing20-1.0"),
        )
    }


@given(st.integers(1, 60), st.integers(1, 30), st.integers(50, 2000))
def test_a_late_treatment_begins_at_the_last_snapshot_before_the_crossing(
    every: int, measured: int, crossing: int
) -> None:
    """At the last one that is measured; at any where the first such, but the start, comes after the crossing."""
    windows = dataclasses.replace(base_run().windows, crossing=crossing)
    start = late_start(dataclasses.replace(TINY, snapshot_every=every, measure_every=measured), windows)
    snapshots = range(every, crossing, every)
    both = [step for step in snapshots if step % measured == 0]
    assert start == (both or snapshots or [0])[-1]


def test_a_late_treatment_that_does_nothing_goes_on_as_the_base_run(images: Images, tmp_path: Path) -> None:
    """Through the store, which hands the snapshot over; removal from there changes the rest."""
    config = dataclasses.replace(TINY, snapshot_every=4)
    store = Store(tmp_path, images, CPU)
    data = store.obtain(config, None).data.load()
    base = Base(data, base_run().windows)

    def late(what: Intervention) -> xr.Dataset:
        return store.obtain(dataclasses.replace(TINY, intervention=what, start_step=8, steps=4), base).data

    same = late(Intervention("down_weight", (3, 17), 1.0))
    assert np.allclose(same["loss"], data["loss"][8:], rtol=1e-6)
    assert np.allclose(same["final_parameters"], data["final_parameters"], atol=1e-7)
    without = late(Intervention("remove", (3, 17)))
    assert np.allclose(without["loss"][0], data["loss"][8], rtol=1e-6)
    assert not np.allclose(without["loss"][3], data["loss"][11], rtol=1e-4)
    with pytest.raises(InputError, match="no snapshots to begin from"):
        late_start(TINY, base.windows)


@given(st.sampled_from(["down_weight", "clip", "recolour", "remove"]), st.floats(0, 1), st.floats(0, 1))
def test_another_amount_is_another_name(kind: Kind, first: float, second: float) -> None:
    names = {Intervention(kind, (1, 2), amount, "x").name for amount in (first, second)}
    assert len(names) == len({first, second})
