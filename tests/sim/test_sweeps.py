"""What every sweep shares: finished units are read, and a sweep that was stopped or killed ends with the same table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import xarray as xr

from sim.runs import list_runs
from sim.sweeps import PhaseConfig, make_sweep
from sim.sweeps.phase import PhaseUnit

CPU = torch.device("cpu")
SMALL = PhaseConfig(betas=(2.0, 3.0, 4.0), lrs=4, seeds=(0, 1), d1=5, steps=400)
UNITS = "phase-units"


def test_a_sweep_that_is_stopped_makes_only_the_units_left_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_sweep(SMALL, tmp_path / "whole", CPU, progress=False)
    run, made = PhaseUnit.run, []

    def stops_at_the_second(unit: PhaseUnit, device: torch.device) -> xr.Dataset:
        if len(made) == 1 and not (tmp_path / "resumed").exists():
            (tmp_path / "resumed").touch()
            raise KeyboardInterrupt
        made.append(unit.beta)
        return run(unit, device)

    monkeypatch.setattr(PhaseUnit, "run", stops_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        make_sweep(SMALL, tmp_path / "stopped", CPU, progress=False)
    assert list_runs(tmp_path / "stopped") == []
    again = make_sweep(SMALL, tmp_path / "stopped", CPU, progress=False)
    assert made == [2.0, 3.0, 4.0]
    assert again.identical(whole)
    assert SMALL.table(again) == SMALL.table(whole)
