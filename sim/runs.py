"""The run store: one folder a run, with its configuration, environment and trajectory. The only reader and writer.

    runs/<name>/config.json        the configuration that made the run
    runs/<name>/environment.json   versions, device, command, commit, times
    runs/<name>/trajectory.zarr    arrays with named dimensions, for `xarray.open_zarr`
    runs/<name>/manifest.json      size and SHA-256 of the trajectory's files

A run is made in the hidden folder ``.<name>.partial`` beside its place and renamed into it: a folder without a leading
dot is a finished run. One that records its steps and takes checkpoints goes on from the last of them, to the same bits,
when its process is killed. Nothing read from disk can execute code.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from sim.checkpoints import CHECKPOINT_SECONDS, Checkpoints
from sim.device import describe_device
from sim.distributed import first_only, rank, rank_count
from sim.durable_files import synchronise, write_durably, writing
from sim.manifest import check_files, describe_files
from sim.record import Record
from sim.replicas import follow, lead
from sim.run_lock import run_lock
from theory.command_line import InputError

Compute = Callable[["RunInProgress"], xr.Dataset]

CHECKED_BYTES = 1 << 26
"""Size of a trajectory up to which every checksum is checked when it is opened."""


LONGEST_NAME = 255 - len("..replaced")
"""Bytes of a run's name: file systems take 255, and the store puts words around it."""


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


@dataclass(frozen=True)
class RunInProgress:
    """What a run is given to record its steps with, and to go on from.

    Attributes:
        record: columns that go to the run's trajectory chunk by chunk.
        checkpoints: states to go on from; none yet when the run begins.
    """

    record: Record
    checkpoints: Checkpoints


def obtain_run(
    root: Path,
    name: str,
    config: object,
    compute: Callable[[], xr.Dataset],
    *,
    device: torch.device,
    force: bool = False,
) -> Run:
    """The run of that name: read if it is finished, else computed in one go and stored.

    Of several ranks, the first computes it by itself; see `obtain_resumable_run`.

    Args:
        root: folder that holds the runs.
        name: name of the run's folder.
        config: a dataclass instance, compared with a finished run's.
        compute: makes the trajectory.
        device: the device it is made on; kept with the configuration.
        force: computes again and replaces a finished run.

    Raises:
        InputError: the folder cannot be written, another process makes the run, or it is there with another
            configuration.
    """
    return obtain_resumable_run(root, name, config, lambda _: compute(), device=device, force=force, together=False)


def obtain_resumable_run(
    root: Path,
    name: str,
    config: object,
    compute: Callable[[RunInProgress], xr.Dataset],
    *,
    device: torch.device,
    force: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    together: bool = True,
) -> Run:
    """The run of that name: read if it is finished, continued if it is half made, else made from the start.

    Several ranks make it together: each calls `compute`, and what it returns on the first is stored; or the first makes
    it by itself while the others wait. Inside `sim.distributed.sharing`, each rank obtains its own runs.

    Args:
        root: folder that holds the runs.
        name: name of the run's folder.
        config: a dataclass instance, compared with that of a finished or half-made run.
        compute: makes the trajectory; `sim.descend` and `sim.run_two_layer` take the record and the checkpoints it is
            given. It returns the record's columns and whatever else belongs to the run.
        device: the device it is made on; kept with the configuration.
        force: makes the run from the start and replaces a finished or half-made one.
        checkpoint_seconds: seconds between checkpoints.
        together: whether several ranks make it together.

    Raises:
        InputError: the folder cannot be written, another process makes the run, or it is there with another
            configuration.
    """
    if rank_count() == 1:
        return _obtain(root, name, config, compute, device, force, checkpoint_seconds)
    if not together:
        first_only(lambda: _obtain(root, name, config, compute, device, force, checkpoint_seconds))
        return _read_with_others(root, name)
    if rank() == 0:
        return lead(
            compute, lambda announced: _obtain(root, name, config, announced, device, force, checkpoint_seconds)
        )
    follow(lambda record, checkpoints: compute(RunInProgress(record, checkpoints)))
    return _read_with_others(root, name)


def read_run(
    root: Path,
    name: str,
    *,
    config: object | None = None,
    made_by: str = "python -m validate",
    thorough: bool = False,
) -> Run:
    """Opens a finished run; the trajectory is read when it is used.

    The size of every file is checked, and the checksum of the metadata and, up to `CHECKED_BYTES`, of everything.

    Args:
        root: folder that holds the runs.
        name: name of the run's folder.
        config: a dataclass instance that it must have been made with, on any device; not asked when not given.
        made_by: the command that makes it, for the error's text.
        thorough: checks every checksum, however large the run.

    Raises:
        InputError: no such run, its files are damaged, or it was made with another configuration.
    """
    _require_name(name)
    folder = root / name
    if not folder.exists():
        raise InputError(f"there is no run {folder}: make it with {made_by}")
    _require_replaceable(folder)
    try:
        there, environment, manifest = (_read_json(folder / f"{part}.json") for part in _DESCRIPTIONS)
        if wrong := [key for key, kind in _TYPES.items() if not isinstance(environment.get(key), kind)]:
            raise ValueError(f"environment.json has no {wrong[0]}")
        check_files(folder / "trajectory.zarr", manifest, CHECKED_BYTES, thorough)
        data = xr.open_zarr(folder / "trajectory.zarr", consolidated=False, chunks=None)
    except PermissionError as error:
        raise InputError(f"run {folder} cannot be read ({error.strerror}): change its permissions") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"run {folder} is damaged ({what}): delete it and make it again") from None
    if config is not None:
        wanted = _plain({**_as_dict(config), "device": there.get("device")})
        _require_same(folder, "was made", there, wanted)
    return Run(name, there, environment, data)


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
        # A file without a name, where the system has them: a kill between its making and its end leaves nothing.
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise InputError(f"folder {root} cannot be written ({error.strerror}): give another one") from None


def _obtain(
    root: Path,
    name: str,
    config: object,
    compute: Compute,
    device: torch.device,
    force: bool,
    checkpoint_seconds: float,
) -> Run:
    _require_name(name)
    wanted = _plain({**_as_dict(config), "device": device.type})
    place, partial = root / name, root / f".{name}.partial"
    if place.exists() and not force:
        _tidy(root, name)
        return _finished(root, name, wanted)
    require_writable(root)
    _require_replaceable(place)
    with run_lock(root, name):
        _put_back_replaced(root, name)
        if place.exists() and not force:  # another process finished it meanwhile
            return _finished(root, name, wanted)
        started = time.time()
        with writing(place):
            checkpoints = _begin(place, partial, wanted, device, force, checkpoint_seconds)
            record = Record(partial / "trajectory.zarr", run=place)
        try:
            data = compute(RunInProgress(record, checkpoints))
            with writing(place):
                environment = {**_environment(device, started), "seconds": round(checkpoints.seconds, 2)}
                _finish(partial, {**environment, "resumed_at": checkpoints.resumed_at}, data, record)
                _move_into_place(partial, root, name)
        finally:
            if partial.exists() and not checkpoints.exist:
                _remove_failed(partial)
    return read_run(root, name)


def _require_name(name: str) -> None:
    """Refuses a name that is not one folder's in the store, or is hidden, as half-made runs are."""
    if not name or Path(name).name != name or name.startswith(".") or not name.isprintable():
        raise InputError(f"the run's name is {name!r}: give one word without / that does not begin with a dot")
    if (size := len(os.fsencode(name))) > LONGEST_NAME:
        raise InputError(f"the run's name has {size} bytes: give at most {LONGEST_NAME}")


_DESCRIPTIONS = ("config", "environment", "manifest")
_TYPES: dict[str, type | tuple[type, ...]] = {"command": str, "commit": str, "device": str, "seconds": (int, float)}
"""What readers take from a run's environment."""


def _read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file.

    Raises:
        ValueError: it holds something else.
    """
    try:
        values = json.loads(path.read_text())
    except RecursionError:
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} holds no object")
    return values


def _require_replaceable(place: Path) -> None:
    """Refuses to make a run where something else lies, which would be deleted."""
    if (place.exists() and not (place / "config.json").is_file()) or (place.is_symlink() and not place.exists()):
        raise InputError(f"{place} is there and holds no run: give another name or --runs another folder")


def _read_with_others(root: Path, name: str) -> Run:
    """Reads the run that the first rank has made."""
    if not (root / name).exists():
        raise InputError(
            f"rank {rank()} does not see the run {root / name} of rank 0: give --runs a folder of all ranks"
        )
    return read_run(root, name)


def _finished(root: Path, name: str, wanted: dict[str, Any]) -> Run:
    run = read_run(root, name)
    _require_same(root / name, "was made", run.config, wanted)
    return run


def _tidy(root: Path, name: str) -> None:
    """Removes what is left where a process was killed just before its end; not while another one makes the run."""
    left = (root / f".{name}.replaced", root / f".{name}.lock", root / name / "checkpoints")
    if any(path.exists() for path in left):
        with suppress(InputError, OSError), run_lock(root, name):
            _put_back_replaced(root, name)
            shutil.rmtree(root / name / "checkpoints", ignore_errors=True)


def _require_same(place: Path, how: str, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    if there != wanted:
        keys = [k for k in sorted({*wanted, *there}) if wanted.get(k) != there.get(k)]
        raise InputError(
            f"{place} {how} with another configuration ({_difference(there, wanted, keys)}): "
            "give --force to replace it or --runs another folder"
        )


def _begin(
    place: Path, partial: Path, wanted: dict[str, Any], device: torch.device, force: bool, every_seconds: float
) -> Checkpoints:
    """The checkpoints of the half-made run if it can go on, else those of a folder made anew."""
    circumstances = {"device": describe_device(device), "torch": str(torch.__version__), "commit": _commit()}
    circumstances["ranks"] = str(rank_count())
    checkpoints = Checkpoints(place, partial / "checkpoints", circumstances, every_seconds)
    if checkpoints.exist and not force:
        try:
            there = _read_json(partial / "config.json")
        except (OSError, ValueError):
            raise InputError(f"{partial / 'config.json'} is damaged: give --force to make the run anew") from None
        _require_same(place, "is half made", there, wanted)
        return checkpoints
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write_durably(partial / "config.json", _json(wanted))
    return checkpoints


def _finish(partial: Path, environment: dict[str, Any], data: xr.Dataset, record: Record) -> None:
    """Writes what the record has not, the environment and the manifest, and forces all of it to the disk."""
    trajectory = partial / "trajectory.zarr"
    for other in trajectory.iterdir():  # of an end that was cut short
        if other.name not in (*record.names, "zarr.json"):
            shutil.rmtree(other) if other.is_dir() else other.unlink()
    data = data.drop_vars(record.names)
    # Zarr takes names of coordinates as variable-length text; fixed-length text is not in its format.
    data = data.assign_coords({k: v.astype(object) for k, v in data.coords.items() if v.dtype.kind == "U"})
    data.to_zarr(trajectory, mode="a", consolidated=False, zarr_format=3)
    for stray in [*trajectory.rglob("*.partial"), *partial.glob(".*.partial")]:  # of a process that was killed
        stray.unlink()
    files = [path for path in trajectory.rglob("*") if path.is_file()]
    synchronise([*files, *{path.parent for path in files}])
    write_durably(partial / "environment.json", _json(environment))
    write_durably(partial / "manifest.json", _json(describe_files(trajectory)))


def _move_into_place(partial: Path, root: Path, name: str) -> None:
    """Replaces a run of that name; if the process is killed in between, `_put_back_replaced` mends it."""
    place, replaced = root / name, root / f".{name}.replaced"
    if place.exists():
        os.replace(place, replaced)
    os.replace(partial, place)
    synchronise([root])
    _remove(replaced)
    shutil.rmtree(place / "checkpoints", ignore_errors=True)


def _put_back_replaced(root: Path, name: str) -> None:
    place, replaced = root / name, root / f".{name}.replaced"
    if replaced.exists() and not place.exists():
        os.replace(replaced, place)
    _remove(replaced)


def _remove_failed(partial: Path) -> None:
    """Removes what a failed end has written; Zarr's other threads may be about to write, and make the folder again."""
    gone = 0
    for _ in range(20):
        shutil.rmtree(partial, ignore_errors=True)
        time.sleep(0.02)
        gone = 0 if partial.exists() else gone + 1
        if gone == 2:
            return


def _remove(place: Path) -> None:
    """Removes a run's folder, or the link that stood for one."""
    if place.is_symlink():
        place.unlink()
    else:
        shutil.rmtree(place, ignore_errors=True)


def _json(values: object) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def _environment(device: torch.device, started: float) -> dict[str, Any]:
    packages = ("torch", "numpy", "scipy", "xarray", "zarr")
    return {
        "command": f"python -m {Path(sys.argv[0]).parent.name or '?'} {shlex.join(sys.argv[1:])}".rstrip(),
        "commit": _commit(),
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "ranks": rank_count(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: metadata.version(name) for name in packages},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
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
