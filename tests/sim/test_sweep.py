"""The phase diagram: the theory's boundary is found, and a sweep that was stopped ends with the same table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sim.sweep
import theory
from sim.sweep import PHASES, PhaseConfig, phase_table, run_phase_unit, sweep_phase
from theory import InputError

CPU = torch.device("cpu")
SMALL = PhaseConfig(betas=(2.0, 3.0, 4.0), lrs=4, seeds=(0, 1), d1=5, steps=400)


def test_runs_converge_below_the_boundary_and_oscillate_or_diverge_above() -> None:
    config = PhaseConfig(betas=(3.0,), lowest=0.6, highest=1.4, lrs=3, seeds=(0, 1), d1=10, steps=2000)
    data = run_phase_unit(config.unit(3.0), CPU)
    names = np.array(PHASES)[data["phase"].values]
    assert (names[0] == "converges").all()
    assert (names[2] == "oscillates").all()
    # S = α‖β‖ = 60 at the flow's limit; ending below it is what oscillation is for (T8).
    np.testing.assert_allclose(data["flow_boundary"], 2 / 60, rtol=1e-9)
    assert (data["final_first_layer"][2] * data["step_size"][2] <= 2).all()
    # The run itself, by the theory's own loop.
    descent = config.unit(3.0).config(1)
    end = theory.gradient_descent(descent.model, descent.initial_state, float(data["step_size"][2, 1]), 2000).state
    assert float(data["final_first_layer"][2, 1]) == pytest.approx(20 * float(end.c[-1]) ** 2, rel=1e-6)


def test_no_run_settles_where_no_minimum_is_stable_and_large_steps_diverge() -> None:
    config = PhaseConfig(betas=(3.0,), lowest=4.5, highest=8.0, lrs=3, seeds=(0, 1), d1=10, steps=300)
    data = run_phase_unit(config.unit(3.0), CPU)
    assert (data["step_size"] > data["last_boundary"]).all()
    assert np.isin(np.array(PHASES)[data["phase"].values], ["diverges", "unsettled"]).all()
    assert (data["diverged_at"].values[-1] > 0).all()


def test_runs_that_are_still_on_their_way_are_not_called_converged() -> None:
    config = PhaseConfig(betas=(3.0,), lowest=0.001, highest=0.002, lrs=2, seeds=(0,), d1=10, steps=50)
    assert (np.array(PHASES)[run_phase_unit(config.unit(3.0), CPU)["phase"].values] == "unsettled").all()


def test_a_sweep_that_is_stopped_makes_only_the_units_left_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sweep_phase(SMALL, tmp_path / "whole", CPU, progress=False)
    made = []

    def stops_at_the_second(unit: sim.sweep.PhaseUnit, device: torch.device) -> xr.Dataset:
        if len(made) == 1 and not (tmp_path / "resumed").exists():
            (tmp_path / "resumed").touch()
            raise KeyboardInterrupt
        made.append(unit.beta)
        return run_phase_unit(unit, device)

    monkeypatch.setattr(sim.sweep, "run_phase_unit", stops_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        sweep_phase(SMALL, tmp_path / "stopped", CPU, progress=False)
    again = sweep_phase(SMALL, tmp_path / "stopped", CPU, progress=False)
    assert made == [2.0, 3.0, 4.0]
    assert again.identical(whole)
    assert phase_table(again, SMALL.alpha) == phase_table(whole, SMALL.alpha)


@pytest.mark.slow
def test_a_sweep_that_is_killed_ends_with_the_same_table(tmp_path: Path) -> None:
    sizes = ["--betas", "2", "3", "4", "5", "6", "--lrs", "10", "--steps", "2000"]

    def command(runs: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "sim",
            "sweep",
            "phase",
            "--device",
            "cpu",
            *sizes,
            "--runs",
            str(tmp_path / runs),
        ]

    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    whole = subprocess.run(command("whole"), capture_output=True, text=True, env=environment, check=True)
    with subprocess.Popen(
        command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as p:
        while not list((tmp_path / "killed").glob("phase-*")) and p.poll() is None:
            time.sleep(0.01)
        p.send_signal(signal.SIGKILL)
    left = {f.name: (f / "environment.json").read_text() for f in (tmp_path / "killed").glob("phase-*")}
    assert 0 < len(left) < 5
    again = subprocess.run(command("killed"), capture_output=True, text=True, env=environment, check=True)
    assert again.stdout == whole.stdout
    assert all((tmp_path / "killed" / name / "environment.json").read_text() == text for name, text in left.items())


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"alpha": -1.0}, "--alpha is -1"),
        ({"highest": 0.1}, "--highest is 0.1"),
        ({"betas": ()}, "--betas is"),
        ({"betas": (1.0, 1.0)}, "--betas is"),
        ({"betas": (0.0,)}, "--betas is 0"),
        ({"seeds": (1, 1)}, "--seeds is"),
        ({"steps": 0}, "--steps is 0"),
    ],
)
def test_sweeps_that_cannot_be_are_refused(bad: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PhaseConfig(**bad)  # type: ignore[arg-type]
