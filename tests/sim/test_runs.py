"""The run store: finished runs are skipped, others refused or replaced, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from sim import list_runs, obtain_run, read_run
from sim.device import choose_device
from theory import InputError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Config:
    """A small configuration."""

    lr: float = 0.1
    sizes: tuple[int, ...] = (2, 3)


def _data(value: float = 1.0) -> xr.Dataset:
    data = xr.Dataset(coords={"layer": ["layer 1", "layer 2"]}, attrs={"diverged_at": -1})
    data["loss"] = ("step", "example"), np.full((4, 3), value, dtype=np.float32)
    data["share"] = ("step", "layer"), np.full((4, 2), value)
    return data


def test_a_run_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    run = obtain_run(tmp_path, "a", Config(), _data, device=CPU)
    assert run.data["loss"].dims == ("step", "example")
    assert run.data["loss"].dtype == np.float32
    assert run.data["layer"].values.tolist() == ["layer 1", "layer 2"]
    assert run.config == {"lr": 0.1, "sizes": [2, 3], "device": "cpu"}
    assert run.environment["versions"]["torch"] == torch.__version__
    assert run.environment["threads"] == torch.get_num_threads()
    opened = xr.open_zarr(tmp_path / "a" / "trajectory.zarr", consolidated=False)
    xr.testing.assert_identical(opened.load(), run.data.load())
    assert list_runs(tmp_path) == ["a"]


def test_a_finished_run_is_not_made_again_unless_forced(tmp_path: Path) -> None:
    obtain_run(tmp_path, "a", Config(), _data, device=CPU)

    def never() -> xr.Dataset:
        raise AssertionError("made again")

    obtain_run(tmp_path, "a", Config(), never, device=CPU)
    again = obtain_run(tmp_path, "a", Config(), lambda: _data(2.0), device=CPU, force=True)
    assert float(again.data["loss"][0, 0]) == 2.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_a_run_of_another_configuration_is_refused_and_named(tmp_path: Path) -> None:
    obtain_run(tmp_path, "a", Config(), _data, device=CPU)
    with pytest.raises(InputError, match=r"lr: 0\.1 there, 0\.2 wanted.*--force") as caught:
        obtain_run(tmp_path, "a", Config(lr=0.2), _data, device=CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_run_leaves_nothing_and_the_finished_one_stays(tmp_path: Path, error: type[BaseException]) -> None:
    obtain_run(tmp_path, "a", Config(), _data, device=CPU)

    def fails() -> xr.Dataset:
        raise error

    for name in ("a", "b"):
        with pytest.raises(error):
            obtain_run(tmp_path, name, Config(), fails, device=CPU, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]
    assert float(read_run(tmp_path, "a").data["loss"][0, 0]) == 1.0


def test_a_missing_run_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make it with python -m validate"):
        read_run(tmp_path, "a")


@pytest.mark.parametrize("damage", ["config", "zarr", "array"])
def test_a_damaged_run_is_said_to_be_damaged(tmp_path: Path, damage: str) -> None:
    obtain_run(tmp_path, "a", Config(), _data, device=CPU)
    if damage == "config":
        (tmp_path / "a" / "config.json").write_text("{")
    elif damage == "zarr":
        (tmp_path / "a" / "trajectory.zarr" / "zarr.json").write_text(json.dumps({}))
    else:
        shutil.rmtree(tmp_path / "a" / "trajectory.zarr" / "loss")
    with pytest.raises(InputError, match="is damaged") as caught:
        read_run(tmp_path, "a")
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")

    def never() -> xr.Dataset:
        raise AssertionError("computed")

    with pytest.raises(InputError, match="cannot be written"):
        obtain_run(blocked / "runs", "a", Config(), never, device=CPU)
    assert os.listdir(tmp_path) == ["file"]


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="--device is nonsense"):
        choose_device("nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device is cuda"):
            choose_device("cuda")
        assert choose_device("auto").type == "cpu"
