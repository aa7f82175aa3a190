"""The run store: one folder a run, with its configuration, environment and trajectory. The only reader and writer.

    runs/<name>/config.json        the configuration that made the run
    runs/<name>/environment.json   versions, device, command, commit, times
    runs/<name>/trajectory.zarr    arrays with named dimensions, for `xarray.open_zarr`

A run is computed, written to a hidden folder beside its place, and renamed into it: a folder without a leading dot is a
finished run. Nothing read from disk can execute code.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from sim.device import describe_device
from theory.command_line import InputError


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        name: name of its folder.
        config: the configuration that made it, as plain values.
        environment: versions, device, command, commit, times.
        data: its trajectory; opened lazily.
    """

    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    data: xr.Dataset


def obtain_run(
    root: Path,
    name: str,
    config: object,
    compute: Callable[[], xr.Dataset],
    *,
    device: torch.device,
    force: bool = False,
) -> Run:
    """The run of that name: read if it is finished, else computed and stored.

    Args:
        root: folder that holds the runs.
        name: name of the run's folder.
        config: a dataclass instance, compared with a finished run's.
        compute: makes the trajectory.
        device: the device it is made on; kept with the configuration.
        force: computes again and replaces a finished run.

    Raises:
        InputError: the folder cannot be written, or the finished run has another configuration.
    """
    wanted = _plain({**_as_dict(config), "device": device.type})
    if (root / name).exists() and not force:
        run = read_run(root, name)
        if run.config != wanted:
            keys = [k for k in sorted({*wanted, *run.config}) if wanted.get(k) != run.config.get(k)]
            raise InputError(
                f"{root / name} was made with another configuration ({_difference(run.config, wanted, keys)}): "
                "give --force to replace it or --runs another folder"
            )
        return run
    require_writable(root)
    started = time.time()
    data = compute()
    _store(root, name, wanted, _environment(device, started), data)
    return read_run(root, name)


def read_run(root: Path, name: str, *, made_by: str = "python -m validate") -> Run:
    """Opens a finished run.

    Args:
        root: folder that holds the runs.
        name: name of the run's folder.
        made_by: the command that makes it, for the error's text.

    Raises:
        InputError: no such run, or its files are damaged.
    """
    folder = root / name
    if not folder.is_dir():
        raise InputError(f"there is no run {folder}: make it with {made_by}")
    try:
        config = json.loads((folder / "config.json").read_text())
        environment = json.loads((folder / "environment.json").read_text())
        data = xr.open_zarr(folder / "trajectory.zarr", consolidated=False)
        if sorted(data.attrs) != environment["attributes"]:
            raise ValueError("its attributes are not those the run wrote")
        for array, shape in environment["arrays"].items():
            if list(data[array].shape) != shape:
                raise ValueError(f"array {array} has another shape than the run wrote")
    except (OSError, ValueError, KeyError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"run {folder} is damaged ({what}): delete it and run {made_by} again") from None
    return Run(name, config, environment, data)


def list_runs(root: Path) -> list[str]:
    """Names of the finished runs below a folder, sorted; none where there is no folder."""
    if not root.is_dir():
        return []
    return sorted(p.name for p in root.iterdir() if (p / "config.json").is_file() and p.name[0] != ".")


def require_writable(root: Path) -> None:
    """Makes the folder and checks that files can be written to it, before anything long begins.

    Raises:
        InputError: it cannot be made or written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".probe-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"folder {root} cannot be written ({error.strerror}): give another one") from None


def _store(root: Path, name: str, config: dict[str, Any], environment: dict[str, Any], data: xr.Dataset) -> None:
    partial = root / f".{name}-{uuid.uuid4().hex}"
    try:
        partial.mkdir()
        # Zarr takes names of coordinates as variable-length text; fixed-length text is not in its format.
        data = data.assign_coords({k: v.astype(object) for k, v in data.coords.items() if v.dtype.kind == "U"})
        data.to_zarr(partial / "trajectory.zarr", consolidated=False, zarr_format=3)
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        environment["attributes"] = sorted(data.attrs)
        environment["arrays"] = {str(k): list(v.shape) for k, v in data.variables.items()}
        (partial / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
        if (root / name).exists():
            os.replace(root / name, old := root / f".{name}-old-{uuid.uuid4().hex}")
            os.replace(partial, root / name)
            shutil.rmtree(old)
        else:
            os.replace(partial, root / name)
    except OSError as error:
        raise InputError(
            f"run {root / name} cannot be written ({error.strerror}): give --runs another folder"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _environment(device: torch.device, started: float) -> dict[str, Any]:
    packages = ("torch", "numpy", "scipy", "xarray", "zarr")
    return {
        "command": " ".join(["python -m", Path(sys.argv[0]).parent.name or "?", *sys.argv[1:]]),
        "commit": _commit(),
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: metadata.version(name) for name in packages},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 2),
    }


def _commit() -> str:
    """Commit of the checkout that this file lies in, with a mark when files differ from it; empty without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _as_dict(config: object) -> dict[str, Any]:
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"a run's configuration is a dataclass instance, not {type(config).__name__}")
    return dataclasses.asdict(config)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as it comes back from JSON, so that the two compare."""
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain


def _difference(old: dict[str, Any], new: dict[str, Any], keys: list[str]) -> str:
    return ", ".join(f"{k}: {old.get(k)} there, {new.get(k)} wanted" for k in keys)
