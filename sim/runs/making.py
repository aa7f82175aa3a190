"""Runs made, gone on with and put in their place; several ranks together."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from sim.checkpoints import CHECKPOINT_SECONDS, Checkpoints
from sim.device import describe_device
from sim.distributed import first_only, rank, rank_count
from sim.durable_files import synchronise, write_durably, writing
from sim.manifest import describe_files
from sim.record import Record
from sim.replicas import follow, lead
from sim.run_lock import run_lock
from sim.runs.environment import current_commit, environment_of
from sim.runs.reading import (
    Run,
    fields_of,
    plain,
    read_object,
    read_run,
    require_name,
    require_replaceable,
    require_same,
)
from theory.command_line import InputError

Compute = Callable[["RunInProgress"], xr.Dataset]


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
    require_name(name)
    wanted = plain({**fields_of(config), "device": device.type})
    place, partial = root / name, root / f".{name}.partial"
    if place.exists() and not force:
        _tidy(root, name)
        return _finished(root, name, wanted)
    require_writable(root)
    require_replaceable(place)
    with run_lock(root, name):
        _put_back_replaced(root, name)
        if place.exists() and not force:  # another process finished it meanwhile
            return _finished(root, name, wanted)
        started = time.time()
        with writing(place):
            checkpoints = _begin(place, partial, wanted, device, force, checkpoint_seconds)
            record = Record(partial / "trajectory.zarr", run=place, replace=True)  # where all checkpoints are damaged
        try:
            data = compute(RunInProgress(record, checkpoints))
            with writing(place):
                environment = {**environment_of(device, started), "seconds": round(checkpoints.seconds, 2)}
                _finish(partial, {**environment, "resumed_at": checkpoints.resumed_at}, data, record)
                _move_into_place(partial, root, name)
        finally:
            if partial.exists() and not checkpoints.exist:
                _remove_failed(partial)
    return read_run(root, name)


def _read_with_others(root: Path, name: str) -> Run:
    """Reads the run that the first rank has made."""
    if not (root / name).exists():
        raise InputError(
            f"rank {rank()} does not see the run {root / name} of rank 0: give --runs a folder of all ranks"
        )
    return read_run(root, name)


def _finished(root: Path, name: str, wanted: dict[str, Any]) -> Run:
    run = read_run(root, name)
    require_same(root / name, "was made", run.config, wanted)
    return run


def _tidy(root: Path, name: str) -> None:
    """Removes what is left where a process was killed just before its end; not while another one makes the run."""
    left = (root / f".{name}.replaced", root / f".{name}.lock", root / name / "checkpoints")
    if any(path.exists() for path in left):
        with suppress(InputError, OSError), run_lock(root, name):
            _put_back_replaced(root, name)
            shutil.rmtree(root / name / "checkpoints", ignore_errors=True)


def _begin(
    place: Path, partial: Path, wanted: dict[str, Any], device: torch.device, force: bool, every_seconds: float
) -> Checkpoints:
    """The checkpoints of the half-made run if it can go on, else those of a folder made anew."""
    circumstances = {"device": describe_device(device), "torch": str(torch.__version__), "commit": current_commit()}
    circumstances["ranks"] = str(rank_count())
    checkpoints = Checkpoints(place, partial / "checkpoints", circumstances, every_seconds, at_end=False)
    if checkpoints.exist and not force:
        try:
            there = read_object(partial / "config.json")
        except (OSError, ValueError):
            raise InputError(f"{partial / 'config.json'} is damaged: give --force to make the run anew") from None
        require_same(place, "is half made", there, wanted)
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
