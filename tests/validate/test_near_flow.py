"""The step size that crosses 2/η when it is asked to, by descent at that step size."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sim import Architecture
from theory import InputError
from validate import near_flow as module
from validate.cifar10 import load_embedded
from validate.evidence import Store, open_store
from validate.near_flow import RELATIVE, SHARPEST, NearFlowConfig, near_flow, step_size
from validate.network_run import NetworkConfig, run_network
from validate.plan import make_plan
from validate.roles import Setting

CPU = torch.device("cpu")
SMALL = NetworkConfig(
    Architecture(hidden=(24, 24), activation="gelu"),
    images_per_class=40,
    lr=0.02,
    measure_every=2,
    blocks_every=0,
    midpoint=False,
)


def crossing(config: NetworkConfig, steps: float) -> float:
    """First measured step with ηλ/2 ≥ 1 up to so many; infinite where there is none."""
    run = run_network(replace(config, steps=int(steps) + 1), load_embedded(), CPU, progress=False)
    above = run["sharpness_iterate"].values * config.lr / 2 >= 1
    return float(run["measured"].values[np.argmax(above)]) if above.any() else np.inf


@pytest.mark.parametrize(
    ("activation", "aim", "seed"),
    [
        *(("gelu", 40, 0), ("tanh", 80, 0)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in itertools.product(("gelu", "tanh"), (40, 80), (0, 1))
            if case not in (("gelu", 40, 0), ("tanh", 80, 0))
        ),
    ],
)
def test_descent_at_the_step_size_crosses_at_the_step_aimed_at(activation: str, aim: int, seed: int) -> None:
    architecture = replace(SMALL.architecture, activation=activation)
    network = replace(SMALL, architecture=architecture, seed=seed)
    lr = near_flow(NearFlowConfig.of(network, aim), load_embedded(), CPU, progress=False).attrs["lr"]
    soon, late = 0.85 * aim, 1.3 * aim  # η has two digits, and descent sharpens a little less than the flow
    assert soon <= crossing(replace(network, lr=lr), late) <= late
    # A step size that is off by a third is told from it.
    assert crossing(replace(network, lr=1.5 * lr), soon) < soon
    assert crossing(replace(network, lr=lr / 1.5), late) > late


@pytest.mark.parametrize("first", [1e-4, 0.02, 100.0])
def test_the_step_size_does_not_hang_on_the_first_one_tried(first: float) -> None:
    path = near_flow(NearFlowConfig.of(replace(SMALL, lr=first), 40), load_embedded(), CPU, progress=False)
    usual = near_flow(NearFlowConfig.of(SMALL, 40), load_embedded(), CPU, progress=False)
    assert path.attrs["lr"] == pytest.approx(usual.attrs["lr"], rel=0.06)
    sizes = np.diff(path["time"].values) / module.STRETCH
    assert (sizes * path["sharpness"].values[1:] / 2 <= SHARPEST).all()
    assert (sizes * path["sharpness"].values[:-1] / 2 <= RELATIVE * (1 + 1e-9)).all()
    assert np.isfinite(path["loss"].values[1:]).all()
    assert (sizes <= module.GROWTH * np.array([first / module.GROWTH, *sizes[:-1]]) * (1 + 1e-9)).all()


def test_the_equation_is_solved_where_the_sharpness_is_a_power_of_time() -> None:
    """λ = c√t: t λ = c t^{3/2} = 2n at t = (2n/c)^{2/3}."""
    time = np.linspace(0, 3, 400)
    assert step_size(time, 50 * time**0.5, 60) == pytest.approx((120 / 50) ** (2 / 3) / 60, rel=0.05)


def test_a_network_that_does_not_get_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 0.1)
    with pytest.raises(InputError, match=r"--crossing is 200: mlp-.* of 400 after 20 steps .*; give a smaller one"):
        near_flow(NearFlowConfig.of(SMALL, 200), load_embedded(), CPU, progress=False)


def test_a_store_makes_the_runs_once_and_each_seed_has_its_own_step_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "runs", load_embedded(), CPU)
    setting = Setting(SMALL, seeds=(0, 1), crossing=20)
    assert store.with_step_sizes(setting, make=False).base(0) == replace(SMALL, seed=0)
    assert "chosen once its run" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    # Until then its runs are unknown: a finished run at the network's own step size is none of them.
    assert {run.config for run in make_plan(setting, ("base", "gentle"), store.runs)} == {None}
    sized = store.with_step_sizes(setting)
    assert None not in {run.config for run in make_plan(sized, ("base", "gentle"), store.runs)}
    sizes = [sized.base(seed).lr for seed in (0, 1)]
    assert sizes == [
        near_flow(NearFlowConfig.of(replace(SMALL, seed=seed), 20), load_embedded(), CPU, progress=False).attrs["lr"]
        for seed in (0, 1)
    ]
    assert sizes != [SMALL.lr, SMALL.lr]
    assert f"seed 1: η = {sizes[1]:g}" in capsys.readouterr().out
    assert store.with_step_sizes(setting, make=False) == sized
    made = {path: path.read_bytes() for path in store.runs.rglob("environment.json")}
    planning = open_store(store.runs, tmp_path / "report", store.images, CPU, force=True, plan_only=True)
    assert planning.with_step_sizes(setting, make=False) == sized
    assert {path: path.read_bytes() for path in store.runs.rglob("environment.json")} == made, "a plan makes runs"
    assert store.with_step_sizes(replace(setting, crossing=0)).base(0).lr == SMALL.lr
