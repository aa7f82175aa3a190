"""Runs that do not wait for one another, made at once in processes of their own, each with its share of the threads.

A step of a small network gains little from a second thread: two runs of one thread each end sooner than one after the
other of two threads. Every run goes to the store as ever, so the command that wanted them then reads them there, and a
command that was interrupted, with this or another number of jobs, goes on from what is finished. A run's bits depend
on its number of threads, which its environment tells.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.context import BaseContext
from multiprocessing.sharedctypes import Synchronized
from typing import Any, TypeVar

import torch

from sim.distributed import rank_count
from sim.progress import bar_lock, leave_bars, share_terminal, tell
from theory.command_line import InputError, require_positive
from validate.evidence import Store, near_flows
from validate.plan import PlannedRun, derive, finished_base
from validate.roles import ROLES, RunConfig, Setting

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class _Unit:
    """A run to be made, and what waits for it.

    Attributes:
        config: its configuration.
        base: configuration of the base run that it is derived from.
        cost: what it costs, in the same unit for all.
        waiting: runs of its seed that are derived from it, each with its cost.
        setting: of the network, to derive them by.
    """

    config: RunConfig
    base: RunConfig | None = None
    cost: float = 1.0
    waiting: tuple[tuple[PlannedRun, float], ...] = ()
    setting: Setting | None = None

    @property
    def whole_cost(self) -> float:
        """With what waits for it."""
        return self.cost + sum(cost for _, cost in self.waiting)


def jobs_for(device: torch.device, most: int) -> int:
    """As many jobs as there are threads on a CPU, up to a number; one on a GPU, and under torchrun."""
    return max(1, min(most, torch.get_num_threads())) if device.type == "cpu" and rank_count() == 1 else 1


def require_jobs(jobs: int) -> int:
    """The number of jobs; not one that is not positive, nor several under torchrun, whose ranks share the examples.

    Raises:
        InputError: as said.
    """
    require_positive("--jobs", jobs)
    if jobs > 1 and rank_count() > 1:
        raise InputError(f"--jobs is {jobs} under torchrun: give 1, or start the command without torchrun")
    return jobs


def make_ahead(
    store: Store,
    jobs: int,
    settings: Mapping[K, Setting],
    plans: Mapping[K, Sequence[PlannedRun]],
    gradient_seconds: Mapping[K, float] | None = None,
) -> tuple[Store, dict[K, list[PlannedRun]]]:
    """Makes the runs of several plans side by side, the longest first; nothing for one job.

    Args:
        store: where runs are kept and made.
        jobs: number of processes.
        settings: a network's, or a step size's, by any key.
        plans: of `validate.plan.make_plan`, by the same keys.
        gradient_seconds: seconds of a gradient by the same keys; the same for all when not given.

    Returns:
        The store and the plans with which `Store.train` then reads what is there, and makes nothing again.

    Raises:
        InputError: a run cannot be made, or a process was killed.
    """
    if jobs == 1:
        return store, {key: list(plan) for key, plan in plans.items()}
    units: list[_Unit] = []
    for key, plan in plans.items():
        scale = (gradient_seconds or {}).get(key) or 1.0  # 0 where none was missing, and all are forced
        units += _units(store, settings[key], plan, scale)
    _make_all(store, jobs, units)
    return replace(store, force=False), {key: [replace(r, exists=True) for r in plan] for key, plan in plans.items()}


def make_each_ahead(
    store: Store, jobs: int, configs: Sequence[RunConfig], bases: Sequence[RunConfig | None] | None = None
) -> Store:
    """Makes runs that do not wait for one another side by side; nothing for one job.

    Args:
        store: where runs are kept and made.
        jobs: number of processes.
        configs: the runs.
        bases: the finished base run that each is derived from, None for one that is derived from none.

    Returns:
        The store with which `Store.obtain` then reads them.
    """
    if jobs == 1:
        return store
    pairs = zip(configs, bases or [None] * len(configs), strict=True)
    units = {config.name: _Unit(config, base) for config, base in pairs if store.force or not store.has(config.name)}
    _make_all(store, jobs, list(units.values()))
    return replace(store, force=False)


def make_step_sizes_ahead(store: Store, jobs: int, settings: Iterable[Setting]) -> Store:
    """The same of the runs near gradient flow that choose the seeds' step sizes, for `Store.with_step_sizes`."""
    return make_each_ahead(store, jobs, [config for setting in settings for config in near_flows(setting)])


def _units(store: Store, setting: Setting, plan: Sequence[PlannedRun], scale: float) -> Iterator[_Unit]:
    """The runs of a plan that are to be made; those that a base run to be made is needed for wait for it."""
    missing = [run for run in plan if store.force or not run.exists]
    for seed in setting.seeds:
        own = [run for run in missing if run.seed == seed]
        derived = [run for run in own if ROLES[run.role].derive_from_run is not None]
        has_base = any(run.role == "base" for run in own)
        for run in own:
            waiting = tuple((d, d.gradients * scale) for d in derived) if run.role == "base" else ()
            if run in derived and has_base:
                continue
            assert run.config is not None
            base = setting.base(seed) if run in derived else None
            yield _Unit(run.config, base, run.gradients * scale, waiting, setting)


def _followers(store: Store, unit: _Unit) -> list[_Unit]:
    """What a finished base run's seed can go on with; nothing where it never crosses 2/η."""
    if not unit.waiting:
        return []
    assert unit.setting is not None
    base = finished_base(unit.config, store.runs)
    found = []
    for run, cost in unit.waiting:
        config = derive(run.role, unit.setting, run.seed, base)
        if config is not None and (store.force or not store.has(config.name)):
            found.append(_Unit(config, unit.config, cost))
    return found


def _make_all(store: Store, jobs: int, units: Sequence[_Unit]) -> None:
    """Makes the units and what follows from them: base runs first, then the longest, as many at once as jobs."""
    ready, running = list(units), dict[Future[None], _Unit]()
    left, done, begun, count = sum(unit.whole_cost for unit in units), 0.0, time.monotonic(), 0
    if not units:
        return
    tell(f"  {jobs} runs at once, {_threads(jobs)} threads each")
    with _pool(store, jobs) as pool:
        while ready or running:
            ready.sort(key=lambda unit: (bool(unit.waiting), unit.whole_cost), reverse=True)
            while ready and len(running) < jobs:
                unit = ready.pop(0)
                running[pool.submit(_make, unit.config, unit.base)] = unit
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                unit = running.pop(future)
                future.result()
                following = _followers(store, unit)
                ready += following
                left -= unit.whole_cost - sum(one.cost for one in following)
                done, count = done + unit.cost, count + 1
                minutes = (time.monotonic() - begun) / 60
                words = f"  {count} made, {len(ready) + len(running)} to make or in the making: {unit.config.name}"
                tell(f"{words}; {minutes:.0f} min done, about {minutes * left / done:.0f} min left")


@contextmanager
def _pool(store: Store, jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that make runs; they end with this one, at once where it is interrupted or fails."""
    context = _processes()
    options: tuple[Any, ...] = (store, _threads(jobs), context.Value("i", 0), bar_lock(context))
    pool = ProcessPoolExecutor(jobs, context, _begin, options)
    try:
        yield pool
    except BaseException as error:
        for process in multiprocessing.active_children():
            process.kill()  # a half-made run goes on from its last checkpoint
        pool.shutdown(cancel_futures=True)
        leave_bars(jobs)
        if isinstance(error, BrokenProcessPool):
            raise InputError(
                f"--jobs is {jobs}: a process that made a run was killed (memory?): give fewer; finished runs are kept"
            ) from None
        raise
    pool.shutdown()


def _processes() -> BaseContext:
    """Forked from a process that has imported this module and computed nothing: a moment each. Else, new ones.

    Not from this process: threads of torch do not survive a fork.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _threads(jobs: int) -> int:
    """Threads of each of so many processes."""
    return max(1, torch.get_num_threads() // jobs)


_store: Store
"""Of a process that makes runs."""


def _begin(store: Store, threads: int, number: Synchronized[int], lock: Any) -> None:
    """What each process does first."""
    global _store
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt reaches all; the first process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with number.get_lock():
        share_terminal(number.value, lock)
        number.value += 1
    _store = store


def _end_with_parent() -> None:
    """A parent that is killed cannot end its processes, and a run that they went on with would be locked."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make(config: RunConfig, base: RunConfig | None) -> None:
    of = None if base is None else finished_base(base, _store.runs)
    _store.obtain(config, of)
