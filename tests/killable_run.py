"""Small runs that a test kills and lets go on; imported by the processes it forks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import xarray as xr
from forked import count_into, die_at
from torch import nn

from sim import (
    Architecture,
    Batches,
    OptimizerChoice,
    RunInProgress,
    SharpnessProbe,
    SnapshotProbe,
    TwoLayerConfig,
    build,
    descend,
    mlp,
    obtain_resumable_run,
    run_two_layer,
    two_layer,
)
from sim.training import Probe

torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)  # imports what else each process would import for itself

STEPS = 40


@dataclass(frozen=True)
class Case:
    """What is trained, so that each part of the state has a run whose bits need it."""

    optimizer: str = "descent"
    dropout: float = 0.0
    batch: int | None = None
    diverges: bool = False
    convolutional: bool = False
    two_layer: bool = False


CASES = {
    "descent": Case(),
    "momentum and dropout": Case("momentum", dropout=0.2),
    "adam in minibatches": Case("adam", batch=7),
    "diverging": Case(diverges=True),
    "sharpness-aware convolutional network": Case("sam", convolutional=True),
    "two-layer network": Case(two_layer=True),
}

OPTIMIZERS: dict[str, Any] = {
    "descent": torch.optim.SGD,
    "momentum": functools.partial(torch.optim.SGD, momentum=0.9),
    "adam": torch.optim.Adam,
    "sam": OptimizerChoice("sam", radius=0.2).factory(),
}


def compute(case: Case, run: RunInProgress) -> xr.Dataset:
    """Trains a network with batch norm (buffers), dropout (random state) and a probe (eigenvectors)."""
    if case.two_layer:
        return _compute_two_layer(run)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 6, generator=generator)
    y = torch.randint(0, 3, (30,), generator=generator)
    torch.manual_seed(11)  # dropout draws from the global state
    plain = mlp([6, 8, 3], "relu", seed=5)
    network = nn.Sequential(plain[0], nn.BatchNorm1d(8), plain[1], nn.Dropout(case.dropout), plain[2])
    network.train()
    lr = 0.01 if case.optimizer == "adam" else 0.3
    _take_every_third_checkpoint(run)
    run.record._chunk_bytes = 7 * 4 * len(x)  # chunks of seven steps
    probes: Sequence[Probe]
    if case.convolutional:
        # Written-out batch norm; the Hessian is left to the other cases, which are cheaper.
        x, y = torch.randn(4, 3, 32, 32, generator=generator), y[:4]
        network, lr = build(Architecture("vgg11_bn", width=1 / 64), (3, 32, 32), 10, seed=5), 0.02
        run.record._chunk_bytes = 7 * 4 * len(x)
        size = sum(p.numel() for p in network.parameters())
        probes = [SnapshotProbe(size, 5, run.record)]
    elif case.diverges:
        network, lr, probes = plain, 30.0, []
    else:
        probes = [SharpnessProbe(network, x, y, lr, every=4, blocks_every=8, record=run.record)]
    descent = descend(
        network,
        x,
        y,
        lr=lr,
        steps=STEPS,
        optimizer=OPTIMIZERS[case.optimizer],
        batches=Batches(size=case.batch, seed=2),
        probes=probes,
        record=run.record,
        checkpoints=run.checkpoints,
        progress=False,
    )
    data = descent.data
    data["weights"] = "weight", torch.cat([v.double().flatten() for v in network.state_dict().values()]).numpy()
    data["statistics"] = "class", F.one_hot(y).sum(0).numpy()
    data.attrs["diverged_at"] = -1 if descent.diverged_at is None else descent.diverged_at
    return data


def _compute_two_layer(run: RunInProgress) -> xr.Dataset:
    """Descends in blocks of three steps, which do not divide the steps, in chunks of five."""
    two_layer.BLOCK = 3
    _take_every_third_checkpoint(run)
    run.record._chunk_bytes = 5 * 8 * 2
    config = TwoLayerConfig(d1=4, steps=STEPS, examples=50, sample_seeds=(0,))
    return run_two_layer(config, torch.device("cpu"), run=run, progress=False)


def _take_every_third_checkpoint(run: RunInProgress) -> None:
    calls = itertools.count(1)
    run.checkpoints.due = lambda: next(calls) % 3 == 0  # type: ignore[method-assign]


def make(root: Path, name: str, case: Case) -> None:
    """Makes the run, or goes on with it, with a checkpoint after every third step."""
    torch.set_num_threads(1)
    obtain_resumable_run(root, name, case, functools.partial(compute, case), device=torch.device("cpu"))


def make_until(root: Path, name: str, case: Case, events: int) -> None:
    """Makes the run, and kills its own process at the given file operation on the run store, counted from 1."""
    die_at(root, events)
    make(root, name, case)


def count_events(root: Path, name: str, case: Case, total: Any) -> None:
    """Makes the run, and says how many file operations it took."""
    count_into(root, total)
    make(root, name, case)
