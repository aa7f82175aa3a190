"""Two processes that work as torchrun's ranks do, and what tests have them do; imported by the processes it forks."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr

from sim import distributed, obtain_run

torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)  # imports what else each process would import for itself


@dataclass(frozen=True)
class Outcome:
    """What a rank gives back: its function's value, or the error that ended it; and the process's exit status."""

    value: Any
    error: str
    status: int | None


def on_ranks(function: Callable[..., Any], *arguments: Any, count: int = 2) -> list[Outcome]:
    """Calls a function of this module on every rank, with torchrun's variables; waits at most a minute."""
    context = _context()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    ranks = [
        context.Process(target=_rank, args=(pipe[1], number, count, port, function, arguments))
        for number, pipe in enumerate(pipes)
    ]
    for process in ranks:
        process.start()
    outcomes = []
    for process, (receive, send) in zip(ranks, pipes, strict=True):
        send.close()
        value, error = None, "killed"
        if receive.poll(60):
            try:
                value, error = receive.recv()
            except EOFError:
                pass
        process.join(60)
        outcomes.append(Outcome(value, error, process.exitcode))
    for process in ranks:
        if process.is_alive():
            process.kill()
    return outcomes


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ranks"])
    with pytest.MonkeyPatch.context() as patch:
        # The server imports before it is told this process's path.
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        forkserver.ensure_running()
    return context


def _rank(send: Any, number: int, count: int, port: int, function: Callable[..., Any], arguments: Any) -> None:
    names = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()} | {"TORCHELASTIC_RUN_ID": "test"}
    torch.set_num_threads(1)
    try:
        with distributed.processes():
            send.send((function(*arguments), ""))
    except Exception as error:
        traceback.print_exc()
        send.send((None, f"{type(error).__name__}: {error}"))


# What the ranks do.


@dataclass(frozen=True)
class Number:
    """The configuration of a run that says who made it."""

    number: int


def share_units(root: Path, failing: int = -1) -> tuple[list[int], list[int], list[int]]:
    """Makes a sweep of five units; the numbers of its own, all the data, and who made each."""
    device, units = torch.device("cpu"), [Number(i) for i in range(5)]

    def obtain(unit: Number) -> xr.Dataset:
        def compute() -> xr.Dataset:
            if unit.number == failing:
                raise ValueError(f"unit {failing} fails\nfor a reason")
            assert distributed.rank_count() == 1
            total = torch.ones(3)
            distributed.sum_over_ranks([total])
            return xr.Dataset({"value": unit.number**2 * float(total[0]), "maker": os.getpid()})

        return obtain_run(root, f"unit-{unit.number}", unit, compute, device=device).data.load()

    with distributed.sharing(units) as mine:
        for unit in mine:
            obtain(unit)
    data = [obtain(unit) for unit in units]
    return [unit.number for unit in mine], [int(d["value"]) for d in data], [int(d["maker"]) for d in data]


def sums() -> list[Any]:
    """Sums, words and order of the ranks."""
    me = distributed.rank()
    tensors = [torch.full((2, 3), 1.0 + me), torch.arange(4.0).reshape(2, 2).T * (1 + me)]
    distributed.sum_over_ranks(tensors)
    with distributed.alone():
        inside = distributed.rank(), distributed.rank_count()
    return [
        me,
        distributed.rank_count(),
        distributed.is_first(),
        [t.tolist() for t in tensors],
        distributed.from_first({"rank": me, "tensor": torch.tensor(me)})["tensor"].item(),
        inside,
        [p if isinstance(p, slice) else p.tolist() for p in distributed.own_pieces([slice(0, 5), torch.arange(5, 6)])],
        [distributed.own_pieces([slice(0, 5), slice(5, 6), slice(6, 7)], whole=True)],
    ]


def lose_the_other() -> None:
    """The second rank ends without a word, and the first waits for it."""
    if distributed.rank() == 1:
        os._exit(9)
    distributed.wait_for_all()
