"""Two processes that work as torchrun's ranks do, and what tests have them do; imported by the processes it forks."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from forked import forking_from

from sim import (
    Batches,
    Record,
    RunInProgress,
    SharpnessProbe,
    descend,
    distributed,
    mlp,
    obtain_resumable_run,
    obtain_run,
)
from sim.losses import LossRule
from sim.opposing_data import OpposingLaw, draw_examples
from sim.optimizers import SAM
from sim.second_moments import sample_moments
from sim.sweeps import PhaseConfig, make_sweep
from theory import Model

torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)  # imports what else each process would import for itself


@dataclass(frozen=True)
class Outcome:
    """What a rank gives back: its function's value, or the error that ended it; and the process's exit status."""

    value: Any
    error: str
    status: int | None


def on_ranks(function: Callable[..., Any], *arguments: Any, count: int = 2) -> list[Outcome]:
    """Calls a function of this module on every rank, with torchrun's variables; waits at most a minute."""
    context = forking_from("ranks")
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
            with contextlib.suppress(EOFError):
                value, error = receive.recv()
        process.join(60)
        outcomes.append(Outcome(value, error, process.exitcode))
    for process in ranks:
        if process.is_alive():
            process.kill()
    return outcomes


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
    obtain(Number(5))  # what comes after, such as a table, is made by the first rank alone
    data = [obtain(unit) for unit in [*units, Number(5)]]
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
    distributed.wait_for_all()
    if distributed.rank() == 1:
        os._exit(9)
    distributed.wait_for_all()


def moments(count: int) -> dict[str, list[Any]]:
    """Sums over the chunks of a sample, of every group."""
    model, law = Model([8.0, 5.0], [-1.0, 0.5, 1.5], [0.3, 0.6, 1.0]), OpposingLaw(plus_share=0.7, noise=0.3)
    chunks = draw_examples(model, count, [0.2, 0.1], 5, torch.device("cpu"), law, source="counters", over_ranks=True)
    result = sample_moments(chunks, over_ranks=True)
    return {name: [m.gram.tolist(), m.cross.tolist(), float(m.square)] for name, m in result.items()}


@dataclass(frozen=True)
class LossOfOrder(LossRule):
    """A loss that depends on the place of an example among all."""

    divides = False

    def __call__(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(31,) losses."""
        assert len(outputs) == 31
        return super().__call__(outputs, labels) * torch.arange(31)


@dataclass(frozen=True)
class Training:
    """A small run of descent, so that each way of dividing a step has one."""

    batches: Batches = field(default_factory=Batches)
    optimizer: str = "gd"
    weighted: bool = False
    norm: bool = False
    loss: LossRule = field(default_factory=LossRule)
    lr: float = 0.3
    steps: int = 30


OPTIMIZERS: dict[str, Any] = {
    "gd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "sam": functools.partial(SAM, radius=0.1),
}


def train(case: Training, run: RunInProgress | None = None) -> xr.Dataset:
    """Trains a network in float64 with a probe; every loss, the measurements and the final weights."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(31, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (31,), generator=generator)
    weights = torch.rand(31, generator=generator) if case.weighted else None
    network = mlp([6, 8, 3], "gelu", seed=5)
    if case.norm:
        network.insert(1, torch.nn.BatchNorm1d(8))
    network = network.double()
    record = Record() if run is None else run.record
    options: dict[str, Any] = {"loss": case.loss, "example_weights": weights, "batches": case.batches}
    probe = SharpnessProbe(network, x, y, case.lr, every=5, blocks_every=10, tolerance=1e-7, record=record, **options)
    descent = descend(
        network,
        x,
        y,
        lr=case.lr,
        steps=case.steps,
        optimizer=OPTIMIZERS[case.optimizer],
        probes=[probe],
        record=record,
        checkpoints=None if run is None else run.checkpoints,
        progress=False,
        **options,
    )
    data = descent.data
    data["final_parameters"] = "parameter", torch.cat([p.detach().flatten() for p in network.parameters()]).numpy()
    data.attrs["diverged_at"] = -1 if descent.diverged_at is None else descent.diverged_at
    return data


def train_beside_what_is_unused(count: int) -> float:
    """Length of a parameter of length 1 that the loss does not use, after steps with weight decay on so many images."""
    network = mlp([6, 8, 3], "gelu", seed=5)
    network.register_parameter("unused", torch.nn.Parameter(torch.ones(1)))
    x, y = torch.randn(count, 6, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 3
    decaying = functools.partial(torch.optim.SGD, weight_decay=0.1)
    descend(network, x, y, lr=0.3, steps=5, optimizer=decaying, progress=False)
    return float(network.unused.detach().norm())


def train_and_load(case: Training) -> dict[str, Any]:
    """The columns of a run in memory."""
    data = train(case)
    return {name: np.asarray(data[name]) for name in data.variables} | data.attrs


def obtain_training(root: Path, case: Training, ends: bool = False) -> dict[str, Any]:
    """The columns of a run of the store; where it `ends`, both processes are gone in the midst of it."""

    def compute(run: RunInProgress) -> xr.Dataset:
        if ends:
            save, taken = run.checkpoints.save, itertools.count(1)

            def save_and_end(step: int, state: Any) -> None:
                save(step, state)
                if next(taken) == 12:
                    os._exit(9)

            run.checkpoints.save = save_and_end  # type: ignore[method-assign]
        data = train(case, run)
        assert data.sizes["step"] == case.steps  # on every rank, also of those that hold no rows
        return data

    run = obtain_resumable_run(root, "run", case, compute, device=torch.device("cpu"), checkpoint_seconds=0)
    data = run.data.load()
    columns = {name: np.asarray(data[name]) for name in data.variables} | data.attrs
    return columns | {"resumed_at": run.environment["resumed_at"]}


def sweep(root: Path) -> tuple[str, xr.Dataset]:
    """A small phase diagram: its table and its data."""
    study = PhaseConfig(betas=(1.0, 2.0, 3.0), lrs=4, seeds=(0, 1), steps=200)
    data = make_sweep(study, root, torch.device("cpu"), progress=False)
    return study.table(data), data
