"""Reads from the run store what figures draw from."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from paper_figs.entry import FigureEntry
from paper_figs.runs import Runs
from paper_figs.sources import Sources, StoredRun, finished_run, outdated
from sim.runs import Run, read_run
from theory.command_line import InputError


@dataclass(frozen=True)
class Read:
    """Runs as figures take them, and where they came from.

    Attributes:
        runs: what figures draw from.
        behind: the store's runs behind each need that was found.
    """

    runs: Runs
    behind: Mapping[str, Sequence[Run]]

    def behind_figure(self, entry: FigureEntry) -> list[Run]:
        """The store's runs behind one figure, each once, in the order of its needs."""
        found = [run for need in (*entry.needs, *entry.optional) for run in self.behind.get(need, ())]
        return list({run.name: run for run in found}.values())


KINDS = {"network": "sharpness_iterate", "two_layer": "descent_sharpness"}
"""What tells a network's run, and the two-layer network's, from others."""


def read_needs(sources: Sources, entries: Iterable[FigureEntry], named: Mapping[str, str] | None = None) -> Read:
    """Reads everything that some figures need, and of what they add where they can, what is there.

    Args:
        sources: the preset's runs and the store.
        entries: the figures.
        named: name of the run to take for a need in place of the preset's.

    Raises:
        InputError: a needed run is not there or damaged; the message says what makes it.
    """
    entries, named = list(entries), named or {}
    needed = dict.fromkeys(need for entry in entries for need in entry.needs)
    wished = dict.fromkeys(need for entry in entries for need in entry.optional)
    for need, name in named.items():
        if need not in {**needed, **wished}:
            option = f"--{need.replace('_', '-')}"
            raise InputError(f"{option} is {name}: {', '.join(e.name for e in entries)} does not draw from it")
    lacking = [
        e.name for e in entries if not all(sources.has(run) for need in e.needs for run in sources.of(need) or ())
    ]
    lacking = lacking or [e.name for e in entries]
    made_by = f"python -m paper_figs make {' '.join(lacking)} --preset {sources.preset}"
    made_by += f" --runs {shlex.quote(str(sources.runs))}"
    made_by += " (all --only-draw draws what is there)" if len(entries) > 1 else ""
    behind: dict[str, list[Run]] = {}
    for need in {**needed, **wished}:
        if need == "images":
            continue
        found = (finished_run(named[need]),) if need in named else sources.of(need)
        if need not in needed and not (found and all(map(sources.has, found))):
            continue
        if found is None:
            raise InputError(f"preset {sources.preset} has no runs for {need}: give another --preset")
        makes = f"another command, or give another --{need.replace('_', '-')}" if need in named else made_by
        behind[need] = [_read(sources, run, makes) for run in found]
    for need, name in named.items():
        if need in behind and KINDS[need] not in behind[need][0].data:
            raise InputError(
                f"--{need.replace('_', '-')} is {name}, which is another kind of run: it has no {KINDS[need]}"
            )
    if "network" in named and "network" in behind:
        _require_plain_descent(behind["network"][0])
    loaded: dict[str, Any] = {need: tuple(_load(run) for run in found) for need, found in behind.items()}

    def of_kind(kind: str) -> dict[str, Any]:
        return {name: data for need, data in loaded.items() for of, _, name in [need.partition(".")] if of == kind}

    runs = Runs(
        network=loaded["network"][0] if "network" in loaded else None,
        two_layer=loaded["two_layer"][0] if "two_layer" in loaded else None,
        two_layer_config=behind["two_layer"][0].config if "two_layer" in behind else None,
        images=sources.images() if "images" in needed else None,
        networks=of_kind("networks"),
        sweeps={name: data for name, (data,) in of_kind("sweeps").items()},
        predictions=of_kind("predictions"),
        valleys=of_kind("valleys"),
    )
    return Read(runs, behind)


def _require_plain_descent(run: Run) -> None:
    """Refuses a named run that captions would describe as what it is not.

    Raises:
        InputError: it is of another rule than gradient descent on all examples alike.
    """
    rule, batches = run.config.get("optimizer", {}).get("kind", "gd"), run.config.get("batches", {})
    other = rule != "gd" or run.config.get("intervention") is not None or batches.get("size") is not None
    if other or run.config.get("start_step", 0):
        raise InputError(
            f"--network is {run.name}, which is not full-batch gradient descent on all its images from the seed: "
            "give a base run"
        )


def _load(run: Run) -> xr.Dataset:
    """A run without its snapshots, which are large and which no figure draws."""
    return run.data.drop_vars("snapshot", errors="ignore").load()


def _read(sources: Sources, of: StoredRun, made_by: str) -> Run:
    run = read_run(sources.runs, of.name, made_by=made_by)
    if outdated(sources.runs, of.name, of.revision):
        raise InputError(f"run {sources.runs / of.name} holds what it held before: make it again with {made_by}")
    return run
