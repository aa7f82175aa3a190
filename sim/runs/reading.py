"""Finished runs: their folder's files, checked and opened."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from sim.manifest import check_files
from sim.runs.checking import CheckedStore, damaged
from theory.command_line import InputError

CHECKED_BYTES = 1 << 26
"""Size of a trajectory up to which every checksum is checked when it is opened; of larger ones as they are read."""


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


def read_run(
    root: Path,
    name: str,
    *,
    config: object | None = None,
    made_by: str = "python -m validate",
    thorough: bool = False,
) -> Run:
    """Opens a finished run; the trajectory is read when it is used.

    The size of every file is checked, and the checksum of the metadata and, up to `CHECKED_BYTES`, of everything. In a
    larger trajectory each file is checked when it is read, which raises an `InputError` then.

    Args:
        root: folder that holds the runs.
        name: name of the run's folder.
        config: a dataclass instance that it must have been made with, on any device; not asked when not given.
        made_by: the command that makes it, for the error's text.
        thorough: checks every checksum, however large the run.

    Raises:
        InputError: no such run, its files are damaged, or it was made with another configuration.
    """
    require_name(name)
    folder = root / name
    if not folder.exists():
        raise InputError(f"there is no run {folder}: make it with {made_by}")
    require_replaceable(folder)
    try:
        there, environment, manifest = (read_object(folder / f"{part}.json") for part in _DESCRIPTIONS)
        if wrong := [key for key, kind in _TYPES.items() if not isinstance(environment.get(key), kind)]:
            raise ValueError(f"environment.json has no {wrong[0]}")
        trajectory = folder / "trajectory.zarr"
        checked = check_files(trajectory, manifest, CHECKED_BYTES, thorough)
        store = trajectory if checked else CheckedStore(trajectory, manifest)
        data = xr.open_zarr(store, consolidated=False, chunks=None)
    except PermissionError as error:
        raise InputError(f"run {folder} cannot be read ({error.strerror}): change its permissions") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise damaged(folder, what) from None
    if config is not None:
        wanted = plain({**fields_of(config), "device": there.get("device")})
        require_same(folder, "was made", there, wanted)
    return Run(name, there, environment, data)


def list_runs(root: Path) -> list[str]:
    """Names of the finished runs below a folder, sorted; none where there is no folder."""
    if not root.is_dir():
        return []
    return sorted(p.name for p in root.iterdir() if (p / "config.json").is_file() and p.name[0] != ".")


def require_name(name: str) -> None:
    """Refuses a name that is not one folder's in the store, or is hidden, as half-made runs are."""
    if not name or Path(name).name != name or name.startswith(".") or not name.isprintable():
        raise InputError(f"the run's name is {name!r}: give one word without / that does not begin with a dot")
    if (size := len(os.fsencode(name))) > LONGEST_NAME:
        raise InputError(f"the run's name has {size} bytes: give at most {LONGEST_NAME}")


_DESCRIPTIONS = ("config", "environment", "manifest")
_TYPES: dict[str, type | tuple[type, ...]] = {"command": str, "commit": str, "device": str, "seconds": (int, float)}
"""What readers take from a run's environment."""


def read_object(path: Path) -> dict[str, Any]:
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


def require_replaceable(place: Path) -> None:
    """Refuses to make a run where something else lies, which would be deleted."""
    if (place.exists() and not (place / "config.json").is_file()) or (place.is_symlink() and not place.exists()):
        raise InputError(f"{place} is there and holds no run: give another name or --runs another folder")


def require_same(place: Path, how: str, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses a run of another configuration, given as plain values; ``how`` says what it is, such as "was made"."""
    if there != wanted:
        keys = [k for k in sorted({*wanted, *there}) if wanted.get(k) != there.get(k)]
        raise InputError(
            f"{place} {how} with another configuration ({_difference(there, wanted, keys)}): "
            "give --force to replace it or --runs another folder"
        )


def fields_of(config: object) -> dict[str, Any]:
    """The configuration's fields, those of dataclasses in it too; ``revision`` with them where the config has one.

    A class whose runs have come to hold something else than before under the same fields says so by an attribute
    ``revision``, 2 or more, and what was made before is another configuration then.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"a run's configuration is a dataclass instance, not {type(config).__name__}")
    revision = getattr(config, "revision", 1)
    return dataclasses.asdict(config) | ({"revision": revision} if revision > 1 else {})


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as it comes back from JSON, so that the two compare."""
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain


def _difference(old: dict[str, Any], new: dict[str, Any], keys: list[str]) -> str:
    return ", ".join(f"{k}: {old.get(k)} there, {new.get(k)} wanted" for k in keys)
