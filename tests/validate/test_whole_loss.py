"""The sharpness of the untreated loss at a treated run's weights, against a run that begins at those weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sim import Architecture
from theory import InputError
from validate.cifar10 import load_embedded
from validate.interventions import Intervention
from validate.network_run import NetworkConfig, run_network
from validate.whole_loss import WholeLossConfig, measure_whole_loss

CPU = torch.device("cpu")
MLP = NetworkConfig(
    Architecture(hidden=(16,)), images_per_class=10, lr=0.1, steps=40, measure_every=10, blocks_every=0, midpoint=False
)
RESNET = replace(
    MLP, architecture=Architecture("resnet18", width=0.0625, stride=4), images_per_class=2, steps=12, lr=0.01
)
TREATED = tuple(range(0, 20, 2))


def at_its_weights(config: NetworkConfig, step: int) -> tuple[float, float]:
    """Sharpness of the loss trained on and of the untreated one, by runs up to a step's middle and on from there."""
    images = load_embedded()
    own = run_network(replace(config, measure_every=step, steps=step + 1, midpoint=True), images, CPU, progress=False)
    ends = (run_network(replace(config, steps=taken), images, CPU, progress=False) for taken in (step, step + 1))
    there = sum(0.5 * run["final_parameters"].values for run in ends)
    on = replace(config, intervention=None, start_step=step, steps=1)
    untreated = run_network(on, images, CPU, progress=False, start=there)
    return float(own["sharpness_midpoint"].values[-1]), float(untreated["sharpness_iterate"].values[0])


@pytest.mark.parametrize(
    ("base", "kind", "step"), [(MLP, "remove", 20), (MLP, "recolour", 35), (RESNET, "down_weight", 10)]
)
def test_it_is_that_of_an_untreated_run_from_there(base: NetworkConfig, kind: str, step: int) -> None:
    config = replace(base, intervention=Intervention(kind, TREATED, 0.2))  # type: ignore[arg-type]
    found = float(measure_whole_loss(WholeLossConfig(config, step), load_embedded(), CPU, progress=False)["sharpness"])
    own, untreated = at_its_weights(config, step)
    assert found == pytest.approx(untreated, rel=2e-3)
    assert abs(own / untreated - 1) > 0.01, "a control: the loss trained on has another sharpness there"


def test_a_late_treatment_begins_at_the_weights_given() -> None:
    images = load_embedded()
    start = run_network(replace(MLP, steps=20), images, CPU, progress=False)["final_parameters"].values
    late = replace(MLP, intervention=Intervention("remove", TREATED), start_step=20, steps=20)
    found = measure_whole_loss(WholeLossConfig(late, 1), images, CPU, start=start, progress=False)
    untreated = run_network(replace(MLP, measure_every=20, steps=21), images, CPU, progress=False)
    assert float(found["sharpness"]) == pytest.approx(float(untreated["sharpness_iterate"].values[-1]), rel=0.1)
    early = measure_whole_loss(WholeLossConfig(replace(late, start_step=0), 1), images, CPU, progress=False)
    assert not np.isclose(float(early["sharpness"]), float(found["sharpness"]), rtol=0.1)


@pytest.mark.parametrize("step", [0, 41, -1])
def test_a_step_that_the_run_has_not_is_refused(step: int) -> None:
    with pytest.raises(InputError, match=f"step is {step}: give one from 1 to 40"):
        WholeLossConfig(MLP, step)
